"""The work of the stage `evaluate`: the network over a split, post-processing, loss and all figures.

Those of pycocotools and the bootstrap's intervals included.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import Benchmark, Comparison
from benchmarks.input_pipeline import shapes_sample
from benchmarks.scenes import bias_to_background
from ssd.loading.tensor_file import TensorFile
from ssd.metrics.scoring import Figures, score_split
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.params import load_params
from ssd.source.glyphs import GLYPHS
from ssd.tensor_writer import write_tensor_file
from stages.detect import detect

NUM_IMAGES = 128
NUM_CANDIDATES = 150
BACKBONE, SIDE = "resnet18", 128


@dataclass(frozen=True)
class Split:
    """A tensor file in a temporary folder, which is deleted with this object."""

    folder: tempfile.TemporaryDirectory[str]
    file: TensorFile


def benchmark(num_images: int = NUM_IMAGES, runs: int = 7) -> Benchmark[Split]:
    """The default network with as many candidates as a trained one."""
    return Benchmark(
        name="evaluation_stage",
        settings={
            "backbone": BACKBONE,
            "input side": SIDE,
            "images": num_images,
            "candidates per image, about": NUM_CANDIDATES,
        },
        make_inputs=partial(make_split, num_images),
        candidates={"ours": ours},
        comparisons=(
            Comparison(f"evaluation stage, {BACKBONE}, {SIDE} pixels", "ours", num_images=num_images),
        ),
        warmup=1,
        runs=runs,
    )


def make_split(num_images: int) -> Split:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "test.safetensors"
    write_tensor_file(path, [shapes_sample(index) for index in range(num_images)], GLYPHS)
    return Split(folder, TensorFile(path))


def ours(split: Split) -> Callable[[], Figures]:
    params = load_params().evaluate.model_copy(update={"device": "cpu", "workers": 0})
    model = SSD(paper_config(BACKBONE, SIDE, len(GLYPHS) + 1, 0.1, 0.2, 1.05)).eval()
    bias_to_background(model, split.file.image(0)[None], NUM_CANDIDATES)
    objects = [split.file.objects(index) for index in range(len(split.file))]

    def step() -> Figures:
        found = detect(model, {}, split.file, params).detections
        return score_split(found, objects, GLYPHS, params.resamples)

    return step
