"""The model that MLflow serves: base64 of image files in, boxes in pixels of the shown image out."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose
from small_detector import CLASS_NAMES, scenes
from voc_folder import encode, picture

from ssd.detector import Detector
from ssd.export.pyfunc_model import Refusal, ServedDetector


@pytest.fixture(scope="module")
def served(onnx_file: Path) -> ServedDetector:
    model = ServedDetector()
    model.load_context(SimpleNamespace(artifacts={"onnx": str(onnx_file)}))
    return model


def detect(served: ServedDetector, *files: bytes, params: dict[str, float] | None = None) -> list[Any]:
    table = pd.DataFrame({"image": [base64.b64encode(content).decode() for content in files]})
    return list(served.predict(None, table, params)["detections"])


def scene() -> Image.Image:
    """60 pixels wide, 90 high."""
    return Image.fromarray(scenes(1, 90, 60)[0].permute(1, 2, 0).numpy())


def turned(image: Image.Image, transpose: Transpose, orientation: int) -> bytes:
    """A PNG that stores the image turned away, and how it is turned back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image.transpose(transpose), "PNG", exif=exif)


def test_detections_are_those_of_the_detector(served: ServedDetector, detector: Detector) -> None:
    image = scene()
    boxes, scores, labels, num_detections = detector(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    (found,) = detect(served, encode(image, "PNG"))
    assert len(found) == int(num_detections[0]) > 0
    for i, detection in enumerate(found):
        corners = [detection[name] for name in ("x1", "y1", "x2", "y2")]
        assert corners == pytest.approx(boxes[0, i].tolist(), abs=1e-2)
        assert detection["score"] == pytest.approx(float(scores[0, i]), abs=1e-5)
        assert detection["label"] == CLASS_NAMES[int(labels[0, i]) - 1]


# Each turns the image away from what its orientation shows.
@pytest.mark.parametrize(
    ("stored", "orientation"),
    [
        (Transpose.FLIP_LEFT_RIGHT, 2),
        (Transpose.ROTATE_180, 3),
        (Transpose.FLIP_TOP_BOTTOM, 4),
        (Transpose.TRANSPOSE, 5),
        (Transpose.ROTATE_90, 6),
        (Transpose.TRANSVERSE, 7),
        (Transpose.ROTATE_270, 8),
    ],
)
def test_a_photo_that_exif_turns_and_the_same_photo_turned_in_pixels_are_detected_alike(
    served: ServedDetector, stored: Transpose, orientation: int
) -> None:
    by_exif, in_pixels = detect(served, turned(scene(), stored, orientation), encode(scene(), "PNG"))
    assert by_exif == in_pixels != []


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0" + b"\xff" * 20], ids=["empty", "damaged"])
def test_damaged_exif_turns_nothing(served: ServedDetector, exif: bytes) -> None:
    damaged, plain = detect(served, encode(scene(), "PNG", exif=exif), encode(scene(), "PNG"))
    assert damaged == plain


def test_16_bit_greys_are_scaled_as_for_training(served: ServedDetector) -> None:
    grey = np.asarray(scene().convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    assert detect(served, encode(deep, "PNG")) == detect(served, encode(Image.fromarray(grey), "PNG"))


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        base64.b64encode(b"<html>").decode(),
        "",
        base64.b64encode(encode(picture())[:-30]).decode(),
    ],
    ids=["no base64", "no image", "empty", "half an image"],
)
def test_what_is_no_image_is_refused_with_its_row(served: ServedDetector, text: str) -> None:
    whole = base64.b64encode(encode(scene())).decode()
    with pytest.raises(Refusal, match="row 1: column image is "):
        served.predict(None, pd.DataFrame({"image": [whole, text]}))


def test_data_urls_and_webp_are_images_too(served: ServedDetector) -> None:
    png, webp = encode(scene(), "PNG"), encode(scene(), "WEBP", lossless=True)
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    table = served.predict(None, pd.DataFrame({"image": [url]}))
    assert [table["detections"][0]] * 2 == detect(served, png, webp) != [[], []]


def test_a_threshold_drops_what_scores_lower(served: ServedDetector) -> None:
    (everything,) = detect(served, encode(scene(), "PNG"))
    (kept,) = detect(served, encode(scene(), "PNG"), params={"score_threshold": 0.8})
    assert kept == [found for found in everything if found["score"] >= 0.8]
    assert 0 < len(kept) < len(everything)


@pytest.mark.parametrize(
    ("table", "params", "sentence"),
    [
        (
            {"picture": ["a" * 40_000]},
            {},
            "there is no column 'image'; it takes base64 of JPEG, PNG, WEBP files",
        ),
        ({"image": [None]}, {}, "row 0: column image is empty"),
        ({"image": []}, {"score_threshold": 2}, "score_threshold is 2; needed is a number from 0 to 1"),
    ],
)
def test_what_the_server_answers_is_one_sentence_without_the_input(
    served: ServedDetector, table: dict[str, list[str | None]], params: dict[str, float], sentence: str
) -> None:
    with pytest.raises(Refusal) as refused:
        served.predict(None, pd.DataFrame(table), params)
    refused.value.message = f"Failed to predict data '{table}'. Error: {sentence}"  # as its server does
    answer = json.loads(refused.value.serialize_as_json())
    assert (answer["error_code"], answer["message"]) == ("INVALID_PARAMETER_VALUE", sentence)
