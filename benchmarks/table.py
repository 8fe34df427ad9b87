"""The table of benchmarks/README.md, from the results files."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.results import Result, Row
from ssd.files import write_bytes

README = Path(__file__).parent / "README.md"
START = "<!-- results: written by `python -m benchmarks` -->"
END = "<!-- end of results -->"

HEADER = [
    "| | ours | peer | ratio | aim | peak memory, ours / peer | result |",
    "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
]


def update_readme(
    results: Mapping[str, Result | None], reasons: Mapping[str, str], path: Path = README
) -> None:
    """Write the table between the two markers of a Markdown file; the rest stays."""
    text = path.read_text()
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    assert start and end, f"{path} does not contain both markers"
    write_bytes(path, f"{before}{START}\n\n{table(results, reasons)}\n{END}{after}".encode())


def table(results: Mapping[str, Result | None], reasons: Mapping[str, str]) -> str:
    """The table of all benchmarks and, below it, where each was run.

    Args:
        results: by benchmark; None where there are none.
        reasons: why a benchmark has no results, by its name: "no GPU".
    """
    lines = list(HEADER)
    places: dict[str, list[str]] = {}
    for name, result in results.items():
        if result is None:
            lines.append(f"| {name} | | | | | | not run: {reasons.get(name, 'no results here')} |")
            continue
        lines += [line(row) for row in result.rows]
        places.setdefault(_place(result), []).append(f"`{name}`")
    lines += [f"\n{', '.join(names)}: {place}." for place, names in places.items()]
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    """A line of the table."""
    cells = [
        row.what + (f" ({row.notes})" if row.notes else ""),
        _figure(row.ours, row.unit),
        _figure(row.peer, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}x" if row.ratio < 10 else f"{row.ratio:.1f}x",
        row.aim or "",
        _memory(row),
        verdict(row),
    ]
    return f"| {' | '.join(cells)} |"


def verdict(row: Row) -> str:
    """ "met", or which aim was "missed"; "no aim" where there is none."""
    missed = [name for name, met in (("speed", row.met), ("memory", row.memory_met)) if met is False]
    if missed:
        return f"**missed: {' and '.join(missed)}**"
    return "no aim" if row.met is None and row.memory_met is None else "met"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s" and value < 1:
        return f"{_short(value * 1000)} ms"
    return f"{_short(value)} {unit}"


def _short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _memory(row: Row) -> str:
    if row.ours_mib is None:
        return ""
    return (
        f"{row.ours_mib:.0f} / {row.peer_mib:.0f} MiB"
        if row.peer_mib is not None
        else f"{row.ours_mib:.0f} MiB"
    )


def _place(result: Result) -> str:
    where = result.where
    machine, versions = where["machine"], where["versions"]
    cores = f"{machine['cores']} cores" + (f" ({', '.join(machine['flags'])})" if machine["flags"] else "")
    threads = f"{machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}"
    chip = f"{machine['gpu']}, {machine['cpu']}" if machine["gpu"] else machine["cpu"]
    software = f"torch {versions['torch']}, torchvision {versions['torchvision']}"
    when = f"{where['date']}, commit {where['commit']}"
    return f"{chip}, {cores}, {threads}, {machine['memory_gib']:.0f} GiB; {software}; {when}"
