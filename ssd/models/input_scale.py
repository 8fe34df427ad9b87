"""Which values VGG16's first convolution expects: a property of its weights, settled before it is built."""

from pathlib import Path
from typing import Literal

from torch import Tensor
from torchvision.models import VGG16_Weights

from ssd.errors import UserError
from ssd.files import sha256
from ssd.models.saved import is_model_file, load_model
from ssd.models.torchvision_ssd import is_ssd300_vgg16
from ssd.models.vgg import CONV5_3, InputScale
from ssd.models.weights import read_state
from ssd.params import PUBLISHED_WEIGHTS

KEY = "model.input_scale"
SCALE_OF_URL: dict[str, InputScale] = {
    VGG16_Weights.IMAGENET1K_V1.url: "imagenet",
    VGG16_Weights.IMAGENET1K_FEATURES.url: "caffe",
}
"""torchvision's files of VGG16; the name ends with the first digits of the file's SHA-256."""


def resolve_input_scale(asked: Literal["auto"] | InputScale, backbone: str, weights: str) -> InputScale:
    """The input scale of a network, from `model.input_scale`, `model.backbone` and `model.weights`.

    Of vgg16, torchvision's weights imagenet (IMAGENET1K_FEATURES) and coco come from Caffe; a random
    initialisation takes imagenet's scale; a file is looked into (see `_scale_of_file`) if it is not stated.

    Args:
        asked: `model.input_scale`.
        backbone: `model.backbone`.
        weights: `model.weights`, a file's path made absolute.

    Raises:
        UserError: the setting contradicts the others, or the scale of the file cannot be known.
    """
    if backbone != "vgg16":
        if asked == "caffe":
            raise UserError(f"found caffe; allowed for {backbone}: auto, imagenet", key=KEY)
        return "imagenet"
    if weights in PUBLISHED_WEIGHTS:
        if asked == "imagenet":
            raise UserError(
                f"found imagenet; allowed with vgg16's weights {weights}, which come from Caffe: auto, caffe",
                key=KEY,
            )
        return "caffe"
    if asked != "auto":
        return asked
    return "imagenet" if weights == "none" else _scale_of_file(Path(weights))


def _scale_of_file(path: Path) -> InputScale:
    """What is certain: a model.pt knows; ssd300_vgg16 and IMAGENET1K_FEATURES are Caffe's, V1 is imagenet's.

    The parameters of a whole VGG16 have the same names and shapes whatever it was trained on.
    """
    if is_model_file(path):
        return load_model(path)[0].config.input_scale
    state = read_state(path)
    if is_ssd300_vgg16(state) or _lacks_classifier_values(state):
        return "caffe"
    if f"features.{CONV5_3 - 1}.weight" not in state:
        return "imagenet"  # no VGG16: `load_weights` refuses it
    digest = sha256(path)
    for url, scale in SCALE_OF_URL.items():
        if digest.startswith(Path(url).stem.rsplit("-")[-1]):
            return scale
    raise UserError(
        f"auto cannot tell what the VGG16 in {path} expects; allowed: imagenet ((x / 255 - mean) / std, as "
        "torchvision's IMAGENET1K_V1) or caffe (0 to 255 less the mean colour, as SSD's authors)",
        key=KEY,
    )


def _lacks_classifier_values(state: dict[str, Tensor]) -> bool:
    """Whether the classifier is there and not finite: so torchvision documents IMAGENET1K_FEATURES alone."""
    weight = state.get("classifier.0.weight")
    return weight is not None and not bool(weight.isfinite().all())
