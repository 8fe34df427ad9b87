"""Crops around objects: what they hold, how they are spread, and that no sample loses all its objects."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from object_crops import (
    AROUND,
    BOXES,
    CROP,
    HEIGHT,
    RESIZED,
    WHOLE,
    WIDTH,
    area_of,
    changed,
    generator,
    objects_of,
    share_by_hand,
    views_of,
)
from torchvision.io import encode_png
from torchvision.transforms import RandomResizedCrop

import ssd.loading.mosaic
from ssd.loading.augment import objects_in_view, sample_view
from ssd.loading.dataset import DetectionDataset, SampleKey
from ssd.loading.mosaic import mosaic
from ssd.loading.object_crop import choose, crop_view, visible_share
from ssd.loading.tensor_file import TensorFile
from ssd.loading.view import View
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

# Objects of every awkward kind in an image of 150 x 200; together and alone.
AWKWARD = {
    "thin and high": [100.3, 0.0, 101.5, 150.0],
    "thin and wide": [0.0, 149.0, 200.0, 150.0],
    "a pixel": [77.0, 33.0, 78.0, 34.0],
    "less than a pixel": [77.4, 33.2, 77.9, 33.6],
    "the whole image": [0.0, 0.0, 200.0, 150.0],
    "almost the whole image": [1.5, 2.5, 199.0, 148.0],
    "at the top left": [0.0, 0.0, 12.0, 9.0],
    "at the bottom right": [190.7, 120.1, 200.0, 150.0],
    "the left half": [0.0, 0.0, 100.0, 150.0],
}


SETTINGS = {
    "as shipped": CROP,
    "only around objects": AROUND,
    "only resized": RESIZED,
    "others need more than the target": changed(AROUND, target_visible=0.05, others_visible=0.9),
    "others may vanish": changed(CROP, others_visible=0.0, target_visible=0.01),
    "all must be visible": changed(CROP, others_visible=1.0, target_visible=1.0),
    "one try": changed(CROP, crop_tries=1),
    "shaped as the box": changed(AROUND, object_shape="box", object_min=1.0),
    "any size": changed(CROP, crop_area=0.001, crop_ratio=20.0, object_min=1.0),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_sample_loses_all_objects_that_count(name: str) -> None:
    """Whatever they look like, and however many there are that do not count."""
    augment, source = changed(SETTINGS[name], flip=0.5), generator(1)
    awkward = torch.tensor(list(AWKWARD.values()))
    for seed in range(400):
        size = int(torch.randint(1, 4, (), generator=source))
        boxes = awkward[torch.randperm(len(awkward), generator=source)[:size]]
        ignored = torch.rand(size, generator=source) < 0.4
        if ignored.all():
            ignored[0] = False
        objects = objects_of(boxes, ignored)
        view = sample_view(HEIGHT, WIDTH, objects, augment, generator(seed))
        assert 0 <= view.x1 < view.x2 <= WIDTH and 0 <= view.y1 < view.y2 <= HEIGHT
        assert all(float(edge).is_integer() for edge in (view.x1, view.y1, view.x2, view.y2))
        kept = objects_in_view(objects, view, augment)
        assert not kept.ignored.all() and len(kept.labels) > 0
        assert (kept.boxes[:, 2:] > kept.boxes[:, :2]).all(), "of no size, nothing can be learned"
        assert kept.boxes.min() >= 0 and kept.boxes.max() <= 1


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("size", [(150, 200), (200, 1200), (900, 200), (150, 320)])
def test_a_crop_around_an_object_is_bounded_and_shows_it(name: str, size: tuple[int, int]) -> None:
    """In images of all shapes, panoramas too, in which the object stands at the same place."""
    height, width = size
    boxes = torch.tensor([AWKWARD[name]])
    num_crops = 0
    for view in views_of(boxes, AROUND, 100, size):
        if area_of(view) == height * width:
            continue
        num_crops += 1
        across, down = view.x2 - view.x1, view.y2 - view.y1
        assert view.x1 >= 0 and view.x2 <= width and view.y1 >= 0 and view.y2 <= height
        # Within half a pixel, for sides are whole pixels.
        assert across <= 2 * (down + 0.5) + 0.5 and down <= 2 * (across + 0.5) + 0.5
        assert (across + 0.5) * (down + 0.5) >= 0.1 * height * width
        assert share_by_hand(view, boxes[0].tolist()) >= 0.8
    if "pixel" in name or "at the" in name:
        assert num_crops == 100, "small objects can always be cropped"


def test_the_side_is_a_log_uniform_multiple_of_the_longer_side_of_the_object() -> None:
    boxes = torch.tensor([[400.0, 300.0, 440.0, 310.0]])
    small = changed(AROUND, crop_area=1e-6)
    sides = [math.sqrt(area_of(view)) / 40 for view in views_of(boxes, small, 1500, (600, 900))]
    assert 1.45 < min(sides) < 1.6 and 5.8 < max(sides) < 6.05
    logs = np.log(np.array(sides) / 1.5) / math.log(4)
    assert np.quantile(logs, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    ratios = [math.log2((v.x2 - v.x1) / (v.y2 - v.y1)) for v in views_of(boxes, small, 1500, (600, 900))]
    assert np.quantile(ratios, [0.25, 0.5, 0.75]) == pytest.approx([-0.5, 0, 0.5], abs=0.08)


def test_a_tiny_object_s_crop_is_as_small_as_allowed() -> None:
    boxes = torch.tensor([[100.0, 70.0, 103.0, 73.0]])
    areas = [area_of(view) / (HEIGHT * WIDTH) for view in views_of(boxes, AROUND, 100, (HEIGHT, WIDTH))]
    assert min(areas) > 0.09 and max(areas) < 0.11


def test_an_object_is_anywhere_in_its_crops() -> None:
    boxes = torch.tensor([[400.0, 300.0, 440.0, 340.0]])
    views = views_of(boxes, changed(AROUND, crop_area=1e-6, crop_ratio=1.0), 1500, (600, 900))
    places = np.array([((420 - v.x1) / (v.x2 - v.x1), (320 - v.y1) / (v.y2 - v.y1)) for v in views])
    assert np.abs(places.mean(axis=0) - 0.5).max() < 0.02
    assert places.min() < 0.1 and places.max() > 0.9
    visible = [share_by_hand(view, boxes[0].tolist()) for view in views]
    assert min(visible) < 0.85 and sum(share == 1 for share in visible) > 500


def test_an_object_as_large_as_the_image_leaves_it_whole() -> None:
    boxes = torch.tensor([AWKWARD["the whole image"]])
    assert set(views_of(boxes, AROUND, 50, (HEIGHT, WIDTH))) == {WHOLE}


def test_larger_objects_are_chosen_more_often_by_the_root_of_their_area() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 40, 90], [5, 5, 25, 25]], np.float32)
    draws = torch.rand(6000, generator=generator()).tolist()
    rows = np.bincount([choose(boxes, draw) for draw in draws], minlength=3) / 6000
    assert rows == pytest.approx(np.array([10, 60, 20]) / 90, abs=0.02)
    assert choose(boxes, 0.0) == 0 and choose(boxes, 1.0) == 2


def test_ignored_objects_are_not_chosen() -> None:
    """The only one that counts is in every crop, whatever else there is."""
    ignored = torch.tensor([True, False])
    for seed in range(100):
        view = sample_view(HEIGHT, WIDTH, objects_of(BOXES, ignored), AROUND, generator(seed))
        assert share_by_hand(view, BOXES[1].tolist()) >= 0.8
    for seed in range(100):
        view = sample_view(HEIGHT, WIDTH, objects_of(BOXES, ignored), RESIZED, generator(seed))
        assert share_by_hand(view, BOXES[1].tolist()) >= 0.4


@pytest.mark.parametrize("size", [(150, 200), (120, 500)])
@pytest.mark.parametrize(("area", "ratio"), [(0.08, 4 / 3), (0.1, 2.0)])
def test_resized_crops_are_spread_as_torchvision_s(size: tuple[int, int], area: float, ratio: float) -> None:
    """The quantiles of area, aspect ratio and place, by its own defaults and by others."""
    settings = changed(RESIZED, crop_area=area, crop_ratio=ratio, crop_tries=200)
    crops = [
        (v.y1, v.x1, v.y2 - v.y1, v.x2 - v.x1) for v in views_of(torch.zeros(0, 4), settings, 1500, size)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image, scale = torch.zeros(3, *size), [area, 1.0]
        others = [RandomResizedCrop.get_params(image, scale, [1 / ratio, ratio]) for _ in range(1500)]
    found, expected = (np.array(rows, np.float64).T for rows in (crops, others))
    # Where no try fits, torchvision falls back to the largest crop, in the middle.
    expected = expected[:, expected[2:].prod(0) < 0.99 * expected[2:].prod(0).max()]
    levels = np.linspace(0.05, 0.95, 10)
    for statistic in (
        lambda y, x, h, w: h * w / (size[0] * size[1]),
        lambda y, x, h, w: np.log(w / h) / np.log(ratio) / 2,
        lambda y, x, h, w: y / size[0],
        lambda y, x, h, w: x / size[1],
    ):
        ours, theirs = (np.quantile(statistic(*rows), levels) for rows in (found, expected))
        assert ours == pytest.approx(theirs, abs=0.06)


def test_resized_crops_keep_an_object() -> None:
    for view in views_of(BOXES, RESIZED, 200, (HEIGHT, WIDTH)):
        assert max(share_by_hand(view, box) for box in BOXES.tolist()) >= 0.4


@pytest.mark.parametrize("ignored", [None, [True, True]])
def test_without_objects_that_count_there_is_the_whole_image_or_a_resized_crop(
    ignored: list[bool] | None,
) -> None:
    boxes = torch.zeros(0, 4) if ignored is None else BOXES
    flags = torch.zeros(0, dtype=torch.bool) if ignored is None else torch.tensor(ignored)
    objects = objects_of(boxes, flags)
    views = [sample_view(HEIGHT, WIDTH, objects, CROP, generator(seed)) for seed in range(1000)]
    assert sum(view == WHOLE for view in views) / 1000 == pytest.approx(0.7, abs=0.05)
    assert sample_view(HEIGHT, WIDTH, objects, AROUND, generator()) == WHOLE


def test_each_kind_of_view_comes_as_often_as_the_settings_say() -> None:
    views = views_of(BOXES, changed(CROP, object_crop=0.2, resized_crop=0.5), 2000, (HEIGHT, WIDTH))
    assert sum(view == WHOLE for view in views) / 2000 == pytest.approx(0.3, abs=0.03)
    assert (
        views_of(BOXES, changed(CROP, object_crop=0.0, resized_crop=0.0), 50, (HEIGHT, WIDTH)) == [WHOLE] * 50
    )


def test_where_no_crop_of_the_allowed_shapes_is_large_enough_the_image_stays_whole() -> None:
    panorama = changed(CROP, object_crop=0.5, resized_crop=0.5, crop_area=0.5, crop_ratio=1.5)
    views = views_of(torch.tensor([[10.0, 10.0, 40.0, 40.0]]), panorama, 50, (60, 600))
    assert set(views) == {View(0, 0, 600, 60)}


def test_after_the_last_try_the_image_stays_whole() -> None:
    """An object that must be in view as a whole, and that no square inside the image can hold."""
    boxes = torch.tensor([[0.0, 70.0, 200.0, 71.0]])
    strict = changed(AROUND, target_visible=1.0, crop_ratio=1.0)
    assert set(views_of(boxes, strict, 20, (HEIGHT, WIDTH))) == {WHOLE}


def test_other_objects_stay_by_how_much_of_them_is_in_view() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [90, 0, 100, 10], [96, 0, 106, 10], [95.9, 0, 105.9, 10]])
    view = View(4, 0, 100, 50)
    by_share = objects_in_view(objects_of(boxes), view, CROP)
    assert by_share.labels.tolist() == [1, 2, 3, 4], "60, 100, 40 and 41 percent"
    assert objects_in_view(objects_of(boxes), replace(view, x1=7), CROP).labels.tolist() == [2, 3, 4]
    assert objects_in_view(objects_of(boxes), replace(view, x2=99), CROP).labels.tolist() == [1, 2]
    by_centre = objects_in_view(objects_of(boxes), view)
    assert by_centre.labels.tolist() == [1, 2], "without crops around objects"


def test_the_visible_share_is_that_of_the_pixels() -> None:
    source = np.random.default_rng(0)
    corners = source.integers(0, 40, (30, 2, 2))
    xyxy = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
    views, boxes = xyxy[:10].astype(np.float64), xyxy[10:].astype(np.float32)
    share = visible_share(views, boxes)
    for row, (x1, y1, x2, y2) in enumerate(xyxy[:10]):
        pixels = np.zeros((41, 41))
        pixels[y1:y2, x1:x2] = 1
        counted = [pixels[top:bottom, left:right].mean() for left, top, right, bottom in xyxy[10:]]
        np.testing.assert_allclose(share[row], counted, atol=1e-12)


def test_what_is_inside_a_view_is_visible_to_the_last_bit() -> None:
    """A setting of 1 asks for exactly that, and boxes that were shrunk with their image are not whole."""
    corners = np.random.default_rng(0).uniform(0, 200, (500, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    assert (visible_share(np.array([[0.0, 0.0, 200.0, 200.0]]), boxes) == 1).all()


def test_the_seed_decides_and_the_data_do_not_decide_the_number_of_draws() -> None:
    first, again, other = (
        sample_view(HEIGHT, WIDTH, objects_of(BOXES), CROP, generator(seed)) for seed in (1, 1, 5)
    )
    assert first == again != other
    after = set()
    for boxes in (BOXES, BOXES[:0], BOXES[:1], torch.tensor([AWKWARD["the whole image"]])):
        source = generator(3)
        crop_view(HEIGHT, WIDTH, boxes.numpy(), np.ones(len(boxes), np.bool_), CROP, source)
        after.add(float(torch.rand((), generator=source)))
    assert len(after) == 1


@pytest.fixture
def bars(tmp_path: Path) -> TensorFile:
    """Wide images: with one long object, with two thin ones of which the second is ignored, with none."""
    image = encode_png(torch.full((3, 60, 240), 90, dtype=torch.uint8)).numpy().tobytes()
    boxes = [[(0.0, 0.0, 240.0, 60.0)], [(2.0, 5.0, 8.0, 55.0), (100.0, 5.0, 108.0, 55.0)], []]
    samples = [
        AnnotatedImage(
            str(i), image, (60, 240), rows, [1] * len(rows), [False, True][: len(rows)], [False] * len(rows)
        )
        for i, rows in enumerate(boxes)
    ]
    write_tensor_file(tmp_path / "train.safetensors", samples, ["bar"])
    return TensorFile(tmp_path / "train.safetensors")


def test_a_mosaic_that_lost_all_objects_is_not_shown(bars: TensorFile) -> None:
    """A quadrant shows but a part of a view, and may miss the only objects; the image alone does not."""
    dataset = DetectionDataset(bars, 32, changed(CROP, others_visible=0.9, mosaic=1.0))
    num_mosaics = 0
    for epoch in range(60):
        for index in (0, 1):
            sample = dataset[SampleKey(epoch, index, 32)]
            assert len(sample.target.labels) > 0 and not sample.target.ignored.all()
            num_mosaics += sample.view is None
        assert dataset[SampleKey(epoch, 2, 32)].image.shape == (3, 32, 32)
    assert 10 < num_mosaics < 110


def test_a_sample_has_the_objects_of_its_view(bars: TensorFile) -> None:
    augment = changed(RESIZED, others_visible=0.05)
    dataset = DetectionDataset(bars, 32, augment)
    by_centre = 0
    for epoch in range(60):
        sample = dataset[SampleKey(epoch, 1, 32)]
        assert sample.view is not None
        expected = objects_in_view(bars.objects(1), sample.view, augment)
        assert torch.equal(sample.target.boxes, expected.boxes)
        by_centre += len(objects_in_view(bars.objects(1), sample.view).labels) != len(expected.labels)
    assert by_centre > 0, "the rules differ for some views"


def test_images_of_a_mosaic_are_cropped_around_objects_that_count(
    bars: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []

    def sample_and_note(*arguments: Any) -> View:
        views.append(sample_view(*arguments))
        return views[-1]

    monkeypatch.setattr(ssd.loading.mosaic, "sample_view", sample_and_note)
    part = torch.zeros(3, 60, 240, dtype=torch.uint8), bars.objects(1)
    for seed in range(10):
        mosaic([part] * 4, 32, changed(AROUND, object_max=1.5), generator(seed))
    assert len(views) == 40
    assert all(share_by_hand(view, bars.objects(1).boxes[0].tolist()) >= 0.8 for view in views)
