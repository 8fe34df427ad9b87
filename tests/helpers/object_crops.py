"""Settings, objects and views for the tests of crops around objects."""

import torch
from default_params import augment_params

from ssd.loading.augment import sample_view
from ssd.loading.view import View
from ssd.params import AugmentParams
from ssd.structures import Objects

CROP = augment_params(
    "object_crop",
    object_crop=0.5,
    resized_crop=0.3,
    object_min=1.5,
    object_max=6.0,
    crop_area=0.1,
    crop_ratio=2.0,
    target_visible=0.8,
    others_visible=0.4,
    crop_tries=20,
)


def changed(augment: AugmentParams, **changes: object) -> AugmentParams:
    return AugmentParams.model_validate(augment.model_dump() | changes)


AROUND = changed(CROP, object_crop=1.0, resized_crop=0.0)
RESIZED = changed(CROP, object_crop=0.0, resized_crop=1.0)
HEIGHT, WIDTH = 150, 200
WHOLE = View(0, 0, WIDTH, HEIGHT)
BOXES = torch.tensor([[20.0, 30.0, 50.0, 70.0], [150.0, 40.0, 162.0, 54.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objects_of(boxes: torch.Tensor, ignored: torch.Tensor | None = None) -> Objects:
    flags = torch.zeros(len(boxes), dtype=torch.bool) if ignored is None else ignored
    return Objects(boxes, torch.arange(1, len(boxes) + 1), flags)


def views_of(
    boxes: torch.Tensor, augment: AugmentParams, num_views: int, size: tuple[int, int]
) -> list[View]:
    return [sample_view(*size, objects_of(boxes), augment, generator(seed)) for seed in range(num_views)]


def share_by_hand(view: View, box: list[float]) -> float:
    across = max(min(view.x2, box[2]) - max(view.x1, box[0]), 0)
    down = max(min(view.y2, box[3]) - max(view.y1, box[1]), 0)
    return across * down / ((box[2] - box[0]) * (box[3] - box[1]))


def area_of(view: View) -> float:
    return (view.x2 - view.x1) * (view.y2 - view.y1)
