"""Which part of the package may import which: always a lower floor, never a higher one, never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import mlflow
import pytest
from imports import imports_of

REPOSITORY = Path(__file__).parents[1]
MODULES = [path for path in REPOSITORY.glob("ssd/**/*.py") if path.name != "__init__.py"]

# What every floor may stand on: errors, files, settings, processes of Python, the types that flow.
GROUND = {
    "errors",
    "fetch",
    "files",
    "hardware",
    "interrupt",
    "layouts",
    "lock",
    "parallel",
    "params",
    "params_errors",
    "params_file",
    "params_space",
    "seeding",
    "structures",
    "tensor_writer",
    "tracking",
    "unused_params",
    "watchdog",
    "cross_validation",
    "detections_file",
}

# A folder or a module at the root of `ssd`, and what it may import besides the ground and itself.
FLOORS: dict[str, set[str]] = {
    "source": set(),
    "prepare": set(),
    "processes": set(),
    "metrics": set(),
    "boxes": set(),
    "matching": {"boxes"},
    "loss": {"boxes", "matching"},
    "postprocess": {"boxes", "matching"},
    "loading": {"boxes"},
    "models": {"boxes", "loss", "matching", "postprocess"},
    "preflight": {"source", "prepare", "models", "processes"},
    "detector": {"models", "postprocess"},
    "evaluation": {"loading", "models", "processes"},
    "export": {"boxes", "models", "postprocess", "detector"},
    "inference": {"prepare", "loss", "models", "postprocess", "detector", "export", "plots"},
    "plots": {"loading", "metrics", "models"},
    "compare": {"boxes", "metrics", "plots"},
    "ensemble": {"compare", "metrics"},
    "audit": {"inference", "loading", "metrics", "plots"},
    "serving": {"inference", "plots", "prepare"},
    "tuning": {"plots", "training"},
    "training": {"evaluation", "loading", "metrics", "models", "postprocess", "processes"},
}


def floor(path: Path) -> str:
    """`ssd/models/heads.py` is on the floor models, `ssd/loss.py` on the floor loss."""
    return path.relative_to(REPOSITORY / "ssd").with_suffix("").parts[0]


def imported(path: Path) -> set[Path]:
    return {found for found in imports_of(path, REPOSITORY) if found.name != "__init__.py"} - {path}


def test_every_module_has_its_floor() -> None:
    assert {floor(path) for path in MODULES} == GROUND | FLOORS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_its_own_floor_and_lower_ones(path: Path) -> None:
    allowed = GROUND if floor(path) in GROUND else GROUND | {floor(path)} | FLOORS[floor(path)]
    for found in imported(path):
        assert found.is_relative_to(REPOSITORY / "ssd"), f"{found}: the package knows no stage"
        assert floor(found) in allowed, f"{floor(path)} may not import {found.relative_to(REPOSITORY)}"


def test_mlflow_is_imported_by_tracking_and_its_model_and_dvc_by_none() -> None:
    """The rest of the package works where neither is installed."""
    found = {(path.name, name) for path in MODULES for name in imported_names(path) & {"mlflow", "dvc"}}
    assert found == {(name, "mlflow") for name in ("client.py", "run.py", "pyfunc_model.py")}


def test_the_folder_mlflow_does_not_shadow_the_library() -> None:
    assert not list((REPOSITORY / "mlflow").glob("*.py"))
    assert mlflow.__file__ and not Path(mlflow.__file__).is_relative_to(REPOSITORY / "mlflow")


def imported_names(path: Path) -> set[str]:
    """Top-level packages of all import statements, those inside functions included."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[0] for module in modules}


def test_no_import_goes_in_a_circle() -> None:
    """The floors by this table, and the modules by their import statements."""
    list(TopologicalSorter(FLOORS).static_order())
    list(TopologicalSorter({path: imported(path) for path in MODULES}).static_order())


def test_the_tree_in_the_readme_is_the_repository() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    tree = readme.split("\n```\n")[-2].splitlines()
    assert tree[0].startswith("params.yaml")
    names = [line.split("  ")[0] for line in tree if not line.startswith(" ")]
    assert all((REPOSITORY / name).exists() for line in names for name in line.split(", "))
    listed = [line.split()[0] for line in tree if line.startswith(" ")]
    assert sorted(listed) == sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in (REPOSITORY / "ssd").iterdir()
        if not path.name.startswith("__")
    )
