"""All figures of an evaluation side by side, each under a name that says which it is."""

from collections.abc import Sequence

from ssd.evaluation import SplitResult
from ssd.metrics.coco import CocoResult
from ssd.metrics.voc import VocResult


def metrics_summary(
    result: SplitResult, voc: VocResult, coco: CocoResult, class_names: Sequence[str]
) -> dict[str, object]:
    """The content of reports/metrics.json: plain numbers, None where there is no object to find."""
    per_class = {
        name: {
            "num_objects": curve.num_objects,
            "voc_ap50_area": curve.ap_area,
            "voc_ap50_11point": curve.ap_11point,
            "voc_f1": curve.best_f1,
            "coco_map": coco.per_class_map[name],
            "coco_map50": coco.per_class_map50[name],
        }
        for name, curve in zip(class_names, voc.classes, strict=True)
    }
    return {
        "coco": {"map": coco.map, "map50": coco.map50, "map75": coco.map75},
        "voc": {"map50_area": voc.map_area, "map50_11point": voc.map_11point, "f1": voc.mean_f1},
        "loss": {"total": result.loss, "loc": result.loc_loss, "conf": result.conf_loss},
        "num_images": len(result.detections),
        "num_detections": sum(len(item.scores) for item in result.detections),
        "per_class": per_class,
    }
