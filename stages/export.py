"""Stage 5: models/model.pt to ONNX and TorchScript files that hold everything from pixels to detections.

Writes models/export, after both files have been compared with the PyTorch model, and reports/export.json.
"""

import base64
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ssd.export
from ssd.detector import Detector
from ssd.export.compare import compare_files
from ssd.export.onnx import to_onnx
from ssd.export.torchscript import to_torchscript
from ssd.files import replacing, replacing_folder, write_bytes, write_json
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_model
from ssd.params import Params
from ssd.postprocess import PostProcessSettings
from stages.command import command
from stages.run import stage_run

MODEL = Path("models/model.pt")
FOLDER = Path("models/export")
REPORT = Path("reports/export.json")


@command
def main(params: Params) -> None:
    settings = params.export
    model, class_names = load_model(MODEL)
    thresholds = PostProcessSettings(
        settings.score_threshold, settings.nms_iou, max_detections=settings.max_detections
    )
    detector = Detector(model, thresholds)
    split = TensorFile("data/tensors/test.safetensors")
    images = [split.image(index) for index in range(min(settings.num_images, len(split)))]

    # Both are complete before one is replaced.
    with replacing(REPORT) as report_file, replacing_folder(FOLDER) as folder:
        files = [folder / "ssd.onnx", folder / "ssd.torchscript.pt"]
        write_bytes(files[0], to_onnx(detector, class_names, settings.opset))
        write_bytes(files[1], to_torchscript(detector, class_names))
        report = compare_files(detector, class_names, files, images, settings.tolerance)
        write_json(report_file, report)
    say(report, [file.name for file in files])
    track(params, split, f"{model.config.backbone}-{model.config.input_size}")


def track(params: Params, split: TensorFile, network: str) -> None:
    """Log the TorchScript file, and the ONNX file within a model that MLflow can serve, as a new version."""
    with stage_run(params, "export", sections={"export"}, model=MODEL) as run:
        run.file(FOLDER / "ssd.torchscript.pt", "export")
        run.file(REPORT)
        requirements = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnxruntime", "pillow")]
        example = base64.b64encode(split.encoded(0).numpy().tobytes()).decode()
        run.onnx_model(network, FOLDER / "ssd.onnx", pyfunc_file(), requirements, example)


def pyfunc_file() -> Path:
    """The code that serves the ONNX file; MLflow stores it as text, so it is not imported here."""
    return Path(ssd.export.__file__).with_name("pyfunc_model.py")


def say(report: dict[str, Any], names: list[str]) -> None:
    """Print what was compared, and how well the files agree."""
    on = f"{report['num_images']} images, of the test split and made-up ones"
    print(f"compared {report['num_detections']} detections on {on}:")
    for name in names:
        file = report[name]
        agreement = (
            f"  scores within {file['largest_score_difference']:.1e}"
            f"  boxes within {file['largest_box_difference']:.1e} of the longer side"
        )
        print(
            f"{name:20s} {file['bytes'] / 1e6:6.1f} MB{agreement if report['num_detections'] else ''}"
            f"  {file['latency_ms']:.1f} ms per image (PyTorch {report['pytorch']['latency_ms']:.1f} ms)"
        )
    if report["num_detections"] == 0:
        print("nothing scores above export.score_threshold, so no box was compared; lower it, or train more")


if __name__ == "__main__":
    main(sys.argv[1:])
