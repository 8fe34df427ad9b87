"""Stage 4: measure models/model.pt on the test split; writes reports/metrics.json and reports/evaluate."""

from pathlib import Path
from typing import Any

from ssd.errors import UserError
from ssd.evaluation import SplitResult, run_split
from ssd.files import sha256, write_bytes, write_json
from ssd.hardware import choose_hardware
from ssd.loading.tensor_file import TensorFile
from ssd.loss import MultiBoxLoss
from ssd.metrics.coco import evaluate_coco
from ssd.metrics.summary import metrics_summary
from ssd.metrics.voc import VocResult, evaluate_voc
from ssd.models.saved import load_model
from ssd.models.ssd import SSD
from ssd.params import EvaluateParams, Params
from ssd.plots.figures import detection_grid, mean_precision, precision_recall_figure, save_figure
from ssd.postprocess import PostProcessor, PostProcessSettings
from ssd.structures import Detections, Objects
from ssd.tracking import Run
from stages.command import command
from stages.run import stage_run

MODEL = Path("models/model.pt")
REPORTS = Path("reports/evaluate")


@command
def main(params: Params) -> None:
    file = TensorFile("data/tensors/test.safetensors")
    model, class_names = load_model(MODEL)
    if class_names != file.class_names:
        raise UserError(f"{MODEL} was trained on other classes than {file.path} has; run `dvc repro`")
    objects = [file.objects(index) for index in range(len(file))]
    with stage_run(params, "evaluate", sections={"evaluate"}, model=MODEL) as run:
        result = detect(model, file, params.evaluate)
        voc = evaluate_voc(result.detections, objects, len(class_names))
        coco = evaluate_coco(result.detections, objects, class_names)
        summary = metrics_summary(result, voc, coco, class_names)
        write_json("reports/metrics.json", summary)
        write_curves(voc, class_names)
        draw(result.detections, objects, file, params.evaluate)
        log(run, summary, file)


def detect(model: SSD, file: TensorFile, params: EvaluateParams) -> SplitResult:
    """Run the model over the split, in float32 so that the figures do not depend on the machine."""
    hardware = choose_hardware(params.device, "fp32", "evaluate.device")
    model = model.to(hardware.device)
    settings = PostProcessSettings(
        params.score_threshold, params.nms_iou, max_detections=params.max_detections
    )
    return run_split(
        model,
        # The paper's constants, so that the losses of differently trained models compare.
        MultiBoxLoss(model.priors),
        PostProcessor(model.priors, settings),
        file,
        hardware,
        batch_size=params.batch_size,
        workers=params.workers,
        label="evaluating",
    )


def write_curves(voc: VocResult, class_names: list[str]) -> None:
    """Precision over recall: the mean as a table for DVC, every class as a picture."""
    lines = ["recall\tprecision", *(f"{recall:.2f}\t{mean:.6f}" for recall, mean in mean_precision(voc))]
    write_bytes(REPORTS / "precision_recall.tsv", ("\n".join(lines) + "\n").encode())
    save_figure(precision_recall_figure(voc, class_names), REPORTS / "precision_recall.png")


def draw(
    detections: list[Detections], objects: list[Objects], file: TensorFile, params: EvaluateParams
) -> None:
    """Ground truth and detections side by side, on images spread over the split."""
    chosen = spread(len(file), params.num_pictures)
    figure = detection_grid(
        [file.image(index) for index in chosen],
        [detections[index] for index in chosen],
        [objects[index] for index in chosen],
        file.class_names,
        params.picture_score,
    )
    save_figure(figure, REPORTS / "detections.png")


def spread(num_images: int, num_pictures: int) -> list[int]:
    """Indices of the images to show, evenly over the split, the same at every run."""
    num_pictures = min(num_pictures, num_images)
    return [index * num_images // num_pictures for index in range(num_pictures)]


def log(run: Run, summary: dict[str, Any], file: TensorFile) -> None:
    """Print and log the figures: few scalars, the classes as a table."""
    scalars = {
        f"test/{group}_{key}": value
        for group in ("coco", "voc", "loss")
        for key, value in summary[group].items()
    }
    print(
        "\n".join(f"{key:24s} {'-' if value is None else f'{value:.4f}'}" for key, value in scalars.items())
    )
    run.metrics(scalars)
    run.tags({"data_sha256_test": sha256(file.path)})
    classes = summary["per_class"]
    columns = {"class": list(classes)}
    for key in next(iter(classes.values())):
        columns[key] = [figures[key] for figures in classes.values()]
    run.table(columns, "per_class.json")
    run.file("reports/metrics.json")
    run.file(REPORTS, "evaluate")
    run.file("reports/preprocess", "preprocess")


if __name__ == "__main__":
    main()
