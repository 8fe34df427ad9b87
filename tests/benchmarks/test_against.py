"""Two checkouts in one process: each side is its own code."""

import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import against

OTHER = """
from types import SimpleNamespace

def benchmark():
    candidates = {"ours": lambda inputs: lambda: calls.append("there"), "peer": None}
    return SimpleNamespace(make_inputs=lambda: None, candidates=candidates)

calls = []
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in (("__init__", ""), ("toy", OTHER), ("matching_loss", OTHER)):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / f"benchmarks/{name}.py").write_text(text)
    return tmp_path


def test_a_benchmark_is_made_by_the_code_of_its_checkout(checkout: Path) -> None:
    before, folder = list(sys.path), Path.cwd()
    steps = against.our_steps("toy", checkout)
    assert list(steps) == ["ours"]
    assert steps["ours"].__code__.co_filename == str(checkout / "benchmarks/toy.py")
    assert (sys.path, Path.cwd()) == (before, folder)
    assert sys.modules["benchmarks"] is benchmarks
    assert "benchmarks.toy" not in sys.modules


def test_only_what_both_have_is_compared(checkout: Path) -> None:
    assert against.compare("matching_loss", checkout) == {}
