"""Geometric augmentation, sampled on box coordinates: zoom-out, IoU crop and flip (SSD, section 2.2).

Crops around objects, which SSD does not have, are in ssd/loading/object_crop.py; colour jitter and mixup of
whole batches are in ssd/loading/batch_augment.py.
"""

from dataclasses import replace

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
        min_iou = MIN_IOUS[int(choice * len(MIN_IOUS))]
        if crops < augment.crop and min_iou is not None and len(objects.boxes):
            view = _iou_crop(view, objects.boxes.numpy(), min_iou, generator)
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


def _iou_crop(view: View, boxes: Array, min_iou: float, generator: Generator) -> View:
    """A crop of 0.3 to 1 of each side, aspect ratio 0.5 to 2, with `min_iou` or more to an object in it."""
    # All tries at once, in NumPy: torch takes three times as long on so few numbers.
    tries = torch.rand(CROP_TRIES, 4, generator=generator).numpy()
    size = np.array([view.x2 - view.x1, view.y2 - view.y1], np.float32)
    crop_size = (0.3 + 0.7 * tries[:, :2]) * size
    corner = tries[:, 2:] * (size - crop_size) + np.array([view.x1, view.y1], np.float32)
    crops = np.concatenate([corner, corner + crop_size], axis=1).round()
    width, height = (crops[:, 2:] - crops[:, :2]).T
    shaped = (width <= 2 * height) & (height <= 2 * width)
    iou = pairwise_iou(torch.from_numpy(crops), torch.from_numpy(boxes)).numpy()
    good = shaped & ((iou >= min_iou) & _holds(crops, boxes)).any(axis=1)
    first = int(good.argmax())
    return View(*crops[first].tolist()) if good[first] else view


def _holds(views: Array | NDArray[np.float64], boxes: Array) -> NDArray[np.bool_]:
    """Whether views contain the centres of boxes; xyxy [N, 4] and [M, 4] to bool [N, M]."""
    x1, y1, x2, y2 = views.T[:, :, None]
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    held: NDArray[np.bool_] = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    return held
