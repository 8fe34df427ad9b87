"""The detector as an MLflow pyfunc model: runs the ONNX file on a table with one column of base64 images.

Images are turned by their EXIF orientation, so boxes are in pixels of the image as shown. The parameter
`score_threshold` drops what scores lower; what the ONNX file itself drops stays dropped.

MLflow stores a copy of this file and runs it where the model is loaded, so it must need neither this package
nor torch. It is never imported by the pipeline.
"""

import base64
import io
import json
import struct
from typing import Any

import mlflow
import numpy as np
import onnxruntime
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Transpose

TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""By EXIF orientation; 1 is upright."""

DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged images and EXIF, and base64 for other text."""


FORMATS = ("JPEG", "PNG", "WEBP")
"""Pillow has more decoders than a server should offer."""


class Refusal(MlflowException):
    """What a client can mend. MLflow's server answers 400 with this sentence.

    Without this class it would put the whole input in front of it, base64 and all.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """What the server sends."""
        self.message = self.sentence
        return str(super().serialize_as_json())  # type: ignore[no-untyped-call]


class ServedDetector(PythonModel):
    """Column `image` (base64 of an image, or a `data:` URL) to column `detections`: boxes, score, label."""

    # The model is logged with a signature; without this MLflow requires type hints to derive one from.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Open the ONNX file; class names are in its metadata."""
        path = context.artifacts["onnx"]
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self.session = onnxruntime.InferenceSession(path, providers=providers)
        self.class_names = json.loads(self.session.get_modelmeta().custom_metadata_map["class_names"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Detect objects in each row's image.

        Args:
            context: unused.
            model_input: a table with the column `image`.
            params: `score_threshold`, from 0 to 1.

        Raises:
            Refusal: there is no such column, a row is not the base64 text of an image, or the threshold is
                no number from 0 to 1.
        """
        if "image" not in model_input:
            raise Refusal(f"there is no column 'image'; it takes base64 of {', '.join(FORMATS)} files")
        threshold = (params or {}).get("score_threshold", 0.0)
        if not 0 <= threshold <= 1:
            raise Refusal(f"score_threshold is {threshold}; needed is a number from 0 to 1")
        rows = [
            [found for found in self._detect(_decode(row, text)) if found["score"] >= threshold]
            for row, text in enumerate(model_input["image"])
        ]
        return model_input.assign(detections=rows)[["detections"]]

    def _detect(self, image: np.ndarray) -> list[dict[str, Any]]:
        boxes, scores, labels, num_detections = self.session.run(None, {"images": image[None]})
        return [
            {
                **dict(zip(("x1", "y1", "x2", "y2"), map(float, boxes[0, i]), strict=True)),
                "score": float(scores[0, i]),
                "label": self.class_names[labels[0, i] - 1],
            }
            for i in range(num_detections[0])
        ]


def _decode(row: int, text: str | None) -> np.ndarray:
    """Base64 text or `data:` URL to uint8 RGB [3, H, W], as shown. Pillow rejects decompression bombs."""
    if not isinstance(text, str):
        raise Refusal(f"row {row}: column image is empty")
    try:
        if text.startswith("data:"):
            head, _, text = text.partition(",")
            if not head.endswith(";base64"):
                raise ValueError("a data: URL without ;base64")
        content = base64.b64decode("".join(text.split()), validate=True)
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        image.load()
        transpose = _transpose(image)
        if image.mode.startswith("I"):  # 16-bit greyscale, which convert() would clip at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        rgb = image.convert("RGB")
        pixels = np.asarray(rgb if transpose is None else rgb.transpose(transpose))
    except UnidentifiedImageError:
        raise Refusal(f"row {row}: column image is base64 of no {', '.join(FORMATS)}") from None
    except DAMAGE as error:
        raise Refusal(
            f"row {row}: column image is not base64 of a {', '.join(FORMATS)}: {str(error)[:200]}"
        ) from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _transpose(image: Image.Image) -> Transpose | None:
    """How the image must be turned to be shown; not at all if its EXIF is damaged."""
    try:
        return TRANSPOSES.get(image.getexif().get(Base.Orientation, 1))
    except DAMAGE:
        return None


mlflow.models.set_model(ServedDetector())
