"""torchvision's published weights: their files, with digests, and their place in torch's hub folder."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, SSD300_VGG16_Weights

from ssd.errors import UserError
from ssd.fetch import RemoteFile, fetch
from ssd.models.backbones import CONV4

KEY = "model.weights"
COCO_WEIGHTS: WeightsEnum = SSD300_VGG16_Weights.COCO_V1
FASTER_RCNN_WEIGHTS: WeightsEnum = FasterRCNN_ResNet50_FPN_Weights.COCO_V1

SHA256 = {
    "mobilenet_v3_large-8738ca79.pth": "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
    "resnet18-f37072fd.pth": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34-b627a593.pth": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50-0676ba61.pth": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "resnet101-63fe2227.pth": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet152-394f9c45.pth": "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    "ssd300_vgg16_coco-b556d3b4.pth": "b556d3b43ab6c3f63d81bfb8835fe8756ac22da664357da100dccf96b6a6b42d",
}
"""Whole digests, each recorded in two or more public repositories; torchvision states the first digits."""


def fetch_weights(backbone: str, weights: str) -> Path:
    """The file of one of PUBLISHED_WEIGHTS, downloaded if it is missing; its digest is checked in both cases.

    Raises:
        UserError: torchvision publishes no such file, it cannot be downloaded, or another is in its place.
    """
    return fetch(published_file(backbone, weights), hub_folder(), key=KEY)


def published_file(backbone: str, weights: str) -> RemoteFile:
    """torchvision's file for a backbone and one of PUBLISHED_WEIGHTS.

    Raises:
        UserError: torchvision publishes none; for networks of timm's, it never does.
    """
    if backbone.startswith("timm/"):
        raise UserError(
            f"found {weights!r}; allowed for {backbone}: none, or a file, such as "
            "the model.safetensors of its page on Hugging Face",
            key=KEY,
        )
    published = _detector_weights(backbone) if weights == "coco" else imagenet_weights(backbone)
    name = PurePosixPath(urlsplit(published.url).path).name
    digits = re.search(torch.hub.HASH_REGEX, name)
    if digits is None:
        raise UserError(
            f"torchvision states no digest of {published.url}; download it and name the file here", key=KEY
        )
    return RemoteFile(name, 0, SHA256.get(name, digits[1]), (published.url,))


def _detector_weights(backbone: str) -> WeightsEnum:
    """torchvision's detector on a backbone: Faster R-CNN on resnet50, SSD on vgg16 (see `ssd.params`)."""
    return FASTER_RCNN_WEIGHTS if backbone == "resnet50" else COCO_WEIGHTS


def hub_folder() -> Path:
    """Where torch and torchvision keep downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def imagenet_weights(backbone: str) -> WeightsEnum:
    """torchvision's weights of a backbone: those of SSD's authors for vgg16, else the first version.

    V1 everywhere: it is what torchvision's own detectors start from.

    Raises:
        UserError: torchvision publishes none.
    """
    if backbone == "vgg16":
        return VGG16_Weights.IMAGENET1K_FEATURES
    published = [
        entry for entry in get_model_weights(backbone.removesuffix(CONV4)) if "IMAGENET1K" in entry.name
    ]
    if not published:
        raise UserError(f"torchvision has no imagenet weights for {backbone}; allowed: none, a file", key=KEY)
    return published[0]
