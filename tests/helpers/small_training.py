"""A training small enough for a test: a small ShuffleNet, or ResNet18, at 64 pixels on sixteen scenes."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from default_params import augment_params

from ssd.hardware import choose_hardware
from ssd.interrupt import StopSignal
from ssd.loading.tensor_file import TensorFile
from ssd.models.config import paper_config
from ssd.models.family import Model
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.ssd import SSD
from ssd.params import Params
from ssd.processes.world import World
from ssd.tensor_writer import write_tensor_file
from ssd.training.checkpoints import CheckpointFolder
from ssd.training.history import Epoch
from ssd.training.loop import Trainer, TrainResult
from ssd.training.progress import Reporter

SMALL: dict[str, Any] = {
    "train.batch_size": 4,
    "train.optimizer": "sgd",  # its checkpoints are smaller
    "train.workers": 0,
    "train.warmup_steps": 0,
    "train.precision": "fp32",
    "train.val_every": 1,
    "train.device": "cpu",
}


def build(side: int = 64, backbone: str = "resnet18") -> SSD:
    """A network with the initial weights of seed 0."""
    return copy.deepcopy(_built(side, backbone))


@cache
def _built(side: int, backbone: str) -> SSD:
    """Built once: torchvision takes half a second to find the feature maps of a network."""
    torch.manual_seed(0)
    return SSD(paper_config(backbone, side, 9, 0.1, 0.2, 1.05))


def build_faster_rcnn() -> FasterRCNN:
    """One with few channels, proposals and samples, with the initial weights of seed 0."""
    return copy.deepcopy(_built_faster_rcnn())


@cache
def _built_faster_rcnn() -> FasterRCNN:
    torch.manual_seed(0)
    few = {"rpn_train_proposals": 60, "rpn_proposals": 60, "rpn_samples": 64, "roi_samples": 32}
    return FasterRCNN(FasterRCNNConfig("shufflenet_v2_x0_5", 64, 9, width=16, roi_width=32, **few))


def trainer(
    params: Params,
    file: TensorFile,
    val: TensorFile | None = None,
    model: Model | None = None,
    mosaic: float = 0.0,
    mixup: float = 0.0,
    colours: float = 0.5,
    world: World | None = None,
) -> Trainer:
    augment = augment_params(
        flip=0.5,
        zoom_out=0.1,
        zoom_max=2.0,
        crop=0.3,
        mosaic=mosaic,
        mixup=mixup,
        photometric=colours,
        brightness=0.1,
        contrast=0.3,
        saturation=0.3,
        hue=0.05,
    )
    hardware = choose_hardware("cpu", params.train.precision)
    val = file if val is None else val
    # A third of ResNet18's time, and a fifth of its checkpoints.
    model = model or build(backbone="shufflenet_v2_x0_5")
    return Trainer(model, file, val, params.train, augment, hardware, world)


class Recorder(Reporter):
    """Remembers the steps at which losses were read and the history on resuming; may act on epochs."""

    def __init__(self, on_epoch: Callable[[], None] = lambda: None) -> None:
        self.steps: list[int] = []
        self.history: list[Epoch] = []
        self.on_epoch = on_epoch

    def resumed(self, history: list[Epoch]) -> None:
        self.history = list(history)

    def losses_read(self, num_steps: int, loss: float, lr: float) -> None:
        self.steps.append(num_steps)

    def epoch_ended(self, history: list[Epoch]) -> None:
        self.on_epoch()


def run(
    running: Trainer, folder: Path, reporter: Reporter | None = None, stop: StopSignal | None = None
) -> TrainResult:
    """Run it to its end, or to what it raises, with checkpoints in `folder`."""
    with CheckpointFolder(folder, running.params.keep_best) as checkpoints:
        result = running.run(checkpoints, reporter, stop)
    assert result is not None
    return result


def empty_file(folder: Path) -> TensorFile:
    write_tensor_file(folder / "val.safetensors", [], ["x"] * 8)
    return TensorFile(folder / "val.safetensors")


def same_weights(a: TrainResult, b: TrainResult) -> bool:
    return a.weights.keys() == b.weights.keys() and all(
        torch.equal(value, b.weights[name]) for name, value in a.weights.items()
    )


def results_of(result: TrainResult) -> list[dict[str, Any]]:
    """The history without what the clock decides."""
    clock = {"images_per_s", "data_wait", "seconds"}
    return [{k: v for k, v in vars(row).items() if k not in clock} for row in result.history]
