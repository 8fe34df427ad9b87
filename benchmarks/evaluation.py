"""Average precision of a whole data set against pycocotools."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import random_detections
from ssd.metrics.coco import CocoResult, evaluate_coco
from ssd.metrics.voc import VocResult, evaluate_voc
from ssd.structures import Detections, Objects

NUM_IMAGES, NUM_CLASSES, NUM_DETECTIONS = 5000, 20, 100
CLASS_NAMES = [f"class {label}" for label in range(1, NUM_CLASSES + 1)]


@dataclass(frozen=True)
class Findings:
    """Detections and objects of a data set; the same as dicts in COCO's formats."""

    detections: list[Detections]
    objects: list[Objects]
    dataset: dict[str, Any]
    results: list[dict[str, Any]]


def benchmark(num_images: int = NUM_IMAGES, runs: int = 5) -> Benchmark[Findings]:
    """COCO's AP against pycocotools, whose input dicts are already in memory; and Pascal VOC's AP."""
    what = f"{num_images} images, {NUM_CLASSES} classes, {NUM_DETECTIONS} detections each"
    return Benchmark(
        name="evaluation",
        settings={"images": num_images, "classes": NUM_CLASSES, "detections an image": NUM_DETECTIONS},
        make_inputs=partial(make_findings, num_images),
        candidates={"ours_coco": ours_coco, "pycocotools": pycocotools, "ours_voc": ours_voc},
        comparisons=(
            Comparison(f"COCO AP, {what}", "ours_coco", "pycocotools", min_ratio=5),
            Comparison(f"Pascal VOC AP, {what}", "ours_voc", max_seconds=5),
        ),
        agree=agree,
        warmup=1,
        runs=runs,
    )


def make_findings(num_images: int) -> Findings:
    generator = torch.Generator().manual_seed(0)
    detections, objects = random_detections(num_images, NUM_CLASSES, NUM_DETECTIONS, generator)
    return Findings(detections, objects, coco_dataset(objects, CLASS_NAMES), coco_results(detections))


def coco_dataset(objects: Sequence[Objects], class_names: Sequence[str]) -> dict[str, Any]:
    """Objects as COCO's annotation files have them; image i has the id i."""
    annotations: list[dict[str, Any]] = []
    for image, item in enumerate(objects):
        rows = zip(_xywh(item.boxes), item.labels.tolist(), item.ignored.tolist(), strict=True)
        for bbox, label, ignored in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 means "no match"
                    "image_id": image,
                    "category_id": label,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(ignored),
                }
            )
    return {
        "info": {},
        "images": [{"id": image} for image in range(len(objects))],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)],
    }


def coco_results(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections as COCO's result files have them."""
    return [
        {"image_id": image, "category_id": label, "bbox": bbox, "score": score}
        for image, item in enumerate(detections)
        for bbox, label, score in zip(
            _xywh(item.boxes), item.labels.tolist(), item.scores.tolist(), strict=True
        )
    ]


def _xywh(boxes: Tensor) -> list[list[float]]:
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]


def ours_coco(findings: Findings) -> Callable[[], CocoResult]:
    return lambda: evaluate_coco(findings.detections, findings.objects, CLASS_NAMES)


def ours_voc(findings: Findings) -> Callable[[], VocResult]:
    return lambda: evaluate_voc(findings.detections, findings.objects, NUM_CLASSES)


def pycocotools(findings: Findings) -> Callable[[], CocoResult]:
    return lambda: pycocotools_result(findings.dataset, findings.results)


def pycocotools_stats(dataset: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """The twelve figures as pycocotools prints them, -1 where there is no object."""
    stats: np.ndarray = _evaluated(dataset, results).stats
    return stats


def _evaluated(dataset: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    """pycocotools as its own demo calls it, with its defaults."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def pycocotools_result(dataset: dict[str, Any], results: list[dict[str, Any]]) -> CocoResult:
    """The figures that ours has; values per class from pycocotools' precision array."""
    evaluation = _evaluated(dataset, results)
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # all areas, 100 detections
    names = [category["name"] for category in dataset["categories"]]
    return CocoResult(
        map=_known(evaluation.stats[:1]),
        map50=_known(evaluation.stats[1:2]),
        map75=_known(evaluation.stats[2:3]),
        per_class_map={name: _known(precision[:, :, k]) for k, name in enumerate(names)},
        per_class_map50={name: _known(precision[0, :, k]) for k, name in enumerate(names)},
    )


def _known(values: np.ndarray) -> float | None:
    """Mean of the values that are not -1, which is pycocotools' value for "no object"."""
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


def agree(found: Mapping[str, Any]) -> None:
    """The results must be bit-identical."""
    assert found["ours_coco"] == found["pycocotools"], found
