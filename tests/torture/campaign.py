"""A campaign of kills: several projects, each killed many times, and a table of what that did."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from dvc_project import make_project

from tests.torture.kills import Kill, Killer, Way, held_locks, undisturbed
from tests.torture.results import STAGES

KILLS_PER_PROJECT = 25
HEADER = (
    "way",
    "struck in",
    "kills",
    "differing bits",
    "tracebacks",
    "orphans",
    "stuck locks",
    "refused once",
    "lock mended",
)

PLACES = (*STAGES, "dvc")

Plan = list[tuple[str, Way]]
"""Stages, in the order in which they run, and how each is to be killed."""


def make_plan(num_kills: int, random: Random, *, num_processes: int = 1) -> Plan:
    """Kills spread over all stages and all ways."""
    ways = [way for way in Way if way is not Way.RANK]
    chosen = [ways[index % len(ways)] for index in range(num_kills)]
    random.shuffle(chosen)
    stages = sorted((STAGES[index % len(STAGES)] for index in range(num_kills)), key=STAGES.index)
    plan = list(zip(stages, chosen, strict=True))
    if num_processes == 1:
        return plan
    return [(stage, Way.RANK if stage == "train" and random.random() < 0.5 else way) for stage, way in plan]


def run_campaign(num_kills: int, seed: int) -> list[Kill]:
    """Kill projects until there were that many kills, with a line for each; every second has two ranks."""
    random, kills, num_processes = Random(seed), list[Kill](), 1
    while len(kills) < num_kills:
        number = min(KILLS_PER_PROJECT, num_kills - len(kills))
        kills += kill_project(make_plan(number, random, num_processes=num_processes), random, num_processes)
        num_processes = 3 - num_processes
    return kills


def kill_project(plan: Plan, random: Random, num_processes: int) -> list[Kill]:
    """Kill a new project by plan, let it end, and compare what it has."""
    with tempfile.TemporaryDirectory(prefix="ssd-torture-") as folder:
        project = make_project(Path(folder) / "project")
        expected = undisturbed(project, **{"train.devices": num_processes})
        killer = Killer(project, random)
        for stage, way in plan:
            kill = killer.kill(stage, way)
            sys.stderr.write(f"{kill.way}: struck in {kill.struck}, meant for {stage}\n")
        killer.finish()
        killer.compare(expected)
        killer.kills[-1].stuck += len(held_locks(project))
    for kill in killer.kills:
        if not kill.is_harmless:
            sys.stderr.write(f"\n{kill}\n{kill.text}\n")
    return killer.kills


def table_of(kills: Sequence[Kill]) -> str:
    """A line for each way and stage, and one of sums."""
    groups: dict[tuple[str, str], list[Kill]] = {}
    for kill in sorted(kills, key=lambda kill: (list(Way).index(kill.way), PLACES.index(kill.struck))):
        groups.setdefault((kill.way, kill.struck), []).append(kill)
    rows = [HEADER, *((*names, *sums(group)) for names, group in groups.items()), ("all", "", *sums(kills))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def sums(kills: Sequence[Kill]) -> tuple[str, ...]:
    """The cells of numbers of a line."""
    names = ("bits", "tracebacks", "orphans", "stuck", "refused", "mended")
    return (str(len(kills)), *(str(sum(getattr(kill, name) for kill in kills)) for name in names))
