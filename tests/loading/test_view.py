"""One resample an image: pixels and boxes go through the same map."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from ssd.loading.view import View, full_view, normalise_boxes, render, resample

FILL = torch.tensor([9, 9, 9], dtype=torch.uint8)


def picture(height: int, width: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    """A black image with one white box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 255
    return image


view = st.tuples(
    st.floats(-100, 60), st.floats(-100, 60), st.floats(150, 320), st.floats(150, 320), st.booleans()
)


@given(view)
@settings(max_examples=60, deadline=None)
def test_the_white_pixels_are_where_the_box_is(corners: tuple[float, float, float, float, bool]) -> None:
    box = (70, 80, 130, 120)
    window = View(*corners)
    rendered = render(picture(200, 240, box), window, 128, FILL)[0]
    x1, y1, x2, y2 = (normalise_boxes(torch.tensor([box], dtype=torch.float32), window)[0] * 128).tolist()
    ys, xs = np.nonzero((rendered > 127).numpy())
    found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert found == pytest.approx([x1, y1, x2, y2], abs=1.6)


def test_the_whole_image_is_pillow_s_resize() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 90, 140), dtype=torch.uint8, generator=generator)
    rendered = render(image, full_view(90, 140), 64, FILL)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 64), Image.Resampling.BILINEAR)
    difference = rendered.permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_the_layout_of_the_memory_does_not_matter(flip: bool) -> None:
    planes = torch.randint(0, 256, (3, 90, 140), dtype=torch.uint8)
    pixels = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for view in (View(0, 0, 140, 90, flip), View(20, 10, 100, 60, flip), View(-50, -20, 200, 300, flip)):
        assert torch.equal(render(planes, view, 64, FILL), render(pixels, view, 64, FILL))
    expected = F.interpolate(planes[None], (64, 64), mode="bilinear", antialias=True)[0]
    assert torch.equal(render(pixels, full_view(90, 140), 64, FILL), expected)


def test_a_resampled_part_belongs_where_it_is_seen() -> None:
    """A canvas that is not square, shown from a view that reaches out of the image on two sides."""
    image = torch.full((3, 100, 100), 200, dtype=torch.uint8)
    part, top, left = resample(image, View(-50, 20, 150, 140), 60, 40)
    assert (part.shape, top, left) == ((3, 40, 20), 0, 10)
    part, top, left = resample(image, View(-150, 20, 150, 140, flip=True), 60, 60)
    assert (part.shape, top, left) == ((3, 40, 20), 0, 10)
    assert resample(image, View(50, 0, 150, 100, flip=True), 10, 10)[2] == 5


def test_flip_mirrors_pixels_and_boxes() -> None:
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    plain, flipped = View(5, 5, 60, 45), View(5, 5, 60, 45, flip=True)
    assert torch.equal(render(image, flipped, 32, FILL), render(image, plain, 32, FILL).flip(-1))
    boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0]])
    x1, y1, x2, y2 = normalise_boxes(boxes, plain)[0].tolist()
    assert normalise_boxes(boxes, flipped)[0].tolist() == pytest.approx([1 - x2, y1, 1 - x1, y2])


def test_zoom_out_shows_the_canvas_around_the_image() -> None:
    image = torch.full((3, 100, 100), 200, dtype=torch.uint8)
    rendered = render(image, View(-100, -100, 200, 200), 60, FILL)
    assert (rendered[:, 20:40, 20:40] == 200).all()
    assert (rendered == 200).sum() == 3 * 20 * 20
    assert (rendered == 9).sum() == 3 * (60 * 60 - 20 * 20)


def test_boxes_are_clipped_to_the_view() -> None:
    mapped = normalise_boxes(torch.tensor([[0.0, 0.0, 100.0, 100.0]]), View(50, 50, 150, 150))
    assert mapped.tolist() == [[0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2000, 3)])
def test_thin_and_tiny_images_render(size: tuple[int, int]) -> None:
    image = torch.zeros(3, *size, dtype=torch.uint8)
    assert render(image, full_view(*size), 64, FILL).shape == (3, 64, 64)
    assert render(image, View(-1000, -1000, 3000, 3000), 64, FILL).shape == (3, 64, 64)
