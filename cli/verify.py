"""`ssd verify`: is a model file what was written, and does it detect here what it detected there?"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.options import AsJson, ModelFile, print_json

if TYPE_CHECKING:
    from ssd.export.verify_onnx import Report


def verify(model: ModelFile, as_json: AsJson = False) -> None:
    """Check a file's digest, and an exported one's detections in its golden image; exit code 1 if it fails.

    An .onnx runs in onnxruntime; ssd/export/verify_onnx.py does that without this package, too.
    """
    # They take seconds, and --help none.
    from cli.model import model_file
    from ssd.errors import UserError
    from ssd.export.verify_onnx import lines, report_as_json, verify_onnx

    with model_file(model) as path:
        if not path.is_file():
            raise UserError(f"{path}: no such file; needed is a model.pt or an exported file")
        report = verify_onnx(path) if path.suffix == ".onnx" else verify_with_torch(path)
    if as_json:
        print_json(report_as_json(report))
    else:
        print("\n".join(lines(report)))
    raise typer.Exit(int(bool(report.problem)))


def verify_with_torch(path: Path) -> "Report":
    """A TorchScript file as an ONNX file; of a model.pt, which has no golden image, the digest alone."""
    from ssd.errors import UserError
    from ssd.export.certificate import TORCHSCRIPT_SEAL, torchscript_run
    from ssd.export.torchscript import open_torchscript
    from ssd.export.verify_onnx import Report
    from ssd.export.verify_onnx import verify as verify_content
    from ssd.inference.detector_file import kind_of
    from ssd.models.saved import load_model

    try:
        if kind_of(path) == "torchscript":
            return verify_content(
                path.read_bytes(),
                TORCHSCRIPT_SEAL,
                path,
                lambda: (torchscript_run(path), open_torchscript(path)[1]),
            )
        load_model(path)
    except UserError as error:
        return Report(path, False, None, {}, str(error).removeprefix(f"{path}: "))
    return Report(path, True, None, {}, "")
