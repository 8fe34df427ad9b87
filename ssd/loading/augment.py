"""Geometric augmentation, sampled on box coordinates: zoom-out, IoU crop and flip (SSD, section 2.2).

Crops around objects, which SSD does not have, are in ssd/loading/object_crop.py; colour jitter and mixup of
whole batches are in ssd/loading/batch_augment.py.
"""

from dataclasses import replace
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from ssd.boxes import pairwise_iou
from ssd.loading.object_crop import crop_view, is_kept
from ssd.loading.view import View, full_view, normalise_boxes
from ssd.params import AugmentParams
from ssd.structures import Objects, Target

# The paper's seven kinds of crop: the original image, five minimum IoUs, any crop.
MIN_IOUS: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
CROP_TRIES = 50

# At most this many options are drawn: the original image is not among them in (6/7)^60 = 1e-4 of the cases.
# Where no crop fits, the whole view is right however many are drawn.
MAX_OPTIONS = 60

Array = NDArray[np.float32]


def sample_view(
    height: int, width: int, objects: Objects, augment: AugmentParams, generator: Generator
) -> View:
    """Sample the view of an image that the network gets.

    Policy ssd: zoom-out, then IoU crop, then flip, as in the authors' code. Policy object_crop: crops around
    objects, then flip. No pixels are read here. The edges of a view are whole pixels, so that pixels and
    boxes are cropped at the same edges.

    Args:
        height, width: of the image, pixels.
        objects: of the image. Crops around objects neither choose ignored ones nor have to keep them; SSD's
            crops treat them like the others.
        augment: policy, flip, and the parameters of the policy.
        generator: source of all randomness.
    """
    # One call for all draws: the overhead of a torch call exceeds the arithmetic here.
    zooms, ratio, across, down, crops, choice, flips = torch.rand(7, generator=generator).tolist()
    view = full_view(height, width)
    if augment.policy == "ssd":
        if zooms < augment.zoom_out:
            view = _zoomed_out(height, width, 1 + ratio * (augment.zoom_max - 1), across, down)
        if crops < augment.crop and len(objects.boxes):
            view = _iou_crop(view, objects.boxes.numpy(), choice, generator)
    elif augment.policy == "object_crop":
        boxes, counted = objects.boxes.numpy(), ~objects.ignored.numpy()
        view = crop_view(height, width, boxes, counted, augment, generator)
    return replace(view, flip=augment.policy != "none" and flips < augment.flip)


def objects_in_view(objects: Objects, view: View, augment: AugmentParams | None = None) -> Target:
    """The objects that are kept in a view, boxes normalised by its sides.

    An object is kept if its centre is in the view (SSD, section 2.2) or, with policy object_crop, if enough
    of its area is.

    Args:
        objects: of the image, pixels.
        view: of the image.
        augment: its policy decides; None keeps objects by their centre.
    """
    if augment is not None and augment.policy == "object_crop":
        kept = torch.from_numpy(is_kept(_edges(view), objects.boxes.numpy(), augment)[0])
    else:
        kept = torch.from_numpy(_holds(_edges(view), objects.boxes.numpy())[0])
    if not kept.all():
        objects = Objects(objects.boxes[kept], objects.labels[kept], objects.ignored[kept])
    return Target(normalise_boxes(objects.boxes, view), objects.labels, objects.ignored)


def _zoomed_out(height: int, width: int, ratio: float, across: float, down: float) -> View:
    """A canvas of `ratio` times the image's sides; `across` and `down`, 0..1, place the image on it."""
    x1 = -round(across * width * (ratio - 1))
    y1 = -round(down * height * (ratio - 1))
    return View(x1, y1, x1 + round(width * ratio), y1 + round(height * ratio))


def _edges(view: View) -> NDArray[np.float64]:
    """A view as xyxy [1, 4]."""
    return np.array([[view.x1, view.y1, view.x2, view.y2]], np.float64)


def _iou_crop(view: View, boxes: Array, choice: float, generator: Generator) -> View:
    """One of the paper's seven options, drawn again until it is the original image or one of its tries fits.

    A try is a crop of 0.3 to 1 of each side, aspect ratio 0.5 to 2. It fits if its IoU with an object whose
    centre it holds is the option's minimum or more. An option that does not fit must not leave the image
    whole: the authors' code picks among those that have a crop, and torchvision's RandomIoUCrop draws again,
    as here. Source: SSD, section 2.2.

    Args:
        view: of the image, possibly zoomed out.
        boxes: float32 [M, 4], xyxy, pixels, M > 0.
        choice: uniform in [0, 1), selects the first option.
        generator: source of all other randomness.
    """
    if _option(choice) is None:
        return view
    drawn = [choice, *torch.rand(MAX_OPTIONS - 1, generator=generator).tolist()]
    min_ious = list(takewhile(lambda min_iou: min_iou is not None, map(_option, drawn)))
    # All tries of all options at once, in NumPy: torch takes three times as long on so few numbers. Each
    # coordinate is contiguous.
    tries = torch.rand(4, len(min_ious) * CROP_TRIES, generator=generator).numpy()
    size = np.array([[view.x2 - view.x1], [view.y2 - view.y1]], np.float32)
    crop_size = (0.3 + 0.7 * tries[:2]) * size
    corner = tries[2:] * (size - crop_size) + np.array([[view.x1], [view.y1]], np.float32)
    edges = np.concatenate([corner, corner + crop_size]).round()
    width, height = edges[2:] - edges[:2]
    shaped = (width <= 2 * height) & (height <= 2 * width)
    iou = pairwise_iou(torch.from_numpy(boxes), torch.from_numpy(edges).T).numpy()
    enough = iou >= np.array(min_ious, np.float32).repeat(CROP_TRIES)
    good = shaped & (enough & _holds(edges.T, boxes).T).any(axis=0)
    first = int(good.argmax())
    return View(*edges[:, first].tolist()) if good[first] else view


def _option(choice: float) -> float | None:
    """The option that a uniform draw from [0, 1) selects."""
    return MIN_IOUS[int(choice * len(MIN_IOUS))]


def _holds(views: Array | NDArray[np.float64], boxes: Array) -> NDArray[np.bool_]:
    """Whether views contain the centres of boxes; xyxy [N, 4] and [M, 4] to bool [N, M]."""
    # By box and view, as views may be many: NumPy is faster along a long last axis.
    x1, y1, x2, y2 = views.T
    x, y = (boxes[:, :2] + boxes[:, 2:]).T[:, :, None] / 2
    held: NDArray[np.bool_] = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    return held.T
