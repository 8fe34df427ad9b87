"""Stage 4: measure models/model.pt on the test split, and what fusing it with other models gains.

Writes reports/metrics.json and, in reports/evaluate, all detections that were scored, and the curves and the
confusion matrix as tables. metrics.json says what each of its figures is.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssd.detections_file import write_detections
from ssd.errors import UserError
from ssd.evaluation import SplitResult
from ssd.files import sha256, write_bytes, write_json
from ssd.loading.tensor_file import TensorFile
from ssd.metrics.confusion import matrix_rows
from ssd.metrics.scoring import score_split
from ssd.metrics.summary import summarise
from ssd.metrics.voc import VocResult, mean_precision, sampled_curve
from ssd.models.saved import load_loss_settings, load_model
from ssd.params import Params
from ssd.tracking.run import Run
from stages.command import command
from stages.detect import detect
from stages.ensemble import best_models, further_models, fuse_models
from stages.run import log_splits, stage_run

MODEL = Path("models/model.pt")
PROBLEMS = Path("reports/preprocess/problems.json")
METRICS = Path("reports/metrics.json")
REPORTS = Path("reports/evaluate")
ENSEMBLE = REPORTS / "ensemble.json"
NUM_PRINTED = 25
CLASS_COLUMNS = {
    "objects": "num_objects",
    "AP": "coco_ap",
    "AP50": "coco_ap50",
    "precision": "operating_precision",
    "recall": "operating_recall",
    "F1": "operating_f1",
}
"""Of the table of classes: title and key. The last three are at the operating point."""


@command
def main(params: Params) -> None:
    file = TensorFile("data/tensors/test")
    model, class_names = load_model(MODEL)
    if class_names != file.class_names:
        raise UserError(f"{MODEL} was trained on other classes than {file.path} has", path=MODEL)
    mends = count_mends(PROBLEMS)
    objects = [file.objects(index) for index in range(len(file))]
    others = best_models(params.evaluate.ensemble)
    others |= further_models(params, {MODEL.as_posix(): MODEL, **others}, file)
    with stage_run(params, "evaluate", sections={"evaluate"}, model=MODEL) as run:
        result = detect(model, load_loss_settings(MODEL), file, params.evaluate)
        # Written before they are scored: if the evaluators disagree, these are what to look at.
        write_detections(REPORTS / "detections.json", result.detections, file.image_ids)
        resamples, f1_score = params.evaluate.resamples, params.train.f1_score
        figures = score_split(result.detections, objects, class_names, resamples, f1_score)
        losses = {"loss": result.loss, "loc_loss": result.loc_loss, "conf_loss": result.conf_loss}
        summary = summarise(figures, losses, {**count(file, result), **mends})
        # What was measured, as `sha256sum` says it; a list, which DVC leaves out of its tables.
        measured = {MODEL.as_posix(): MODEL, **others, **{path.as_posix(): path for path in file.shards}}
        summary["sha256"] = [f"{sha256(path)}  {name}" for name, path in measured.items()]
        ENSEMBLE.unlink(missing_ok=True)
        fused = fuse_models(result, others, file, params.evaluate, f1_score) if others else None
        if fused:
            summary["ensemble"] = fused.gain
            write_json(ENSEMBLE, fused.report)
        write_json(METRICS, summary)
        write_curves(figures.voc, class_names)
        header, *rows = matrix_rows(figures.operating_point, class_names)
        write_table("confusion_matrix.tsv", header, rows)
        log_figures(run, summary)
        if fused:
            log_ensemble(run, fused.report)
        log_splits(run, params, file)


def count(file: TensorFile, result: SplitResult) -> dict[str, int]:
    """Numbers of images, of objects, of those that are ignored, and of detections."""
    return {
        "num_images": len(file),
        "num_objects": len(file.labels),
        "num_ignored": int((file.difficult | file.crowd).sum()),
        "num_detections": sum(len(item.scores) for item in result.detections),
    }


def count_mends(path: Path) -> dict[str, int]:
    """What preprocess mended and dropped in the test split, by its list of problems.

    Raises:
        UserError: there is no such list.
    """
    try:
        problems = json.loads(path.read_text(encoding="utf-8"))["problems"]
        actions = Counter(problem["action"] for problem in problems if problem["split"] == "test")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: missing or damaged", path=path) from None
    return {"num_mended": actions["mended"], "num_dropped": actions["dropped"]}


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


def log_figures(run: Run, summary: dict[str, Any]) -> None:
    """Print the figures and log them to MLflow: scalars, a table of the classes, and what the figures are."""
    scalars: dict[str, float | None] = {}
    for group in ("coco", "voc", "operating_point", "training_criterion"):
        for key, value in summary[group].items():
            if not key.endswith("_interval"):
                interval = summary[group].get(f"{key}_interval")
                print(f"{f'test/{group}_{key}':34s} {in_words(value, interval)}")
            scalars |= in_columns(f"test/{group}_{key}", value)
    print("by class; precision, recall and F1 at test/operating_point_score:")
    print_classes(summary["per_class"])
    mended, dropped = summary["num_mended"], summary["num_dropped"]
    print(
        f"preprocess mended {mended} and dropped {dropped} annotations (or images) of the test split, see "
        f"{PROBLEMS}"
    )
    print(f"what each figure is: definitions in {METRICS}")
    run.metrics(scalars)
    run.tags({"figures_test": "\n".join(summary["definitions"])})
    rows = [
        {column: cell for key in found for column, cell in in_columns(key, found[key]).items()}
        for found in summary["per_class"]
    ]
    run.table({column: [row[column] for row in rows] for column in rows[0]}, "per_class.json")
    run.file(METRICS)
    run.file(REPORTS, "evaluate")


def log_ensemble(run: Run, report: dict[str, Any]) -> None:
    """Print which models were fused and what that gained over the first, and log it to MLflow."""
    print(f"fused: {report['fused']}")
    for item in report["models"]:
        map50, map_ = in_words(item["map50"], None), in_words(item["map"], None)
        print(f"  {item['model']} alone: map50 {map50}, map {map_}")
    for key in ("map50", "map"):
        fused, mean = in_words(report[key], None), in_words(report[f"{key}_mean"], None)
        by = in_words(report[f"{key}_gain"], report[f"{key}_gain_interval"])
        print(
            f"{report['num_models']} models fused: {key} {fused}, mean of the single ones {mean}, gain {by}"
        )
    run.tags({"ensemble": report["fused"]})
    logged = ("num_models", "map50", "map", "f1", "map50_mean", "map_mean", "map50_gain")
    run.metrics({f"test/ensemble_{key}": report[key] for key in logged})


def print_classes(per_class: Sequence[dict[str, Any]]) -> None:
    """Print a line for each of the first classes, and where the others are."""
    shown = per_class[:NUM_PRINTED]
    width = max(len("class"), *(len(row["class"]) for row in shown))
    print("".join([f"{'class':{width}}", *(f"{title:>11}" for title in CLASS_COLUMNS)]))
    for row in shown:
        values = (row[key] for key in CLASS_COLUMNS.values())
        cells = (f"{v:>11}" if isinstance(v, int) else f"{in_words(v, None):>11}" for v in values)
        print("".join([f"{row['class']:{width}}", *cells]))
    if len(per_class) > NUM_PRINTED:
        print(f"... and {len(per_class) - NUM_PRINTED} more in {METRICS}")


def in_words(value: float | None, interval: Sequence[float] | None) -> str:
    """ "0.8551 [0.831, 0.879]", without an interval "0.8551", "-" for None; a zero has no sign."""
    if value is None:
        return "-"
    return f"{value:z.4f}" + (f" [{interval[0]:z.3f}, {interval[1]:z.3f}]" if interval else "")


def in_columns(key: str, value: Any) -> dict[str, Any]:
    """{key: value}; of an interval two numbers, "map_interval" as "map_low" and "map_high"."""
    if not key.endswith("_interval"):
        return {key: value}
    low, high = value or (None, None)
    name = key.removesuffix("_interval")
    return {f"{name}_low": low, f"{name}_high": high}


if __name__ == "__main__":
    main(sys.argv[1:])
