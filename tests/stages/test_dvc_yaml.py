"""dvc.yaml against the code: all code that can change a stage's output is its dep, and no other."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from imports import needed_modules

from ssd.hardware import choose_hardware
from ssd.params import NOT_OF_A_RUN, Params
from stages import train

REPOSITORY = Path(__file__).parents[2]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
NAMES = ["download", "preprocess", "train", "evaluate", "export", "report"]
CHECK = "check_params"

# Code of messages, checks and tracking, which changes no output of a stage.
PLUMBING = {
    "ssd/errors.py",
    "ssd/interrupt.py",
    "ssd/lock.py",
    "ssd/watchdog.py",
    "ssd/unused_params.py",
    "ssd/params.py",
    "ssd/params_errors.py",
    "ssd/params_file.py",
    "ssd/params_space.py",
    "stages/__init__.py",
    "stages/command.py",
    "stages/dvc_process.py",
    "stages/only_one.py",
    "stages/run.py",
    "stages/train_log.py",
    "stages/check.py",
    "stages/check_params.py",
    *(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("ssd/preflight/[!_]*.py")),
    *(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("ssd/tracking/[!_]*.py")),
}


# Of these, what decides whether params are valid.
DECIDING = {"stages/check_params.py", "ssd/params.py", "ssd/params_file.py", "ssd/params_space.py"}


def code_deps(stage: str) -> set[str]:
    """The Python files that a stage's deps name, one by one or by their folder."""
    files: set[Path] = set()
    for dep in STAGES[stage]["deps"]:
        if dep.startswith(("ssd/", "stages/")):
            path = REPOSITORY / dep
            files |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return {str(f.relative_to(REPOSITORY)) for f in files if f.name != "__init__.py"}


def needed(stage: str) -> set[str]:
    """The modules that a stage imports, however deep, without the plumbing and what only that imports."""
    modules = needed_modules(REPOSITORY / "stages" / f"{stage}.py", REPOSITORY, without=PLUMBING)
    # Not imported but given to MLflow as a file: what serves the exported model.
    return modules | ({"ssd/export/pyfunc_model.py"} if stage == "export" else set())


def test_there_are_six_stages_after_the_check_of_the_params() -> None:
    assert list(STAGES) == [CHECK, *NAMES]


def test_every_stage_depends_on_the_check_of_the_params() -> None:
    """So DVC runs it before it removes what another one wrote, in whichever way it is told to run that."""
    outs = {name: [*stage["outs"], *stage.get("metrics", [])] for name, stage in STAGES.items()}
    made = {out: name for name, written in outs.items() for out in written}

    def before(name: str) -> set[str]:
        makers = {made[out] for dep in STAGES[name]["deps"] for out in made if Path(dep).is_relative_to(out)}
        return makers.union(*map(before, makers))

    assert all(CHECK in before(name) for name in NAMES)


def test_the_check_runs_after_a_change_of_any_param_or_of_what_is_allowed() -> None:
    assert STAGES[CHECK]["params"] == [{"params.yaml": None}], "all of the file, unknown keys too"
    code = needed_modules(REPOSITORY / "stages/check_params.py", REPOSITORY, without=PLUMBING - DECIDING)
    assert set(STAGES[CHECK]["deps"]) == DECIDING <= code


@pytest.mark.parametrize("stage", NAMES)
def test_every_module_that_can_change_a_stage_s_output_is_a_dep(stage: str) -> None:
    assert needed(stage) <= code_deps(stage)


@pytest.mark.parametrize("stage", ["download", "preprocess", "train"])
def test_no_other_module_runs_the_long_stages_again(stage: str) -> None:
    assert code_deps(stage) == needed(stage)


@pytest.mark.parametrize("stage", ["evaluate", "export", "report"])
def test_what_else_the_later_stages_name_trains_again_anyway(stage: str) -> None:
    """They name whole folders, too, of which they need a part."""
    assert code_deps(stage) - needed(stage) <= code_deps("train")


def test_plumbing_is_there_and_is_nobody_s_dep() -> None:
    for name in PLUMBING:
        assert (REPOSITORY / name).is_file()
        assert all(name not in code_deps(stage) for stage in NAMES)


@pytest.mark.parametrize("stage", NAMES)
def test_params_are_the_sections_that_a_stage_reads(stage: str) -> None:
    text = (REPOSITORY / "stages" / f"{stage}.py").read_text()
    read = set(re.findall(r"params\.(\w+)", text)) & set(Params.model_fields) - NOT_OF_A_RUN
    assert {name.split(".")[0] for name in STAGES[stage]["params"]} == read


def test_nothing_depends_on_the_report() -> None:
    outs = set(STAGES["report"]["outs"])
    assert all(outs.isdisjoint(STAGES[stage]["deps"]) for stage in NAMES)


class Checkout:
    """A copy of the code in which files can be touched, and a training's place for its checkpoints there."""

    def __init__(self, folder: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.params = folder, params
        for path in [
            REPOSITORY / "dvc.yaml",
            *REPOSITORY.glob("ssd/**/*.py"),
            *REPOSITORY.glob("stages/*.py"),
        ]:
            copy = folder / path.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        for split in ("train", "val"):
            path = folder / f"data/tensors/{split}/00000-of-00001.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(split)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(train, "__file__", str(folder / "stages/train.py"))

    def checkpoints(self, params: Params | None = None) -> Path:
        return train.checkpoint_folder(params or self.params, choose_hardware("cpu", "fp32"))

    def touched(self, name: str) -> Path:
        """The checkpoints after a change of a file, which is taken back."""
        path = self.folder / name
        before = path.read_bytes()
        path.write_bytes(before + b"# touched\n")
        try:
            return self.checkpoints()
        finally:
            path.write_bytes(before)


@pytest.fixture
def checkout(tmp_path: Path, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path / "checkout", make_params(), monkeypatch)


def test_a_change_of_what_decides_the_weights_is_another_training_and_of_what_shows_is_not(
    checkout: Checkout,
) -> None:
    """Every file of the package and of the stages is touched, one after the other."""
    before = checkout.checkpoints()
    files = [*REPOSITORY.glob("ssd/**/*.py"), *REPOSITORY.glob("stages/*.py")]
    names = {str(f.relative_to(REPOSITORY)) for f in files if f.name != "__init__.py"}
    another = {name for name in names if checkout.touched(name) != before}
    assert another == code_deps("train") == needed("train")
    for name in ("ssd/loss.py", "ssd/loading/augment.py", "ssd/models/ssd.py", "ssd/training/schedule.py"):
        assert name in another
    for name in ("ssd/plots/figures.py", "ssd/tracking/run.py", "ssd/errors.py", "ssd/export/onnx.py"):
        assert name not in another
    assert checkout.checkpoints() == before


def test_params_of_other_stages_and_of_speed_keep_the_checkpoints_and_the_others_do_not(
    checkout: Checkout, make_params: Callable[..., Params]
) -> None:
    before = checkout.checkpoints()
    for key, value in {
        "report.num_pictures": 3,
        "evaluate.nms_iou": 0.6,
        "export.opset": 19,
        "tracking.run_name": "x",
        "preprocess.workers": 1,
        "train.workers": 3,
        "train.checkpoint_minutes": 1.0,
        "train.cache": "ram",
    }.items():
        assert checkout.checkpoints(make_params(**{key: value})) == before, key
    for key, value in {
        "train.lr": 0.1,
        "train.seed": 1,
        "augment.flip": 0.1,
        "model.backbone": "resnet34",
    }.items():
        assert checkout.checkpoints(make_params(**{key: value})) != before, key


def test_a_change_of_the_data_is_another_training(checkout: Checkout) -> None:
    assert checkout.touched("data/tensors/train/00000-of-00001.safetensors") != checkout.checkpoints()
