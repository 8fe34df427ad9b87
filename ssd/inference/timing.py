"""How long a detector takes for a batch of pictures: decoding, network, post-processing."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.detector import Detector
from ssd.export.torchscript import open_torchscript
from ssd.export.verify_onnx import open_session
from ssd.inference.detector_file import SETTINGS, kind_of, read_exported
from ssd.models.saved import load_model
from ssd.prepare.images import decode_rgb

WARM_UP = 3
"""Batches of each setting before the clock counts."""

Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Setting:
    """Images per batch, and threads of one operator."""

    batch: int
    threads: int


@dataclass(frozen=True)
class Timed:
    """What was measured of a setting: seconds per batch of each phase, in each round."""

    setting: Setting
    seconds: dict[str, list[float]]

    def summary(self) -> dict[str, Any]:
        """p50 and p95 in milliseconds per batch, of each phase and of all together; images per second."""
        rounds = zip(*self.seconds.values(), strict=True)
        seconds = {**self.seconds, "total": [sum(parts) for parts in rounds]}
        times = {
            f"{name}_ms": {"p50": 1e3 * statistics.median(s), "p95": 1e3 * p95(s)}
            for name, s in seconds.items()
        }
        rate = self.setting.batch / statistics.median(seconds["total"])
        return {"batch": self.setting.batch, "threads": self.setting.threads, **times, "images_per_s": rate}


def measure(path: Path, encoded: Sequence[bytes], settings: Sequence[Setting], rounds: int) -> list[Timed]:
    """Time a detector on the CPU.

    Every round times each setting once, so that a slow moment of the machine falls on all of them alike.

    Args:
        encoded: pictures as files, taken in turn; those of one size are one batch of the network.
    """
    steps = {threads: phases(path, threads) for threads in {setting.threads for setting in settings}}
    timed = [Timed(setting, {name: [] for name in steps[setting.threads]}) for setting in settings]
    before = torch.get_num_threads()
    try:
        for number in range(-WARM_UP, rounds):
            for item in timed:
                torch.set_num_threads(item.setting.threads)
                data: Any = list(islice(cycle(encoded), item.setting.batch))
                for name, step in steps[item.setting.threads].items():
                    start = time.perf_counter()
                    data = step(data)
                    if number >= 0:
                        item.seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return timed


def phases(path: Path, threads: int) -> dict[str, Step]:
    """The steps from files to detections, each from what the one before gives, by name.

    An exported file is one graph: its post-processing is within `network`.

    Raises:
        UserError: `path` is no detector, or damaged.
    """
    match kind_of(path):
        case "model.pt":
            network, _ = load_model(path)
            detector = Detector(network, SETTINGS)
            return {
                "decoding": decoded,
                "network": torch.inference_mode()(lambda batches: [detector.raw_outputs(x) for x in batches]),
                "postprocessing": lambda batches: [detector.postprocessor(*raw) for raw in batches],
            }
        case "onnx":
            session, _ = read_exported(path, lambda path: open_session(path.read_bytes(), threads))
            return {"decoding": decoded, "network": lambda batches: [session(x.numpy()) for x in batches]}
        case "torchscript":
            run, _ = read_exported(path, open_torchscript)
            return {"decoding": decoded, "network": lambda batches: [run(x) for x in batches]}


def decoded(files: Sequence[bytes]) -> list[Tensor]:
    """Pictures as batches uint8 [N, 3, H, W], one for each size."""
    by_size: dict[torch.Size, list[Tensor]] = {}
    for content in files:
        image = torch.from_numpy(decode_rgb(content).transpose(2, 0, 1).copy())
        by_size.setdefault(image.shape, []).append(image)
    return [torch.stack(images) for images in by_size.values()]


def p95(values: Sequence[float]) -> float:
    """The 95th percentile; of one value that value."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
