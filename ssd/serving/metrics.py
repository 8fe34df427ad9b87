"""Counts and distributions in Prometheus' text format, version 0.0.4."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of a histogram of latencies."""

IMAGES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of a histogram of batch sizes."""


class Metric(Protocol):
    """What `render` takes."""

    def lines(self) -> Iterator[str]:
        """Its samples, after its help and type."""


class CodeCounter:
    """How many requests had an answer of each HTTP status code."""

    def __init__(self, name: str, meaning: str) -> None:
        self._name = name
        self._meaning = meaning
        self._counts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def add(self, code: int) -> None:
        """Count an answer."""
        with self._lock:
            self._counts[code] += 1

    def lines(self) -> Iterator[str]:
        """See `Metric`."""
        with self._lock:
            counts = sorted(self._counts.items())
        yield from _head(self._name, self._meaning, "counter")
        for code, count in counts:
            yield f'{self._name}{{code="{code}"}} {count}'


class Histogram:
    """A distribution by buckets: for each upper bound, how many values are at most that.

    Args:
        bounds: ascending, without infinity.
        labels: of all samples, as `{"model": "a.pt"}`.
    """

    def __init__(
        self, name: str, meaning: str, bounds: Sequence[float], labels: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self._meaning = meaning
        self._bounds = bounds
        self._labels = labels or {}
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> Iterator[str]:
        """See `Metric`."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        yield from _head(self.name, self._meaning, "histogram")
        for bound, count in zip([*map(str, self._bounds), "+Inf"], accumulate(counts), strict=True):
            yield f"{self.name}_bucket{_in_braces({**self._labels, 'le': bound})} {count}"
        yield f"{self.name}_sum{_in_braces(self._labels)} {total:.9g}"
        yield f"{self.name}_count{_in_braces(self._labels)} {sum(counts)}"


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, meaning: str) -> None:
        self._name = name
        self._meaning = meaning
        self.value = 0

    def lines(self) -> Iterator[str]:
        """See `Metric`."""
        yield from _head(self._name, self._meaning, "gauge")
        yield f"{self._name} {self.value}"


def render(metrics: Sequence[Metric]) -> str:
    """All metrics as one text; help and type of a name are said once."""
    seen: dict[str, None] = {}
    for metric in metrics:
        seen.update(dict.fromkeys(metric.lines()))
    return "\n".join(seen) + "\n"


def _head(name: str, meaning: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _in_braces(labels: dict[str, str]) -> str:
    escaped = {
        key: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for key, value in labels.items()
    }
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}" if escaped else ""
