"""VGG16 as the SSD paper uses it: conv4_3 with a learned scale, fc6 and fc7 as convolutions."""

import logging
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import vgg16

from ssd.structures import MEAN, STD

log = logging.getLogger(__name__)

InputScale = Literal["imagenet", "caffe"]
"""The input that weights expect, of x in 0..255: imagenet (x - MEAN) / STD, about -2.1 to 2.6; caffe
x - CAFFE_MEAN, -123 to 151."""

# Mean colour of the Caffe weights, as torchvision states it, on the 0..255 scale; they use no deviation.
CAFFE_MEAN = (0.48235 * 255, 0.45882 * 255, 0.40784 * 255)
CONV4_3, CONV5_3 = 22, 29
"""Index in torchvision's `features` of the ReLU after these convolutions."""


class VGG16Features(nn.Module):
    """VGG16 up to fc7; returns the feature maps of conv4_3 and fc7, at strides 8 and 16.

    SSD, section 3: fc6 and fc7 become convolutions with sub-sampled weights (see `subsample_classifier`),
    fc6 with dilation; pool5 has stride 1; conv4_3 is L2-normalised over the channels and scaled by a
    learned factor (Liu et al., "ParseNet", 2015, section 3.3). Its sub-module `features` has torchvision's
    names.

    Args:
        input_scale: what the weights expect (see `ssd.models.input_scale`).
    """

    def __init__(self, input_scale: InputScale = "imagenet") -> None:
        super().__init__()
        self.rescale = CaffeInput() if input_scale == "caffe" else nn.Identity()
        with torch.device("meta"):  # of 138 million parameters, 124 million are in the unused classifier
            features = vgg16(weights=None).features
        self.features = features[: CONV5_3 + 1].to_empty(device=torch.get_default_device())
        self.features[16].ceil_mode = True  # 75 cells become 38, as in the paper
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.conv4_scale = nn.Parameter(torch.full((512,), 20.0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None, "VGG16 has no batch norm"
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to conv4_3 [B, 512, ...] and fc7 [B, 1024, ...]."""
        conv4 = self.features[: CONV4_3 + 1](self.rescale(images))
        x = self.pool5(self.features[CONV4_3 + 1 :](conv4))
        x = F.relu(self.fc7(F.relu(self.fc6(x))))
        return [F.normalize(conv4) * self.conv4_scale.view(-1, 1, 1), x]

    def stages(self) -> list[list[nn.Module]]:
        """Its modules in forward order: conv1, conv2, conv3, conv4, and conv5 with fc6 and fc7."""
        bounds = [0, 5, 10, 17, 24, CONV5_3 + 1]
        parts: list[list[nn.Module]] = [list(self.features[start:end]) for start, end in pairwise(bounds)]
        return [*parts[:-1], [*parts[-1], self.fc6, self.fc7]]


class CaffeInput(nn.Module):
    """Undoes the ImageNet normalisation of images, and takes Caffe's mean colour off instead."""

    std: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std, caffe = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD, CAFFE_MEAN))
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("shift", mean - caffe, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] to the same shape, from -123 to 151."""
        return images * self.std + self.shift


def vgg16_state(state: dict[str, Tensor], backbone: VGG16Features) -> dict[str, Tensor]:
    """Convert a torchvision VGG16 state dict to `VGG16Features`; missing parameters keep their values.

    Published feature weights may come without a usable classifier: then fc6 and fc7 keep random weights.
    """
    own = backbone.state_dict()
    converted = {key: value for key, value in state.items() if key in own and key.startswith("features.")}
    classifier = {key: state.get(f"classifier.{key}") for key in ("0.weight", "0.bias", "3.weight", "3.bias")}
    if all(value is not None and bool(value.isfinite().all()) for value in classifier.values()):
        converted |= subsample_classifier(
            {key: value for key, value in classifier.items() if value is not None}
        )
    if "fc6.weight" not in converted:
        log.info("model.weights: these have no classifier: fc6 and fc7 are randomly initialised")
    fresh = ("conv4_scale", *(("fc6", "fc7") if "fc6.weight" not in converted else ()))
    return converted | {key: value for key, value in own.items() if key.startswith(fresh)}


def subsample_classifier(classifier: dict[str, Tensor]) -> dict[str, Tensor]:
    """The two hidden layers of VGG16's classifier as convolutions of 1024 channels (SSD, section 3).

    Of the 7x7 positions of fc6's kernel every third is kept, and dilation bridges the gaps; of the 4096
    channels, every fourth.

    Args:
        classifier: "0.weight" [4096, 25088], "0.bias", "3.weight" [4096, 4096], "3.bias".
    """
    fc6 = classifier["0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3]
    fc7 = classifier["3.weight"].view(4096, 4096, 1, 1)[::4, ::4]
    return {
        "fc6.weight": fc6.contiguous(),
        "fc6.bias": classifier["0.bias"][::4].contiguous(),
        "fc7.weight": fc7.contiguous(),
        "fc7.bias": classifier["3.bias"][::4].contiguous(),
    }
