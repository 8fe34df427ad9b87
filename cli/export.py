"""`ssd export`: the ONNX and the TorchScript file of any model.pt."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson, ModelFile, print_json

TOLERANCE = 0.001
"""Largest difference of scores, and of boxes as a fraction of the longer image side."""


def export(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="Folder for ssd.onnx, ssd.torchscript.pt and export.json")],
    score_threshold: Annotated[float, typer.Option(help="Lower scores are dropped", min=0, max=1)] = 0.05,
    nms_iou: Annotated[float, typer.Option(help="IoU above which NMS drops a box", min=0.01, max=1)] = 0.45,
    max_detections: Annotated[int, typer.Option(help="Detections per image", min=1, max=10_000)] = 100,
    opset: Annotated[int, typer.Option(help="ONNX operator set; Faster R-CNN: to 21", min=18, max=23)] = 18,
    as_json: AsJson = False,
) -> None:
    """Write a model.pt as files that run anywhere, after both have been compared with it.

    If one detects otherwise, none is written, and the exit code is 1.
    """
    # They take seconds, and --help none.
    from cli.model import model_file
    from cli.pictures import drawn_pictures
    from ssd.detector import Detector
    from ssd.errors import UserError
    from ssd.export.certificate import certify, make_certificate, make_golden, make_origin
    from ssd.export.compare import DisagreementError, compare_files
    from ssd.export.onnx import to_onnx
    from ssd.export.torchscript import to_torchscript
    from ssd.files import sha256, write_bytes, write_json
    from ssd.inference.detector_file import kind_of
    from ssd.models.saved import load_model
    from ssd.params import NEWEST_OPSET, allowed_opsets
    from ssd.postprocess import PostProcessSettings
    from stages.revision import commit_and_dirty

    with model_file(model) as path:
        if kind_of(path) != "model.pt":
            raise UserError(f"{path}: an exported file; export the model.pt that it was made of")
        network, class_names = load_model(path)
        model_sha256 = sha256(path)
    if opset > NEWEST_OPSET[network.config.family]:
        raise UserError(f"--opset: found {opset}; allowed: {allowed_opsets(network.config.family)}")
    settings = PostProcessSettings(score_threshold, nms_iou, max_detections=max_detections)
    detector = Detector(network, settings)
    pictures = drawn_pictures()
    # Of which data and params, nobody knows here.
    certificate = make_certificate(detector, model_sha256)
    origin, golden = make_origin(*commit_and_dirty()), make_golden(detector, pictures)
    out.mkdir(parents=True, exist_ok=True)
    # Both are complete before one is replaced.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        files = [Path(folder, name) for name in ("ssd.onnx", "ssd.torchscript.pt")]
        write_bytes(files[0], to_onnx(detector, class_names, opset))
        write_bytes(files[1], to_torchscript(detector, class_names))
        for file in files:
            certify(file, certificate, origin, golden)
        try:
            report = compare_files(detector, class_names, files, pictures, TOLERANCE)
        except DisagreementError as error:
            print(f"{error.finding}; nothing is written to {out}", file=sys.stderr)
            raise typer.Exit(1) from None
        write_json(Path(folder, "export.json"), report)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)
    if as_json:
        print_json(report)
    else:
        say(report, [file.name for file in files], score_threshold)


def say(report: dict[str, Any], names: list[str], score_threshold: float) -> None:
    """Print what was compared, and how well the files agree."""
    from ssd.export.compare import agreement_lines

    number = report["num_detections"]
    print(f"compared {number} detections on {report['num_images']} drawn pictures and plain ones:")
    print("\n".join(agreement_lines(report, names)))
    if number == 0:
        print(f"nothing scores above {score_threshold:g}, so no box was compared; lower --score-threshold")
