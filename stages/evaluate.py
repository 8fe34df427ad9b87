"""Stage 4: measure models/model.pt on the test split; writes reports/metrics.json and reports/evaluate."""

from pathlib import Path

from ssd.data.dataset import decode
from ssd.data.tensors import TensorFile
from ssd.files import sha256, write_bytes, write_json
from ssd.hardware import choose_hardware
from ssd.inference import SplitResult, run_split
from ssd.loss import MultiBoxLoss
from ssd.metrics.coco import evaluate_coco
from ssd.metrics.summary import metrics_summary
from ssd.metrics.voc import evaluate_voc
from ssd.models.saved import load_model
from ssd.params import EvaluateParams, Params
from ssd.plots import detection_grid, precision_recall_figure, precision_recall_rows, save_figure
from ssd.postprocess import PostProcess, PostProcessor
from ssd.tracking import Run, flatten, tracked_run
from stages.command import command, workspace

MODEL = Path("models/model.pt")
REPORTS = Path("reports/evaluate")


@command
def main(params: Params) -> None:
    file = TensorFile("data/tensors/test.safetensors")
    class_names = file.class_names
    own_params = flatten(params.model_dump(include={"evaluate"}))
    with tracked_run(
        params.tracking, workspace(), "evaluate", name="evaluate", stage_params=own_params, model_digest=sha256(MODEL)
    ) as run:
        result = detect(file, params.evaluate)
        objects = [file.objects(index) for index in range(len(file))]
        voc = evaluate_voc(result.detections, objects, len(class_names))
        coco = evaluate_coco(result.detections, objects, class_names)
        summary = metrics_summary(result, voc, coco, class_names)
        write_json("reports/metrics.json", summary)

        rows = precision_recall_rows(voc, class_names)
        lines = ["class\trecall\tprecision", *(f"{r['class']}\t{r['recall']}\t{r['precision']}" for r in rows)]
        write_bytes(REPORTS / "precision_recall.tsv", ("\n".join(lines) + "\n").encode())
        save_figure(precision_recall_figure(voc, class_names), REPORTS / "precision_recall.png")
        chosen = spread(len(file), params.evaluate.num_pictures)
        pictures = detection_grid(
            [decode(file, index) for index in chosen],
            [result.detections[index] for index in chosen],
            [objects[index] for index in chosen],
            class_names,
            params.evaluate.picture_score,
        )
        save_figure(pictures, REPORTS / "detections.png")
        log(run, summary)


def detect(file: TensorFile, params: EvaluateParams) -> SplitResult:
    """Run the model over the split, in float32 so that the figures do not depend on the machine."""
    hardware = choose_hardware("auto", "fp32")
    model, _ = load_model(MODEL)
    model = model.to(hardware.device)
    settings = PostProcess(
        params.score_threshold, params.nms_iou, max_detections=params.max_detections
    )
    return run_split(
        model,
        MultiBoxLoss(model.priors, match_iou=0.5, negatives=3.0, min_negatives=8),
        PostProcessor(model.priors, settings),
        file,
        hardware,
        batch_size=params.batch_size,
        workers=params.workers,
        label="evaluating",
    )


def spread(num_images: int, num_pictures: int) -> list[int]:
    """Indices of the images to show, evenly over the split, the same at every run."""
    num_pictures = min(num_pictures, num_images)
    return [index * num_images // num_pictures for index in range(num_pictures)]


def log(run: Run, summary: dict) -> None:
    """Print and log the figures: few scalars, the classes as a table."""
    scalars = {f"test/{group}_{key}": value for group in ("coco", "voc", "loss") for key, value in summary[group].items()}
    print("\n".join(f"{key:24s} {'-' if value is None else f'{value:.4f}'}" for key, value in scalars.items()))
    run.metrics(scalars)
    classes = summary["per_class"]
    columns = {"class": list(classes)}
    for key in next(iter(classes.values())):
        columns[key] = [figures[key] for figures in classes.values()]
    run.table(columns, "per_class.json")
    run.file("reports/metrics.json")
    run.file(REPORTS, "evaluate")


if __name__ == "__main__":
    main()
