"""`ssd evaluate`: the figures of any detector on any annotated images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson, Data, Device, ModelFile, Split, print_json
from cli.output import check_out


def evaluate(
    model: ModelFile,
    data: Data = None,
    split: Split = None,
    resamples: Annotated[
        int, typer.Option(help="Bootstrap resamples of the intervals; 0 = none", min=0)
    ] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and detections.json")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a model: mAP with intervals, precision and recall, and every class.

    A model.pt is measured as the stage evaluate does it by default: scores above 0.01, NMS at IoU 0.45,
    at most 200 detections per image; an exported file with its own thresholds.
    """
    check_out(out)
    # They take seconds, and --help none.
    from cli.data import opened_data
    from cli.detections import detect_split, warn_of_thresholds
    from cli.model import model_file
    from ssd.detections_file import write_detections
    from ssd.files import write_json
    from ssd.inference.detector_file import open_detector
    from ssd.metrics.scoring import score_split
    from ssd.metrics.summary import summarise

    with model_file(model) as path:
        detector = open_detector(path, device)
        with opened_data(data, split, detector.class_names) as file:
            detections = detect_split(detector, file, device)
            objects = [file.objects(index) for index in range(len(file))]
            figures = score_split(detections, objects, file.class_names, resamples)
            counts = {"num_images": len(file), "num_objects": len(file.labels)}
            summary = summarise(figures, {}, counts)
            warn_of_thresholds(detector)
            if as_json:
                print_json(summary)
            else:
                print_figures(summary)
            if out is not None:
                write_detections(out / "detections.json", detections, file.image_ids)
                write_json(out / "metrics.json", summary)


def print_figures(summary: dict[str, Any]) -> None:
    """The means with their intervals, then a row for each class."""
    from stages.evaluate import in_words

    for group in ("coco", "voc", "operating_point"):
        for key, value in summary[group].items():
            if not key.endswith("_interval"):
                interval = summary[group].get(f"{key}_interval")
                print(f"{f'{group}_{key}':34s} {in_words(value, interval)}")
    columns = (
        "num_objects",
        "coco_ap",
        "coco_ap50",
        "operating_precision",
        "operating_recall",
        "operating_f1",
    )
    width = max(len(found["class"]) for found in summary["per_class"])
    print(" " * width + "".join(f"{title:>10}" for title in ("objects", "AP", "AP@0.5", "P", "R", "F1")))
    for found in summary["per_class"]:
        cells = [found[column] for column in columns]
        texts = ["-" if x is None else f"{x:.3f}" if isinstance(x, float) else str(x) for x in cells]
        print(f"{found['class']:{width}}" + "".join(f"{text:>10}" for text in texts))
