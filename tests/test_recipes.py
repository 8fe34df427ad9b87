"""Recipes: each is valid on the default, its network has the priors of its source, trains and exports."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from default_params import read_yaml

from recipes import build_recipe, recipe_params, recipe_priors
from ssd.detector import Detector
from ssd.export.onnx import open_onnx, to_onnx
from ssd.export.torchscript import to_torchscript
from ssd.files import write_bytes
from ssd.hardware import choose_hardware
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params, load_params
from ssd.postprocess import PostProcessSettings
from ssd.training.loop import Trainer
from stages import recipe

REPOSITORY = Path(__file__).parents[1]
NUM_PRIORS = {
    "bccd-faster-rcnn-resnet50": 42816,
    "bccd-ssd300-resnet18": 8732,
    "coco-faster-rcnn-resnet50-fpn": 159882,
    "coco-ssd300-resnet34": 8732,
    "coco-ssd300-resnet50": 8732,
    "coco-ssd300-vgg16": 8732,
    "coco-ssdlite320-mobilenetv3": 3234,
    "own-data-small": 8732,
    "penn-fudan-faster-rcnn-resnet50": 159882,
    "penn-fudan-ssd300-resnet34": 7760,
    "small-faster-rcnn": 42816,
    "voc07-ssd300-resnet50": 8732,
    "voc0712-ssd300-resnet34": 8732,
    "voc0712-ssd300-resnet50": 8732,
    "voc0712-ssd300-vgg16": 8732,
    "voc0712-ssd512-resnet50": 6132,
}
NAMES = ["default", *NUM_PRIORS]

# Of a machine or a project: where data lies, what computes it, what is logged. Recipes leave them as they
# are.
NOT_IN_RECIPES = {
    "data.path",
    "data.archives",
    "data.mirrors",
    "preprocess.shards",
    "preprocess.workers",
    "train.device",
    "train.devices",
    "train.restarts",
    "train.cache",
    "train.checkpoint_minutes",
    "evaluate.device",
    *(f"tune.{key}" for key in ("trials", "workers", "seeds", "seed", "startup_trials", "prune_after")),
}

# One of each kind of network but SSD on ResNets, which tests/export exports.
EXPORTED = {"coco-ssdlite320-mobilenetv3", "penn-fudan-ssd300-resnet34", "voc0712-ssd300-vgg16"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes and a params.yaml of somebody who has changed two values of it."""
    (tmp_path / "recipes").symlink_to(REPOSITORY / "recipes")
    text = (REPOSITORY / "params.yaml").read_text()
    for old, new in (("  device: auto", "  device: cpu "), ("  flip: ", "  flip: 0.123  # was ")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_recipe(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`make recipe NAME=...`; what it printed."""

    def make(*names: str) -> str:
        recipe.main(names)
        return capsys.readouterr().out

    return make


def comments(path: Path) -> list[str]:
    return [line[line.index("#") :] for line in path.read_text().splitlines() if "#" in line]


def test_every_recipe_is_listed_here_and_by_the_command(make_recipe: Callable[..., str]) -> None:
    assert {path.stem for path in Path("recipes").glob("*.yaml")} == set(NAMES)
    listed = make_recipe().split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == sorted(NAMES)
    assert all(len(line.split()) > 5 for line in listed)


@pytest.mark.parametrize("name", NAMES)
def test_its_header_says_what_where_from_and_how_well(name: str) -> None:
    header = (REPOSITORY / f"recipes/{name}.yaml").read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Source:", "Published:", "Measured here"):
        assert word in header


def test_the_default_holds_every_key_that_decides_a_result() -> None:
    content = read_yaml(REPOSITORY / "recipes/default.yaml")
    listed = {f"{section}.{key}" for section, values in content.items() for key in values}
    sections = {name: field.annotation for name, field in Params.model_fields.items()}
    known = {f"{section}.{key}" for section, kind in sections.items() for key in kind.model_fields}  # type: ignore[union-attr]
    assert known > NOT_IN_RECIPES
    assert listed == {key for key in known if not key.startswith("tracking.")} - NOT_IN_RECIPES


@pytest.mark.parametrize("name", NUM_PRIORS)
def test_it_holds_nothing_but_what_differs_from_the_default(name: str) -> None:
    content = read_yaml(REPOSITORY / f"recipes/{name}.yaml")
    default = read_yaml(REPOSITORY / "recipes/default.yaml")
    for section, values in content.items():
        for key, value in values.items():
            assert default[section][key] != value, f"{section}.{key}"


def test_a_recipe_after_another_is_that_recipe_alone(
    make_recipe: Callable[..., str], workspace: Path
) -> None:
    """Comments and the settings of the machine stay."""
    before = comments(workspace / "params.yaml")
    for name in NAMES:
        make_recipe(name)
        params = load_params(workspace / "params.yaml")
        composed = recipe.recipe(name)
        written = params.model_dump(mode="json")
        for section, values in composed.items():
            for key, value in values.items():
                assert written[section][key] == value, f"{name}: {section}.{key}"
        assert params.train.device == "cpu"
        assert comments(workspace / "params.yaml") == before


def test_it_prints_what_it_changed_and_nothing_the_second_time(make_recipe: Callable[..., str]) -> None:
    first = make_recipe("voc0712-ssd300-vgg16").splitlines()
    assert "model.backbone: resnet18 -> vgg16" in first
    assert "augment.flip: 0.123 -> 0.5" in first
    assert make_recipe("voc0712-ssd300-vgg16") == "params.yaml: 0 values changed for voc0712-ssd300-vgg16\n"


def test_an_unknown_recipe_is_one_line_and_changes_nothing(
    make_recipe: Callable[..., str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        make_recipe("voc")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no recipe 'voc'; there are: bccd-faster-rcnn-resnet50, ")
    assert (workspace / "params.yaml").read_bytes() == before


def test_params_that_are_not_valid_are_left_as_they_are(
    make_recipe: Callable[..., str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (workspace / "params.yaml").read_text().replace("  folds: 0", "  folds: 1")
    (workspace / "params.yaml").write_text(text)
    with pytest.raises(SystemExit):
        make_recipe("default")
    assert "data.folds: found 1" in capsys.readouterr().err
    assert (workspace / "params.yaml").read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize("name", NUM_PRIORS)
def test_it_trains_and_each_kind_of_network_exports(
    name: str, shapes_file: TensorFile, tmp_path: Path
) -> None:
    """A step by its own optimizer, loss and augmentation; then files that agree with it."""
    params = recipe_params(name)
    assert len(recipe_priors(name)) == NUM_PRIORS[name]
    side = params.model.input_size if params.model.family == "ssd" else 128
    model = build_recipe(name, len(shapes_file.class_names), side)
    assert torch.equal(model.priors, recipe_priors(name, side))
    # Without published weights, nothing but batch norms keeps a deep network's numbers small.
    small = {"batch_size": 2, "workers": 0, "device": "cpu", "warmup_steps": 0, "freeze_bn": False}
    trainer = Trainer(
        model,
        shapes_file,
        shapes_file,
        params.train.model_copy(update=small),
        params.augment,
        choose_hardware("cpu", "auto"),
    )
    total, _, _, skipped = trainer.step(next(iter(trainer.loader)), 0, 0, 1e-4).tolist()
    assert 0 < total < 1e4 and skipped == 0
    for where, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), where
        assert parameter.isfinite().all(), where
    if name in EXPORTED:
        detector = Detector(model.eval(), PostProcessSettings(1e-3, max_detections=20))
        assert_files_agree(detector, shapes_file, tmp_path)


def assert_files_agree(detector: Detector, file: TensorFile, folder: Path) -> None:
    """The exported files find what the detector finds."""
    images = file.image(0)[None]
    with torch.inference_mode():
        expected = detector(images)
    assert expected[3].item() > 0
    script = folder / "ssd.torchscript.pt"
    write_bytes(script, to_torchscript(detector, file.class_names))
    write_bytes(folder / "ssd.onnx", to_onnx(detector, file.class_names, 18))
    for run in (torch.jit.load(script), open_onnx(folder / "ssd.onnx")[0]):
        found = run(images)
        torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=0)
        assert found[3].tolist() == expected[3].tolist()
