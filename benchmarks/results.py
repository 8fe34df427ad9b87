"""Results of a benchmark as JSON: every timing, the machine, the versions, the aims."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ssd.files import write_json

FOLDER = Path(__file__).parent / "results"

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools")
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
"""CPU flags that determine the speed of matrix products."""


@dataclass(frozen=True)
class Candidate:
    """Timings of one implementation.

    seconds: of each timed call; peak_mib: memory on top of its inputs, None where it was not measured.
    """

    seconds: list[float]
    peak_mib: float | None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    what: description; ours, peer: in `unit` ("s" or "images/s"), by medians; ratio: times as fast as the
    peer; aim: as text, None without one; met, memory_met: whether it is reached, None without an aim or a
    comparison; ours_mib, peer_mib: peak memory. notes: other measurements, as text.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    aim: str | None = None
    met: bool | None = None
    ours_mib: float | None = None
    peer_mib: float | None = None
    memory_met: bool | None = None
    notes: str = ""


@dataclass(frozen=True)
class Result:
    """A results file. `where`: machine, versions, date and commit."""

    benchmark: str
    where: dict[str, Any]
    settings: dict[str, Any]
    candidates: dict[str, dict[str, Any]]
    rows: list[Row]


def make_result(
    name: str, settings: Mapping[str, object], candidates: Mapping[str, Candidate], rows: Sequence[Row]
) -> Result:
    """A result of measurements on this machine, with its versions, the date and the commit."""
    timings = {
        key: {"median_s": median(item.seconds), "peak_mib": item.peak_mib, "seconds": item.seconds}
        for key, item in candidates.items()
    }
    where = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions(),
    }
    return Result(name, where, dict(settings), timings, list(rows))


def write_result(result: Result, folder: Path = FOLDER) -> None:
    """Write `<folder>/<benchmark>.json`."""
    write_json(folder / f"{result.benchmark}.json", asdict(result))


def read_results(names: Sequence[str], folder: Path = FOLDER) -> dict[str, Result | None]:
    """The results of each benchmark; None where it has not been run."""
    return {name: _read(folder / f"{name}.json") for name in names}


def _read(path: Path) -> Result | None:
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return Result(**{**content, "rows": [Row(**row) for row in content["rows"]]})


def machine() -> dict[str, Any]:
    """CPU, memory and GPU of this machine, and the number of threads that torch currently uses."""
    info = _cpu_info()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    flags = info.get("flags", "").split()
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of PACKAGES."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def _commit() -> str:
    """Short hash of the checkout, with a + where files differ from it; "unknown" outside git."""
    try:
        command = ["git", "describe", "--always", "--exclude=*", "--dirty=+", "--abbrev=10"]
        folder = Path(__file__).parent
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
