"""How many of the most suspicious annotations are really wrong: `ssd audit` on labels broken on purpose.

Scenes of the embedded data set, drawn from another seed than the training's, so that the model has seen none
of them; three in a hundred of their objects are broken, a quarter in each way. A suspect is real if it names
a broken object, or if what it sees is where a broken object was.

python -m benchmarks --model models/model.pt audit
python -m benchmarks.audit data/tensors/train broken.safetensors  # to train on broken labels
"""

import argparse
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.results import Result, Row, make_result
from cli.detections import detect_split
from ssd.audit.suspects import Suspect, find_suspects
from ssd.boxes import pairwise_iou
from ssd.files import sha256
from ssd.inference.detector_file import open_detector
from ssd.loading.tensor_file import TensorFile
from ssd.source.glyphs import GLYPHS
from ssd.source.shapes import ShapeObject, draw_scene
from ssd.structures import Objects
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

Fault = Literal["removed", "class", "moved", "duplicate"]
FAULTS: tuple[Fault, ...] = ("removed", "class", "moved", "duplicate")

NUM_IMAGES, SIDE, SEED = 1500, 192, 2026
FRACTION = 0.03
TOP = 100
MOVED = (0.1, 0.3)
"""How far a box is moved in x and in y, times its sides: to IoUs of 0.68 down to 0.32."""
JITTER = 0.03
"""Of the edges of a duplicate, times the box's sides."""


@dataclass(frozen=True)
class Broken:
    """An object that was broken. box: where it really is; place: among the objects now, None if removed."""

    fault: Fault
    image: int
    box: tuple[float, ...]
    place: int | None


def run(model: Path, num_images: int = NUM_IMAGES) -> Result:
    """Audit broken labels of images that the model has not seen."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.safetensors"
        write_scenes(path, num_images)
        file = TensorFile(path)
        objects, broken = break_labels(file)
        detections = detect_split(open_detector(model), file)
    suspects = find_suspects(detections, objects, len(file.class_names))[:TOP]
    row = _row(suspects, broken, "not seen in training")
    settings = {
        "model": sha256(model),
        "images": num_images,
        "objects": len(file.labels),
        "broken": dict(Counter(item.fault for item in broken)),
        "seed": SEED,
        "suspects": dict(Counter(suspect.kind for suspect in suspects)),
        "real": dict(Counter(suspect.kind for suspect in suspects if is_real(suspect, broken))),
    }
    return make_result("audit", settings, {}, [row])


def write_scenes(path: Path, num_images: int) -> None:
    """Draw scenes and pack them."""
    samples = []
    for index in range(num_images):
        image, found = draw_scene(np.random.default_rng([SEED, index]), SIDE)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=92)
        samples.append(_sample(f"{index:05d}", content.getvalue(), image, found))
    write_tensor_file(path, samples, GLYPHS)


def break_labels(file: TensorFile, seed: int = SEED) -> tuple[list[Objects], list[Broken]]:
    """The objects of all images with FRACTION of them broken, and what was done; difficult ones stay."""
    random = np.random.default_rng(seed)
    usable = np.flatnonzero(~file.ignored.numpy())
    chosen = random.choice(usable, round(FRACTION * len(usable)), replace=False).tolist()
    faults = {row: FAULTS[index % len(FAULTS)] for index, row in enumerate(chosen)}
    objects, broken = [], []
    for image in range(len(file)):
        height, width = file.sizes[image].tolist()
        boxes, labels, ignored = [], [], []
        for row in range(*file.box_offsets[image : image + 2].tolist()):
            box, label, fault = file.boxes[row].numpy(), int(file.labels[row]), faults.get(row)
            if fault == "class":
                label = 1 + (label - 1 + int(random.integers(1, len(file.class_names)))) % len(
                    file.class_names
                )
            moved = _moved(random, box, width, height) if fault == "moved" else box
            if fault != "removed":
                boxes.append(moved)
                labels.append(label)
                ignored.append(bool(file.ignored[row]))
            if fault == "duplicate":
                boxes.append(_jittered(random, box, width, height))
                labels.append(label)
                ignored.append(False)
            if fault is not None:
                place = None if fault == "removed" else len(boxes) - 1
                broken.append(Broken(fault, image, tuple(box.tolist()), place))
        objects.append(
            Objects(
                torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
                torch.tensor(labels, dtype=torch.int64),
                torch.tensor(ignored, dtype=torch.bool),
            )
        )
    return objects, broken


def is_real(suspect: Suspect, broken: Sequence[Broken]) -> bool:
    """Whether a suspect names a broken object, or sees something where one was."""
    for item in broken:
        if item.image != suspect.image:
            continue
        if item.place is not None and item.place in (suspect.object, suspect.other):
            return True
        if suspect.seen_box is not None:
            boxes = torch.tensor([suspect.seen_box]), torch.tensor([item.box])
            if float(pairwise_iou(*boxes)) >= 0.5:
                return True
    return False


def write_broken(source: Path, target: Path) -> None:
    """A tensor file with the labels of another one broken, to train on; difficult objects stay difficult."""
    file = TensorFile(source)
    objects, _ = break_labels(file)
    samples = [
        AnnotatedImage(
            id=file.image_ids[index],
            encoded=file.encoded(index).numpy().tobytes(),
            size=(int(file.sizes[index, 0]), int(file.sizes[index, 1])),
            boxes=[tuple(box) for box in truth.boxes.tolist()],
            labels=truth.labels.tolist(),
            difficult=truth.ignored.tolist(),
            crowd=[False] * len(truth.labels),
        )
        for index, truth in enumerate(objects)
    ]
    write_tensor_file(target, samples, file.class_names)


def _row(suspects: Sequence[Suspect], broken: Sequence[Broken], notes: str) -> Row:
    real = sum(is_real(suspect, broken) for suspect in suspects)
    return Row(
        what=f"audit of shapes with {FRACTION:.0%} of the labels broken: real ones among the top {TOP}",
        unit=f"of {len(suspects)}",
        ours=real,
        notes=notes,
    )


def _sample(name: str, encoded: bytes, image: Image.Image, found: Sequence[ShapeObject]) -> AnnotatedImage:
    return AnnotatedImage(
        id=name,
        encoded=encoded,
        size=(image.height, image.width),
        boxes=[item.box for item in found],
        labels=[GLYPHS.index(item.name) + 1 for item in found],
        difficult=[item.difficult for item in found],
        crowd=[False] * len(found),
    )


def _moved(random: np.random.Generator, box: np.ndarray, width: int, height: int) -> np.ndarray:
    sides = box[2:] - box[:2]
    step = random.uniform(*MOVED, 2) * random.choice([-1, 1], 2) * sides
    return _inside(box + np.tile(step, 2), width, height)


def _jittered(random: np.random.Generator, box: np.ndarray, width: int, height: int) -> np.ndarray:
    sides = np.tile(box[2:] - box[:2], 2)
    return _inside(box + random.uniform(-JITTER, JITTER, 4) * sides, width, height)


def _inside(box: np.ndarray, width: int, height: int) -> np.ndarray:
    return box.clip(0, np.array([width, height, width, height]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a tensor file with 3 % of another one's labels broken."
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    write_broken(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
