"""Contents of preprocess's reports: counts, classes and box sizes per split, and every problem."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssd.prepare.annotations import Found, Problem
from ssd.prepare.preprocess import Preprocessed, Split, all_problems
from ssd.tensor_writer import AnnotatedImage

FEW_IMAGES = 10
"""Of a split that is measured on: with fewer, an image more or less decides."""

QUANTILES = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Account:
    """How many images and objects were found, and what became of them: kept + dropped = found."""

    num_images_found: int
    num_images_kept: int
    num_images_dropped: int
    num_objects_found: int
    num_objects_kept: int
    num_objects_dropped: int


def account(result: Preprocessed, found: Found) -> Account:
    """Compare what the data set holds with what is kept; each count is made on its own."""
    kept = {id(split): split for split in result.splits.values()}.values()  # test and val may be the same
    problems = [problem for _, problem in every_problem(result, found)]
    return Account(
        found.num_images,
        sum(len(split.samples) for split in kept),
        sum(problem.num_images for problem in problems),
        found.num_objects,
        sum(len(sample.labels) for split in kept for sample in split.samples),
        sum(problem.num_objects for problem in problems),
    )


def every_problem(result: Preprocessed, found: Found) -> list[tuple[str, Problem]]:
    """(split, problem) pairs: those of the splits, then unused files, with split ""."""
    return [*all_problems(result), *(("", problem) for problem in found.unused)]


def summarise(result: Preprocessed, found: Found) -> dict[str, Any]:
    """The content of summary.json.

    `layout` and `made_of`: what the user's folder was taken for, and what makes up its splits. `account`: how
    many images and objects were found, kept and dropped.

    Per split: numbers of images, objects and problems, `relative_box_size` (quantiles of
    sqrt(box area / image area), null without objects) and `digest`, a SHA-256 that changes with any
    byte of images, boxes, labels or ids. `warnings`: what will harm training; `notes`: on the splits.
    """
    untrained = _classes_without_training_object(result)
    names = ", ".join(untrained)
    missing = [f"no object in train, or only difficult and crowd ones: {names}"] if untrained else []
    return {
        "layout": found.layout,
        "made_of": dict(found.made_of),
        "account": asdict(account(result, found)),
        "class_names": result.class_names,
        "classes_without_training_object": untrained,
        "warnings": [*result.warnings, *missing, *_too_few(result)],
        "notes": [*found.notes, *result.notes],
        "splits": {name: summarise_split(split, result.class_names) for name, split in result.splits.items()},
    }


def list_problems(every: Sequence[tuple[str, Problem]]) -> dict[str, Any]:
    """The content of problems.json: `every_problem` with split, file, box as written, reason and action.

    num_images, num_objects: number of image files and objects lost by it. The split of an unused file is "".
    """
    problems = [
        {
            "split": split,
            "file": problem.file,
            "box": None if problem.box is None else list(problem.box),
            "reason": problem.reason,
            "action": problem.action,
            "num_images": problem.num_images,
            "num_objects": problem.num_objects,
        }
        for split, problem in every
    ]
    actions = Counter(problem["action"] for problem in problems)
    counts = {f"num_{action}": actions[action] for action in ("mended", "dropped", "unused")}
    return {**counts, "problems": problems}


def summarise_split(split: Split, class_names: Sequence[str]) -> dict[str, Any]:
    """Counts, box sizes and digest of one split."""
    samples = split.samples
    labels = Counter(label for sample in samples for label in sample.labels)
    return {
        "num_images": len(samples),
        "num_images_without_objects": sum(not sample.labels for sample in samples),
        "num_objects": labels.total(),
        "num_difficult": sum(sum(sample.difficult) for sample in samples),
        "num_crowd": sum(sum(sample.crowd) for sample in samples),
        "num_objects_by_class": {name: labels[label] for label, name in enumerate(class_names, start=1)},
        "relative_box_size": _quantiles([size for sample in samples for size in _relative_sizes(sample)]),
        "num_shrunk": split.num_shrunk,
        "num_reencoded": split.num_reencoded,
        "num_problems": len(split.problems),
        "digest": digest(samples, class_names),
    }


def digest(samples: Sequence[AnnotatedImage], class_names: Sequence[str]) -> str:
    """SHA-256 over all that a tensor file of these samples holds."""
    total = hashlib.sha256(json.dumps(list(class_names)).encode())
    for sample in samples:
        facts = [sample.id, sample.size, sample.boxes, sample.labels, sample.difficult, sample.crowd]
        total.update(json.dumps(facts).encode())
        total.update(hashlib.sha256(sample.encoded).digest())
    return total.hexdigest()


def _classes_without_training_object(result: Preprocessed) -> list[str]:
    """Class names without an object in train, but for crowds and difficult ones.

    Difficult ones only count with `train.train_on_difficult`.
    """
    trained = {
        label
        for sample in result.splits["train"].samples
        for label, *ignored in zip(sample.labels, sample.difficult, sample.crowd, strict=True)
        if not any(ignored)
    }
    return [name for label, name in enumerate(result.class_names, start=1) if label not in trained]


def _too_few(result: Preprocessed) -> list[str]:
    """A warning for each split on which a figure would be chance."""
    splits = ("test",) if result.test_is_val else ("val", "test")
    counts = {name: len(result.splits[name].samples) for name in splits}
    return [
        f"{name} has {count} image{'s' if count > 1 else ''}: figures on so few are chance; raise "
        f"preprocess.{name}_fraction, or add some"
        for name, count in counts.items()
        if 0 < count < FEW_IMAGES
    ]


def _relative_sizes(sample: AnnotatedImage) -> list[float]:
    height, width = sample.size
    return [math.sqrt((x2 - x1) * (y2 - y1) / (height * width)) for x1, y1, x2, y2 in sample.boxes]


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.quantile(np.asarray(values), list(QUANTILES.values()))
    return {name: round(float(value), 4) for name, value in zip(QUANTILES, found, strict=True)}
