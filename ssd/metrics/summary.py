"""The content of metrics.json: the figures of a split, and what each of them says."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ssd.metrics.bootstrap import SEED, Interval
from ssd.metrics.confusion import Rates
from ssd.metrics.scoring import Figures
from ssd.metrics.voc import ClassResult

DEFINITIONS = (
    "coco: torchmetrics' MeanAveragePrecision with pycocotools, on boxes; 101 recall points; the 100 best "
    "detections per image and class; within 1e-6 of ssd/metrics/coco.py, which validates in training",
    "coco, difficult and crowd objects: all are crowds: a detection is not counted if enough of it lies "
    "inside one, and any number may. That is lenient: converters of Pascal's annotations often keep "
    "difficult objects as plain ones or leave them out",
    "coco.map, per class coco_ap: AP, mean over IoU 0.50, 0.55, ... 0.95; map50 and coco_ap50: "
    "at IoU 0.50; map75: at 0.75",
    "coco.ar1, ar10, ar100: recall, mean over the same IoUs, with the 1, 10, 100 best per image and class",
    "coco.*_small, *_medium, *_large: of objects below 32x32, to 96x96, and above, in pixels of the images "
    "as preprocess keeps them (max_side), by the box's area (COCO's own annotations have the mask's)",
    "voc: ssd/metrics/voc.py, by the rules of Pascal's development kit; IoU 0.5; difficult and crowd objects "
    "are not counted, nor is a detection assigned to one",
    "voc.map_area, per class voc_ap_area: area under the precision-recall curve (VOC 2010 and later)",
    "voc.map_11point, per class voc_ap_11point: at the 11 recalls k/10, exactly (VOC 2007)",
    "voc.map_11point_arange, per class voc_ap_11point_arange: at the recalls np.arange(0, 1.1, 0.1), as "
    "public Python evaluators print it; a recall of exactly 3/10, 6/10 or 7/10 misses its point",
    "operating_point.score: the score threshold with the best F1 over all classes together, found on these "
    "images, so its precision, recall and f1 are a little better than on new ones; Pascal's true positives "
    "at IoU 0.5",
    "operating_precision, operating_recall, operating_f1: of the class at operating_point.score; "
    "confusion_matrix.tsv in reports/evaluate counts the same detections",
    "training_criterion: loss of the test split by the criterion that the model was trained with and saved "
    "with; to be compared with val_loss in the history of its training",
    "ensemble (with evaluate.ensemble, evaluate.models): detections of several models, fused (weighted box "
    "fusion); reports/evaluate/ensemble.json says of which; *_mean: of the single models; *_gain: the "
    "difference to models/model.pt alone, in the same resamples of the images",
    "num_mended, num_dropped: annotations (or images) of the test split that preprocess mended or dropped "
    "before it was scored, by its list of problems; num_ignored: difficult and crowd objects",
)
"""What the figures are, one line each, in metrics.json and in MLflow."""


def summarise(figures: Figures, losses: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, Any]:
    """The content of metrics.json: plain numbers, None where there is no object to find.

    DVC leaves lists out of its tables: classes, intervals and definitions.

    Args:
        losses: of the split; counts: of images, objects and detections, named num_*.
    """
    coco: dict[str, Any] = {}
    for key, value in figures.coco.figures.items():
        coco[key] = value
        if figures.intervals is not None and key in ("map", "map50"):
            coco[f"{key}_interval"] = _as_list(getattr(figures.intervals, key))
    voc = figures.voc
    return {
        "coco": coco,
        "voc": {
            "map_area": voc.map_area,
            "map_11point": voc.map_11point,
            "map_11point_arange": voc.map_11point_arange,
            "f1": voc.mean_f1,
        },
        "operating_point": {
            "score": figures.operating_point.score,
            **asdict(figures.operating_point.overall),
        },
        "training_criterion": dict(losses),
        **counts,
        "per_class": [
            _of_class(figures, name, curve, rates)
            for name, curve, rates in zip(
                figures.coco.per_class_map, voc.classes, figures.operating_point.per_class, strict=True
            )
        ],
        "definitions": definitions(figures.num_resamples, voc.f1_score),
    }


def _of_class(figures: Figures, name: str, curve: ClassResult, rates: Rates) -> dict[str, Any]:
    """The figures of one class; curve: Pascal's; rates: at the operating point."""
    found: dict[str, Any] = {
        "class": name,
        "num_objects": curve.num_objects,
        "coco_ap": figures.coco.per_class_map[name],
        "coco_ap50": figures.coco.per_class_map50[name],
        "voc_ap_area": curve.ap_area,
        "voc_ap_11point": curve.ap_11point,
        "voc_ap_11point_arange": curve.ap_11point_arange,
        "voc_f1": curve.f1,
        **{f"operating_{key}": value for key, value in asdict(rates).items()},
    }
    if figures.intervals is not None:
        found["coco_ap_interval"] = _as_list(figures.intervals.per_class_map[name])
        found["coco_ap50_interval"] = _as_list(figures.intervals.per_class_map50[name])
    return found


def definitions(num_resamples: int, f1_score: float) -> list[str]:
    """One line per kind of figure; f1_score: see `VocResult`."""
    place = f"F1 of its detections from score {f1_score:g} on" if f1_score else "the best F1 on its curve"
    interval = (
        f"*_interval: holds 95 % of {num_resamples} bootstrap resamples of the test images (percentiles, "
        f"seed {SEED}); covers the choice of test images, not the variation between trainings"
    )
    f1 = f"voc.f1, ensemble.f1: mean over classes; voc_f1: of a class, {place} (train.f1_score)"
    return [*DEFINITIONS, f1, *([interval] if num_resamples else [])]


def _as_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
