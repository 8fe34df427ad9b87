"""SSD's augmentation: what is sampled, and that the batched colour map equals its steps."""

import colorsys

import pytest
import torch

from ssd.boxes import pairwise_iou
from ssd.data.augment import LUMA, Geometry, Photometry, distort, sample_view, visible_objects
from ssd.data.geometry import View

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


def test_objects_stay_by_their_centre() -> None:
    assert visible_objects(BOXES, View(50, 0, 200, 150)).tolist() == [True, True]
    assert visible_objects(BOXES, View(56, 0, 160, 150)).tolist() == [False, False]
    assert visible_objects(BOXES, View(0, 0, 160, 150)).tolist() == [True, False]


def test_images_without_objects_are_not_cropped() -> None:
    view = sample_view(150, 200, torch.zeros(0, 4), Geometry(0, 0, 4, 1), generator())
    assert view == View(0, 0, 200, 150)


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
