"""SSD's geometric augmentation: what part of an image is sampled, and which objects stay in it."""

import random

import pytest
import torch
from default_params import augment_params
from torchvision import tv_tensors
from torchvision.transforms import v2

import ssd.loading.augment
from ssd.boxes import pairwise_iou
from ssd.loading.augment import CROP_TRIES, MIN_IOUS, objects_in_view, sample_view
from ssd.loading.view import View
from ssd.params import AugmentParams
from ssd.structures import Objects

BOXES = torch.tensor([[20.0, 30.0, 90.0, 120.0], [150.0, 40.0, 180.0, 70.0]])
ALWAYS_CROP = augment_params(crop=1.0)

# Objects in images of 150 x 200.
LAYOUTS = {
    "two small objects": BOXES.tolist(),
    "a large and a small object": [[5.0, 5.0, 190.0, 145.0], [150.0, 40.0, 180.0, 70.0]],
    "a thin object": [[90.0, 20.0, 110.0, 140.0]],
    "as after zoom-out": [[110.0, 70.0, 130.0, 85.0], [100.0, 90.0, 140.0, 125.0]],
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objects_of(boxes: torch.Tensor) -> Objects:
    num_objects = len(boxes)
    return Objects(boxes, torch.arange(1, num_objects + 1), torch.zeros(num_objects, dtype=torch.bool))


def kept_in(boxes: torch.Tensor, view: View) -> list[int]:
    """Rows of the boxes that stay."""
    return [label - 1 for label in objects_in_view(objects_of(boxes), view).labels.tolist()]


def view_of(
    height: int, width: int, boxes: torch.Tensor, augment: AugmentParams, source: torch.Generator
) -> View:
    return sample_view(height, width, objects_of(boxes), augment, source)


def test_nothing_happens_when_every_probability_is_zero() -> None:
    view = view_of(150, 200, BOXES, augment_params(), generator())
    assert view == View(0, 0, 200, 150)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    augment = augment_params(flip=0.5, zoom_out=0.5, crop=0.9)
    views = [view_of(150, 200, BOXES, augment, generator(seed)) for seed in (1, 1, 3)]
    assert views[0] == views[1] != views[2]


def test_zoom_out_holds_the_image_and_keeps_its_shape() -> None:
    for seed in range(50):
        view = view_of(150, 200, BOXES, augment_params(zoom_out=1.0), generator(seed))
        assert view.x1 <= 0 and view.y1 <= 0 and view.x2 >= 199 and view.y2 >= 149
        assert (view.x2 - view.x1) / (view.y2 - view.y1) == pytest.approx(200 / 150, rel=0.01)
        assert 200 <= view.x2 - view.x1 <= 4 * 200


def test_crops_obey_the_paper() -> None:
    num_crops = 0
    for seed in range(300):
        view = view_of(150, 200, BOXES, ALWAYS_CROP, generator(seed))
        width, height = view.x2 - view.x1, view.y2 - view.y1
        if (width, height) == (200, 150):
            continue
        num_crops += 1
        assert view.x1 >= -1e-3 and view.x2 <= 200 + 1e-3 and view.y1 >= -1e-3 and view.y2 <= 150 + 1e-3
        assert width >= 0.3 * 200 - 1 and height >= 0.3 * 150 - 1
        assert 0.5 - 1e-6 <= width / height <= 2 + 1e-6
        assert kept_in(BOXES, view)
        assert pairwise_iou(torch.tensor([[view.x1, view.y1, view.x2, view.y2]]), BOXES).max() > 0
    assert num_crops > 150


@pytest.mark.parametrize("min_iou", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_crops_overlap_an_object_that_they_hold(min_iou: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssd.loading.augment, "MIN_IOUS", (min_iou,))
    boxes = torch.tensor([[5.0, 5.0, 190.0, 145.0], [150.0, 40.0, 180.0, 70.0]])
    views = [view_of(150, 200, boxes, ALWAYS_CROP, generator(seed)) for seed in range(60)]
    crops = [view for view in views if view != View(0, 0, 200, 150)]
    assert crops
    for crop in crops:
        iou = pairwise_iou(torch.tensor([[crop.x1, crop.y1, crop.x2, crop.y2]]), boxes)[0]
        assert iou[kept_in(boxes, crop)].max() >= min_iou - 1e-6


def test_crops_are_spread_as_by_trying_one_after_the_other() -> None:
    """The authors' procedure, try by try, gives the same share of crops, of the same mean sizes."""
    source = random.Random(0)
    sampled = [view_of(150, 200, BOXES, ALWAYS_CROP, generator(seed)) for seed in range(3000)]
    tried = [one_after_the_other(150, 200, BOXES, source) for _ in range(3000)]
    for statistic in (
        lambda v: v == View(0, 0, 200, 150),
        lambda v: (v.x2 - v.x1) / 200,
        lambda v: (v.y2 - v.y1) / 150,
        lambda v: v.x1 / 200,
        lambda v: v.y1 / 150,
    ):
        mean, expected = (sum(map(statistic, views)) / 3000 for views in (sampled, tried))
        assert mean == pytest.approx(expected, abs=0.025)


def share_of_whole_images(views: list[View]) -> float:
    return sum(view == View(0, 0, 200, 150) for view in views) / len(views)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_share_of_whole_images_is_that_of_the_authors_rule(name: str) -> None:
    """Within 0.05: three standard deviations of the difference of two shares of 1500 samples."""
    boxes, source = torch.tensor(LAYOUTS[name]), random.Random(1)
    sampled = [view_of(150, 200, boxes, ALWAYS_CROP, generator(seed)) for seed in range(1500)]
    tried = [one_after_the_other(150, 200, boxes, source) for _ in range(1500)]
    assert share_of_whole_images(sampled) == pytest.approx(share_of_whole_images(tried), abs=0.05)


def test_the_share_of_whole_images_is_that_of_torchvision() -> None:
    """Within 0.08: three standard deviations of the share of 300 samples of its transform."""
    boxes = torch.tensor(LAYOUTS["two small objects"])
    crop = v2.RandomIoUCrop(trials=CROP_TRIES)
    inputs = [
        torch.zeros(3, 150, 200),
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(150, 200)),  # type: ignore[call-overload]
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = sum(crop.make_params(inputs) == {} for _ in range(300)) / 300
    sampled = [view_of(150, 200, boxes, ALWAYS_CROP, generator(seed)) for seed in range(2000)]
    assert share_of_whole_images(sampled) == pytest.approx(whole, abs=0.08)


def test_where_no_crop_fits_the_image_stays_whole() -> None:
    """Of a panorama, no crop of the allowed shapes has 0.3 or more of each side."""
    boxes = torch.tensor([[700.0, 10.0, 730.0, 40.0]])
    views = {view_of(50, 1500, boxes, ALWAYS_CROP, generator(seed)) for seed in range(20)}
    assert views == {View(0, 0, 1500, 50)}


def one_after_the_other(height: int, width: int, boxes: torch.Tensor, source: random.Random) -> View:
    """An option is drawn until one is the original image or has a crop that fits among its tries."""
    objects = boxes.tolist()
    while (min_iou := source.choice(MIN_IOUS)) is not None:
        for _ in range(CROP_TRIES):
            w, h = width * source.uniform(0.3, 1), height * source.uniform(0.3, 1)
            x, y = source.uniform(0, width - w), source.uniform(0, height - h)
            view = View(round(x), round(y), round(x + w), round(y + h))
            if fits(view, objects, min_iou):
                return view
    return View(0, 0, width, height)


def fits(view: View, objects: list[list[float]], min_iou: float) -> bool:
    if not 0.5 <= (view.x2 - view.x1) / (view.y2 - view.y1) <= 2:
        return False
    for x1, y1, x2, y2 in objects:
        if view.x1 <= (x1 + x2) / 2 < view.x2 and view.y1 <= (y1 + y2) / 2 < view.y2:
            across, down = min(x2, view.x2) - max(x1, view.x1), min(y2, view.y2) - max(y1, view.y1)
            shared = max(across, 0) * max(down, 0)
            area = (x2 - x1) * (y2 - y1) + (view.x2 - view.x1) * (view.y2 - view.y1)
            if shared / (area - shared) >= min_iou:
                return True
    return False


def test_probabilities_are_those_of_the_params() -> None:
    augment = augment_params(flip=0.2, zoom_out=0.6, zoom_max=3.0, crop=1.0)
    views = [view_of(100, 100, BOXES[:0], augment, generator(s)) for s in range(2000)]
    zoomed = [view.x2 - view.x1 for view in views if view.x2 - view.x1 > 100]
    assert sum(view.flip for view in views) / 2000 == pytest.approx(0.2, abs=0.03)
    assert len(zoomed) / 2000 == pytest.approx(0.6, abs=0.04)
    assert sum(zoomed) / len(zoomed) == pytest.approx(200, abs=5), "ratios are uniform"


def test_objects_in_view_are_cut_to_the_view_and_keep_what_they_are() -> None:
    objects = Objects(BOXES, torch.tensor([4, 7]), torch.tensor([False, True]))
    assert torch.equal(objects_in_view(objects, View(0, 0, 200, 150)).labels, objects.labels)
    kept = objects_in_view(objects, View(100, 50, 200, 150))
    assert (kept.labels.tolist(), kept.ignored.tolist()) == ([7], [True])
    torch.testing.assert_close(kept.boxes, torch.tensor([[0.5, 0.0, 0.8, 0.2]]))
    assert objects_in_view(objects, View(0, 140, 10, 150)).boxes.shape == (0, 4)


def test_objects_stay_by_their_centre() -> None:
    assert kept_in(BOXES, View(50, 0, 200, 150)) == [0, 1]
    assert kept_in(BOXES, View(56, 0, 160, 150)) == []
    assert kept_in(BOXES, View(0, 0, 160, 150)) == [0]
    centred_on_edges = torch.tensor(
        [[40.0, 40, 60, 60], [140, 40, 160, 60], [90, -10, 110, 10], [90, 90, 110, 110]]
    )
    assert kept_in(centred_on_edges, View(50, 0, 150, 100)) == [0, 2]


def test_images_without_objects_are_not_cropped() -> None:
    view = view_of(150, 200, torch.zeros(0, 4), ALWAYS_CROP, generator())
    assert view == View(0, 0, 200, 150)


@pytest.mark.parametrize(("policy", "flips"), [("none", False), ("light", True)])
def test_without_a_policy_of_crops_only_flips_are_left(policy: str, flips: bool) -> None:
    augment = augment_params(policy, flip=1.0, zoom_out=1.0, crop=1.0, object_crop=1.0)
    for seed in range(20):
        assert view_of(60, 90, BOXES, augment, generator(seed)) == View(0, 0, 90, 60, flip=flips)


def test_the_policy_decides_between_the_crops_of_ssd_and_those_around_objects() -> None:
    far = objects_of(torch.tensor([[180.0, 130.0, 190.0, 140.0]]))
    zoomed, cropped = (
        sample_view(150, 200, far, augment_params(policy, zoom_out=1.0, object_crop=1.0), generator())
        for policy in ("ssd", "object_crop")
    )
    assert zoomed.x2 - zoomed.x1 > 200 > cropped.x2 - cropped.x1
