"""The table in benchmarks/README.md."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import MISSING, NAMES
from benchmarks.results import FOLDER, Result, Row, read_results
from benchmarks.table import END, README, START, line, table, update_readme, verdict

ROW = Row("a step", "images/s", 123.4, 41.13, 3.0, "2x", True, 100.0, 200.4, True)
WHERE = {
    "date": "2026-01-02",
    "commit": "0123abcd",
    "machine": {"cpu": "CPU", "cores": 2, "memory_gib": 15.6, "flags": ["avx2"], "threads": 2, "gpu": None},
    "versions": {"torch": "2.0", "torchvision": "0.1"},
}


def result(*rows: Row) -> Result:
    return Result("step", WHERE, {}, {}, list(rows))


def test_a_line_has_figures_aim_memory_and_verdict() -> None:
    assert line(ROW) == "| a step | 123 images/s | 41.1 images/s | 3.00x | 2x | 100 / 200 MiB | met |"
    seconds = replace(ROW, unit="s", ours=0.0123, peer=34.56, ratio=28.1, notes="twice")
    assert line(seconds) == "| a step (twice) | 12.3 ms | 34.6 s | 28.1x | 2x | 100 / 200 MiB | met |"


def test_a_line_may_lack_peer_aim_and_memory() -> None:
    bare = Row("a step", "s", 1.5, None, None, None, None, None, None, None)
    assert line(bare) == "| a step | 1.5 s |  |  |  |  | no aim |"


@pytest.mark.parametrize(
    ("met", "memory_met", "words"),
    [
        (True, True, "met"),
        (True, None, "met"),
        (None, True, "met"),
        (None, None, "no aim"),
        (False, True, "**missed: speed**"),
        (True, False, "**missed: memory**"),
        (None, False, "**missed: memory**"),
        (False, False, "**missed: speed and memory**"),
    ],
)
def test_a_missed_aim_is_never_hidden(met: bool | None, memory_met: bool | None, words: str) -> None:
    assert verdict(replace(ROW, met=met, memory_met=memory_met)) == words


def test_the_table_has_every_row_and_says_where_it_was_measured() -> None:
    text = table({"step": result(ROW, ROW), "other": result(ROW)}, {})
    assert text.count(line(ROW)) == 3
    assert (
        "`step`, `other`: CPU, 2 cores (avx2), 2 threads, 16 GiB; torch 2.0, torchvision 0.1; 2026-01-02"
        in text
    )


def test_what_was_not_run_stands_in_the_table_with_the_reason() -> None:
    lines = table({"step": result(ROW), "gpu": None, "other": None}, {"gpu": "no GPU"}).splitlines()
    assert "| gpu | | | | | | not run: no GPU |" in lines
    assert "| other | | | | | | not run: no results here |" in lines


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    update_readme({"step": result(ROW)}, {}, path)
    first = path.read_text()
    update_readme({"step": result(ROW)}, {}, path)
    assert path.read_text() == first
    assert first.startswith(f"before\n{START}\n") and first.endswith(f"{END}\nafter\n")
    assert "old" not in first and line(ROW) in first


def test_the_readme_shows_the_results_that_are_committed() -> None:
    shown = README.read_text().partition(START)[2].partition(END)[0]
    assert shown.strip() == table(read_results(NAMES), MISSING).strip()


def test_every_results_file_is_in_the_table_or_in_docs() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} <= {*NAMES, "growth"}
