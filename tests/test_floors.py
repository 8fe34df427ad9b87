"""Which part of the package may import which: always a lower floor, never a higher one, never in a circle."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from imports import imports_of

REPOSITORY = Path(__file__).parents[1]
MODULES = [path for path in REPOSITORY.glob("ssd/**/*.py") if path.name != "__init__.py"]

# What every floor may stand on: errors, files, settings, processes of Python, the types that flow.
GROUND = {
    *("errors", "files", "hardware", "interrupt", "layouts", "parallel", "params", "seeding"),
    *("structures", "tensor_writer", "tracking", "unused_params", "watchdog", "cross_validation"),
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
    "models": {"boxes"},
    "detector": {"models", "postprocess"},
    "evaluation": {"loading", "loss", "models", "postprocess", "processes"},
    "export": {"boxes", "postprocess", "detector"},
    "plots": {"loading", "models"},
    "training": {"evaluation", "loading", "loss", "metrics", "models", "postprocess", "processes"},
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


def test_no_import_goes_in_a_circle() -> None:
    """The floors by this table, and the modules by their import statements."""
    list(TopologicalSorter(FLOORS).static_order())
    list(TopologicalSorter({path: imported(path) for path in MODULES}).static_order())
