"""The image gets all that the stages need, and nothing else."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from allow_list import allowed, in_allow_list
from default_params import REPOSITORY
from imports import needed_modules

TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
).stdout.split()


def test_every_entry_is_there() -> None:
    """A renamed file would be missing in the image without a word."""
    assert all((REPOSITORY / name).is_symlink() or (REPOSITORY / name).exists() for name in allowed())


SCRIPTS = sorted([*REPOSITORY.glob("stages/*.py"), *REPOSITORY.glob("cli/[a-z]*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_all_that_a_stage_or_command_imports_gets_in(script: Path) -> None:
    modules = needed_modules(script, REPOSITORY)
    assert modules and all(map(in_allow_list, modules))


def test_all_code_and_settings_that_dvc_reads_get_in() -> None:
    pipeline = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
    outs = [
        out for stage in pipeline["stages"].values() for out in [*stage["outs"], *stage.get("metrics", [])]
    ]
    deps = [dep for stage in pipeline["stages"].values() for dep in stage["deps"]]
    code = [dep for dep in deps if not any(Path(dep).is_relative_to(out) for out in outs)]
    settings = ["dvc.yaml", "params.yaml", ".dvc/config", ".dvc/plots_page.html", ".dvcignore"]
    assert code and all(map(in_allow_list, [*code, *settings]))


def test_all_recipes_and_the_files_that_the_dockerfile_copies_get_in() -> None:
    copied = re.findall(r"^COPY ([a-z0-9. -]+) \./$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert copied == ["requirements.txt requirements-s3.txt", "."]
    assert in_allow_list("requirements.txt") and in_allow_list("requirements-s3.txt")
    assert in_allow_list("recipes/default.yaml")


def test_what_is_not_tracked_and_what_may_hold_a_secret_stays_outside() -> None:
    for name in (
        ".env",
        ".git/config",
        ".dvc/config.local",
        ".dvc/cache/files/md5/00/11",
        ".venv/bin/python",
        "data/raw/a.jpg",
        "data/archives/a.tar",
        "models/model.pt",
        "mlflow/mlflow.db",
        "id_rsa",
    ):
        assert not in_allow_list(name), name


def test_tests_benchmarks_and_pictures_stay_outside() -> None:
    folders = {name.split("/")[0] for name in TRACKED if in_allow_list(name) and "/" in name}
    assert folders == {".dvc", "cli", "data", "kubeflow", "mlflow", "recipes", "ssd", "stages"}


def test_of_kubeflow_gets_in_what_runs_in_its_containers() -> None:
    found = {name for name in TRACKED if in_allow_list(name) and name.startswith("kubeflow/")}
    assert found == {"kubeflow/step.py", "kubeflow/artifacts.py", "kubeflow/spread.py"}
