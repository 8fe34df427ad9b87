"""Stage 5: models/model.pt to ONNX and TorchScript files that hold everything from pixels to detections.

Writes models/export, after both files have been compared with the PyTorch model, and reports/export.json.
Each file carries a certificate of its birth and a golden image, which `ssd verify` reads.
"""

import base64
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ssd.export
from ssd.detector import Detector
from ssd.export.certificate import certify, make_certificate, make_golden, make_origin
from ssd.export.compare import agreement_lines, compare_files
from ssd.export.onnx import to_onnx
from ssd.export.torchscript import to_torchscript
from ssd.files import replacing, replacing_folder, sha256, write_bytes, write_json
from ssd.layouts import SPLITS
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_model
from ssd.params import Params
from ssd.postprocess import PostProcessSettings
from stages.command import command
from stages.revision import commit_and_dirty, lock_digest
from stages.run import stage_run

MODEL = Path("models/model.pt")
METRICS = Path("reports/metrics.json")
TENSORS = Path("data/tensors")
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
    split = TensorFile(TENSORS / "test")
    images = [split.image(index) for index in range(min(settings.num_images, len(split)))]

    model_sha256 = sha256(MODEL)
    certificate = make_certificate(
        detector, model_sha256, data_digests(), params_digest(params), metrics_of(model_sha256)
    )
    origin, golden = make_origin(*commit_and_dirty(), lock_digest()), make_golden(detector, images)

    # Both are complete before one is replaced.
    with replacing(REPORT) as report_file, replacing_folder(FOLDER) as folder:
        files = [folder / "ssd.onnx", folder / "ssd.torchscript.pt"]
        write_bytes(files[0], to_onnx(detector, class_names, settings.opset))
        write_bytes(files[1], to_torchscript(detector, class_names))
        for file in files:
            certify(file, certificate, origin, golden)
        report = compare_files(detector, class_names, files, images, settings.tolerance)
        write_json(report_file, report)
    say(report, [file.name for file in files])
    track(params, split, f"{model.config.backbone}-{model.config.input_size}")


def data_digests() -> dict[str, str]:
    """SHA-256 of each split that is here."""
    folders = {split: TENSORS / split for split in SPLITS}
    return {split: sha256(path) for split, path in folders.items() if path.exists()}


def params_digest(params: Params) -> str:
    """SHA-256 of the sections that decide model, figures and files; the data have digests of their own."""
    sections = [params.model, params.augment, params.train, params.evaluate, params.export]
    text = json.dumps([section.model_dump(mode="json") for section in sections], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def metrics_of(model_sha256: str) -> dict[str, Any] | None:
    """The content of metrics.json, if it is of this model."""
    if METRICS.is_file():
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
        if f"{model_sha256}  {MODEL}" in metrics.get("sha256", []):
            return metrics
    print(
        f"warning: no {METRICS} of this {MODEL}, so the files carry no figures; run evaluate first",
        file=sys.stderr,
    )
    return None


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
    print("\n".join(agreement_lines(report, names)))
    if report["num_detections"] == 0:
        print("nothing scores above export.score_threshold, so no box was compared; lower it, or train more")


if __name__ == "__main__":
    main(sys.argv[1:])
