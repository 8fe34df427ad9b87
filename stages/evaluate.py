"""Stage 4: measure models/model.pt on the test split.

Writes reports/metrics.json and, in reports/evaluate, all detections that were scored and the curves as
tables.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssd.detections_file import write_detections
from ssd.errors import UserError
from ssd.evaluation import SplitResult, run_split
from ssd.files import sha256, write_bytes, write_json
from ssd.hardware import choose_hardware
from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.loss import MultiBoxLoss
from ssd.metrics.coco import CocoResult, evaluate_coco
from ssd.metrics.voc import VocResult, evaluate_voc, mean_precision, sampled_curve
from ssd.models.saved import load_model
from ssd.models.ssd import SSD
from ssd.params import EvaluateParams, Params
from ssd.postprocess import PostProcessor, PostProcessSettings
from ssd.tracking import Run
from stages.command import command
from stages.run import stage_run

MODEL = Path("models/model.pt")
METRICS = Path("reports/metrics.json")
REPORTS = Path("reports/evaluate")


@command
def main(params: Params) -> None:
    file = TensorFile("data/tensors/test.safetensors")
    model, class_names = load_model(MODEL)
    if class_names != file.class_names:
        raise UserError(f"{MODEL} was trained on other classes than {file.path} has", path=MODEL)
    objects = [file.objects(index) for index in range(len(file))]
    with stage_run(params, "evaluate", sections={"evaluate"}, model=MODEL) as run:
        result = detect(model, file, params.evaluate)
        voc = evaluate_voc(result.detections, objects, len(class_names))
        coco = evaluate_coco(result.detections, objects, class_names)
        summary = summarise(result, voc, coco, class_names)
        write_json(METRICS, summary)
        write_detections(REPORTS / "detections.json", result.detections, file.image_ids)
        write_curves(voc, class_names)
        log_figures(run, summary, file)


def detect(model: SSD, file: TensorFile, params: EvaluateParams) -> SplitResult:
    """Run the model over the split, in float32 so that the figures do not depend on the machine."""
    hardware = choose_hardware(params.device, "fp32", "evaluate.device")
    model = model.to(hardware.device)
    side = model.config.input_size
    settings = PostProcessSettings(
        params.score_threshold, params.nms_iou, max_detections=params.max_detections
    )
    return run_split(
        model,
        # The paper's constants, so that the losses of differently trained models compare.
        MultiBoxLoss(model.priors),
        PostProcessor(model.priors, settings),
        make_loader(
            DetectionDataset(file, side),
            EpochBatches(len(file), params.batch_size, side, seed=None),
            params.workers,
            pin_memory=hardware.device.type == "cuda",
        ),
        hardware,
    )


def summarise(
    result: SplitResult, voc: VocResult, coco: CocoResult, class_names: list[str]
) -> dict[str, Any]:
    """The content of metrics.json: plain numbers, None where there is no object to find."""
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


def write_curves(voc: VocResult, class_names: list[str]) -> None:
    """Precision over recall as tables: the mean, for `dvc plots`, and of every class."""
    mean = [(f"{recall:.2f}", f"{precision:.6f}") for recall, precision in mean_precision(voc)]
    write_table("precision_recall.tsv", ("recall", "precision"), mean)
    classes = [
        (name, f"{recall:.2f}", f"{precision:.6f}")
        for name, curve in zip(class_names, voc.classes, strict=True)
        for recall, precision in sampled_curve(curve)
    ]
    write_table("class_precision_recall.tsv", ("class", "recall", "precision"), classes)


def write_table(name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A tab-separated table in reports/evaluate."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    write_bytes(REPORTS / name, text.getvalue().encode())


def log_figures(run: Run, summary: dict[str, Any], file: TensorFile) -> None:
    """Print the figures and log them to MLflow: scalars, and a table of the classes."""
    scalars = {
        f"test/{group}_{key}": value
        for group in ("coco", "voc", "loss")
        for key, value in summary[group].items()
    }
    for key, value in scalars.items():
        print(f"{key:24s} {'-' if value is None else f'{value:.4f}'}")
    run.metrics(scalars)
    run.tags({"data_sha256_test": sha256(file.path)})
    classes = summary["per_class"]
    columns = {"class": list(classes)}
    for key in next(iter(classes.values())):
        columns[key] = [figures[key] for figures in classes.values()]
    run.table(columns, "per_class.json")
    run.file(METRICS)
    run.file(REPORTS, "evaluate")


if __name__ == "__main__":
    main()
