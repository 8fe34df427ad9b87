"""SSD's augmentation: what is sampled, and that the batched colour map equals its steps."""

import colorsys
import random

import pytest
import torch

import ssd.loading.augment
from ssd.boxes import pairwise_iou
from ssd.loading.augment import (
    CROP_TRIES,
    LUMA,
    MIN_IOUS,
    Geometry,
    Photometry,
    distort,
    sample_view,
    seen,
    visible_objects,
)
from ssd.loading.dataset import MEAN, STD, normalise
from ssd.loading.tensor_file import Objects
from ssd.loading.view import View

BOXES = torch.tensor([[20.0, 30.0, 90.0, 120.0], [150.0, 40.0, 180.0, 70.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_happens_when_every_probability_is_zero() -> None:
    view = sample_view(150, 200, BOXES, Geometry(0, 0, 4, 0), generator())
    assert view == View(0, 0, 200, 150)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    geometry = Geometry(0.5, 0.5, 4, 0.9)
    views = [sample_view(150, 200, BOXES, geometry, generator(seed)) for seed in (1, 1, 3)]
    assert views[0] == views[1] != views[2]


def test_zoom_out_holds_the_image_and_keeps_its_shape() -> None:
    for seed in range(50):
        view = sample_view(150, 200, BOXES, Geometry(0, 1, 4, 0), generator(seed))
        assert view.x1 <= 0 and view.y1 <= 0 and view.x2 >= 199 and view.y2 >= 149
        assert (view.x2 - view.x1) / (view.y2 - view.y1) == pytest.approx(200 / 150, rel=0.01)
        assert 200 <= view.x2 - view.x1 <= 4 * 200


def test_crops_obey_the_paper() -> None:
    num_crops = 0
    for seed in range(300):
        view = sample_view(150, 200, BOXES, Geometry(0, 0, 4, 1), generator(seed))
        width, height = view.x2 - view.x1, view.y2 - view.y1
        if (width, height) == (200, 150):
            continue
        num_crops += 1
        assert view.x1 >= -1e-3 and view.x2 <= 200 + 1e-3 and view.y1 >= -1e-3 and view.y2 <= 150 + 1e-3
        assert width >= 0.3 * 200 - 1 and height >= 0.3 * 150 - 1
        assert 0.5 - 1e-6 <= width / height <= 2 + 1e-6
        assert visible_objects(BOXES, view).any()
        assert pairwise_iou(torch.tensor([[view.x1, view.y1, view.x2, view.y2]]), BOXES).max() > 0
    assert num_crops > 150


@pytest.mark.parametrize("min_iou", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_crops_overlap_an_object_that_they_hold(min_iou: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssd.loading.augment, "MIN_IOUS", (min_iou,))
    boxes = torch.tensor([[5.0, 5.0, 190.0, 145.0], [150.0, 40.0, 180.0, 70.0]])
    views = [sample_view(150, 200, boxes, Geometry(0, 0, 4, 1), generator(seed)) for seed in range(60)]
    crops = [view for view in views if view != View(0, 0, 200, 150)]
    assert crops
    for crop in crops:
        iou = pairwise_iou(torch.tensor([[crop.x1, crop.y1, crop.x2, crop.y2]]), boxes)[0]
        assert iou[visible_objects(boxes, crop)].max() >= min_iou - 1e-6


def test_crops_are_spread_as_by_trying_one_after_the_other() -> None:
    """The paper's procedure, try by try, gives the same share of crops, of the same mean sizes."""
    source = random.Random(0)
    geometry = Geometry(0, 0, 4, 1)
    sampled = [sample_view(150, 200, BOXES, geometry, generator(seed)) for seed in range(3000)]
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


def one_after_the_other(height: int, width: int, boxes: torch.Tensor, source: random.Random) -> View:
    min_iou = source.choice(MIN_IOUS)
    for _ in range(0 if min_iou is None else CROP_TRIES):
        w, h = width * source.uniform(0.3, 1), height * source.uniform(0.3, 1)
        x, y = source.uniform(0, width - w), source.uniform(0, height - h)
        view = View(round(x), round(y), round(x + w), round(y + h))
        if not 0.5 <= (view.x2 - view.x1) / (view.y2 - view.y1) <= 2:
            continue
        for x1, y1, x2, y2 in boxes.tolist():
            held = view.x1 <= (x1 + x2) / 2 < view.x2 and view.y1 <= (y1 + y2) / 2 < view.y2
            across, down = min(x2, view.x2) - max(x1, view.x1), min(y2, view.y2) - max(y1, view.y1)
            shared = max(across, 0) * max(down, 0)
            area = (x2 - x1) * (y2 - y1) + (view.x2 - view.x1) * (view.y2 - view.y1)
            if held and shared / (area - shared) >= min_iou:
                return view
    return View(0, 0, width, height)


def test_probabilities_are_those_of_the_geometry() -> None:
    views = [sample_view(100, 100, BOXES[:0], Geometry(0.2, 0.6, 3, 1), generator(s)) for s in range(2000)]
    zoomed = [view.x2 - view.x1 for view in views if view.x2 - view.x1 > 100]
    assert sum(view.flip for view in views) / 2000 == pytest.approx(0.2, abs=0.03)
    assert len(zoomed) / 2000 == pytest.approx(0.6, abs=0.04)
    assert sum(zoomed) / len(zoomed) == pytest.approx(200, abs=5), "ratios are uniform"


def test_seen_objects_are_cut_to_the_view_and_keep_what_they_are() -> None:
    objects = Objects(BOXES, torch.tensor([4, 7]), torch.tensor([False, True]))
    assert torch.equal(seen(objects, View(0, 0, 200, 150)).labels, objects.labels)
    kept = seen(objects, View(100, 50, 200, 150))
    assert (kept.labels.tolist(), kept.ignored.tolist()) == ([7], [True])
    torch.testing.assert_close(kept.boxes, torch.tensor([[0.5, 0.0, 0.8, 0.2]]))
    assert seen(objects, View(0, 140, 10, 150)).boxes.shape == (0, 4)


def test_objects_stay_by_their_centre() -> None:
    assert visible_objects(BOXES, View(50, 0, 200, 150)).tolist() == [True, True]
    assert visible_objects(BOXES, View(56, 0, 160, 150)).tolist() == [False, False]
    assert visible_objects(BOXES, View(0, 0, 160, 150)).tolist() == [True, False]
    centred_on_edges = torch.tensor(
        [[40.0, 40, 60, 60], [140, 40, 160, 60], [90, -10, 110, 10], [90, 90, 110, 110]]
    )
    assert visible_objects(centred_on_edges, View(50, 0, 150, 100)).tolist() == [True, False, True, False]


def test_images_without_objects_are_not_cropped() -> None:
    view = sample_view(150, 200, torch.zeros(0, 4), Geometry(0, 0, 4, 1), generator())
    assert view == View(0, 0, 200, 150)


def step_by_step(images: torch.Tensor, photometry: Photometry, contrast_first: bool) -> torch.Tensor:
    """The distortion as its four steps, in float64, from the same draws."""
    source, size = generator(), len(images)

    def draw(strength: float) -> torch.Tensor:
        value = (torch.rand(size, generator=source) * 2 - 1) * strength
        return (value * (torch.rand(size, generator=source) < photometry.probability)).double()

    brightness, contrast = draw(photometry.brightness), draw(photometry.contrast)
    saturation, hue = draw(photometry.saturation), draw(photometry.hue)
    to_yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], dtype=torch.float64)
    out = []
    for number, image in enumerate(images.double()):

        def stretch(x: torch.Tensor, factor: torch.Tensor = 1 + contrast[number]) -> torch.Tensor:
            grey = (to_yiq[0] @ x.flatten(1)).mean()
            return (x - grey) * factor + grey

        x = image + brightness[number] * 255
        x = stretch(x) if contrast_first else x
        y, i, q = (to_yiq @ x.flatten(1)).view_as(x)
        turned = torch.polar(1 + saturation[number], 2 * torch.pi * hue[number]) * torch.complex(i, q)
        x = (to_yiq.inverse() @ torch.stack([y, turned.real, turned.imag]).flatten(1)).view_as(x)
        x = x if contrast_first else stretch(x)
        out.append(x.clamp(0, 255))
    return torch.stack(out)


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("size", [(40, 40), (5, 7), (1, 1), (300, 300)])
def test_the_distortion_is_that_of_its_steps(contrast_first: bool, size: tuple[int, int]) -> None:
    photometry = Photometry(0.7, 0.125, 0.5, 0.5, 0.1)
    images = torch.randint(0, 256, (6, 3, *size), generator=generator(1), dtype=torch.uint8)
    expected = step_by_step(images, photometry, contrast_first)
    out = distort(images, photometry, generator())
    torch.testing.assert_close(out.double(), expected, atol=5e-3, rtol=0)
    assert not torch.equal(out, images.float())


@pytest.mark.parametrize("probability", [0.0, 0.8])
def test_normalising_in_the_same_pass_is_normalising_after(probability: float) -> None:
    photometry = Photometry(probability, 0.3, 0.5, 0.5, 0.1)
    images = torch.randint(0, 256, (5, 3, 24, 24), generator=generator(1), dtype=torch.uint8)
    expected = normalise(distort(images, photometry, generator()))
    out = distort(images, photometry, generator(), MEAN, STD)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_type_and_layout_of_the_images_do_not_matter() -> None:
    images = torch.randint(0, 256, (5, 3, 24, 24), generator=generator(1), dtype=torch.uint8)
    photometry = Photometry(0.8, 0.1, 0.5, 0.5, 0.1)
    expected = distort(images, photometry, generator())
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(distort(channels_last, photometry, generator()), expected)
    floats = images.float()
    assert torch.equal(distort(floats, photometry, generator()), expected)
    assert torch.equal(floats, images.float()), "the images that came in are left as they were"


def test_no_distortion_leaves_the_images() -> None:
    images = torch.rand(3, 3, 8, 8) * 255
    assert torch.equal(distort(images, Photometry(0, 0.5, 0.5, 0.5, 0.5), generator()), images)
    torch.testing.assert_close(
        distort(images, Photometry(1, 0, 0, 0, 0), generator()), images, atol=1e-2, rtol=0
    )


def test_brightness_shifts_all_pixels_alike() -> None:
    images = torch.full((64, 3, 4, 4), 128.0)
    shift = distort(images, Photometry(1, 0.125, 0, 0, 0), generator()) - images
    assert shift.flatten(1).std(1).max() < 1e-2
    assert 20 < shift.abs().max() <= 0.125 * 255 + 1e-2


def test_contrast_turns_about_the_mean_grey() -> None:
    images = torch.rand(32, 3, 8, 8, generator=generator()) * 50 + 100
    out = distort(images, Photometry(1, 0, 0.5, 0, 0), generator())
    luma = torch.tensor(LUMA)
    torch.testing.assert_close(out.mean((2, 3)) @ luma, images.mean((2, 3)) @ luma, atol=0.05, rtol=0)
    ratio = out.flatten(1).std(1) / images.flatten(1).std(1)
    assert ratio.min() < 0.7 < 1.3 < ratio.max()


def test_saturation_and_hue_leave_grey_alone_and_keep_the_luma() -> None:
    photometry = Photometry(1, 0, 0, 0.5, 0.1)
    grey = torch.full((8, 3, 4, 4), 90.0)
    torch.testing.assert_close(distort(grey, photometry, generator()), grey, atol=0.05, rtol=0)
    colour = torch.rand(8, 3, 4, 4) * 60 + 100
    luma = torch.tensor(LUMA).view(3, 1, 1)
    out = distort(colour, photometry, generator())
    torch.testing.assert_close((out * luma).sum(1), (colour * luma).sum(1), atol=0.2, rtol=0)


def test_hue_turns_the_colour_circle() -> None:
    """Red turns towards yellow or magenta by about the share that was drawn."""
    red = torch.tensor([200.0, 100.0, 100.0]).view(1, 3, 1, 1).expand(64, 3, 2, 2)
    out = distort(red, Photometry(1, 0, 0, 0, 0.1), generator())
    hues = [colorsys.rgb_to_hsv(*(pixel / 255).tolist())[0] for pixel in out[:, :, 0, 0]]
    turns = [min(hue, 1 - hue) for hue in hues]
    assert 0.05 < max(turns) < 0.16


def test_each_image_has_a_draw_of_its_own() -> None:
    out = distort(torch.full((16, 3, 2, 2), 128.0), Photometry(1, 0.125, 0, 0, 0), generator())
    assert len(set(out[:, 0, 0, 0].tolist())) == 16
