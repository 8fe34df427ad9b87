"""torchvision's published SSD300 on COCO as a model.pt: a detector to try at once."""

from dataclasses import asdict
from pathlib import Path

from ssd.loss import LossSettings
from ssd.models.published import COCO_WEIGHTS, fetch_weights
from ssd.models.saved import save_model
from ssd.models.torchvision_ssd import convert_ssd300_vgg16, num_classes_of, ssd300_vgg16_config
from ssd.models.weights import read_state


def save_coco_model(path: Path) -> None:
    """Write `ssd300_vgg16` with its published weights (25.1 mAP on COCO val2017, by torchvision).

    They are in torch's hub folder, or are downloaded to it; see `ssd.models.published.fetch_weights`.

    Raises:
        UserError: they are not there and cannot be downloaded, or another file is in their place.
    """
    state = read_state(fetch_weights("vgg16", "coco"))
    # COCO's category ids have gaps, which the network has outputs for, too.
    names = [
        f"unused {label}" if name == "N/A" else name
        for label, name in enumerate(COCO_WEIGHTS.meta["categories"])
    ]
    config = ssd300_vgg16_config(num_classes_of(state))
    save_model(path, convert_ssd300_vgg16(state), config, names[1:], asdict(LossSettings()))
