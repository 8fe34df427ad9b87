"""`ssd info`: what a model file is, and where it comes from."""

from typing import TYPE_CHECKING, Any

from cli.options import AsJson, ModelFile, print_json

if TYPE_CHECKING:
    from ssd.inference.detector_file import DetectorFile


def info(model: ModelFile, as_json: AsJson = False) -> None:
    """Classes, input, thresholds, priors, parameters, operations, and what an exported file was made of."""
    # They take seconds, and --help none.
    from cli.model import model_file
    from ssd.export.verify_onnx import in_words
    from ssd.files import sha256
    from ssd.inference.detector_file import open_detector

    with model_file(model) as path:
        about = {
            "file": model,
            "bytes": path.stat().st_size if path.is_file() else 0,
            **describe_file(open_detector(path)),
            "sha256": sha256(path),
        }
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {key:20s} {in_words(item)}")
        else:
            print(f"{name:22s} {in_words(value)}")


def describe_file(detector: "DetectorFile") -> dict[str, Any]:
    """What a file says of itself, as JSON values; None where an exported file does not say it.

    A model.pt has no thresholds of its own: those are said that `ssd predict` gives it.
    """
    from ssd.detector import Detector
    from ssd.export.network import describe_network
    from ssd.inference.detector_file import SETTINGS
    from ssd.models.saved import load_loss_settings, load_model

    metadata = detector.metadata
    about: dict[str, Any] = {
        "kind": detector.kind,
        "classes": detector.class_names,
        "input": {"images": metadata["images"], "resized_to": metadata["input_size"]},
        "thresholds": {key: metadata[key] for key in ("score_threshold", "nms_iou", "max_detections")},
    }
    if detector.kind == "model.pt":
        network, _ = load_model(detector.path)
        loss = load_loss_settings(detector.path)
        return {**about, "network": describe_network(Detector(network, SETTINGS)), "trained_with": loss}
    certificate = dict(metadata.get("certificate") or {})
    about["network"] = certificate.pop("network", None)
    return {**about, "certificate": certificate or None, "origin": metadata.get("origin")}
