"""Four images in one: every box is where the pixels of its object are."""

import pytest
import torch
from default_params import augment_params

from ssd.loading.mosaic import MIDDLE, mosaic
from ssd.structures import Objects

SIDE = 160
AS_IT_IS = augment_params()
ALL = augment_params(flip=0.5, zoom_out=0.5, crop=0.7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def part(number: int, height: int, width: int, boxes: list[list[int]]) -> tuple[torch.Tensor, Objects]:
    """A black image with objects of one colour each: the first channel says which label."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    labels = [10 * (4 * number + place + 1) for place in range(len(boxes))]
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        image[:, y1:y2, x1:x2] = torch.tensor([label, 255, 0], dtype=torch.uint8)[:, None, None]
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return image, Objects(corners, torch.tensor(labels, dtype=torch.int64), torch.zeros(len(boxes)) > 0)


PARTS = [
    part(0, 200, 300, [[20, 30, 120, 90], [180, 100, 290, 190]]),
    part(1, 300, 200, [[10, 10, 60, 280], [80, 140, 190, 160]]),
    part(2, 100, 100, [[0, 0, 45, 45], [50, 0, 100, 45], [0, 50, 45, 100], [55, 55, 60, 60]]),
    part(3, 240, 320, []),
]


@pytest.mark.parametrize("seed", range(40))
def test_boxes_lie_on_the_pixels_of_their_object(seed: int) -> None:
    canvas, objects = mosaic(PARTS, SIDE, ALL, generator(seed))
    assert canvas.shape == (3, SIDE, SIDE) and canvas.dtype == torch.uint8
    assert len(objects.boxes) == len(objects.labels) == len(objects.ignored)
    for box, label in zip((objects.boxes * SIDE).tolist(), objects.labels.tolist(), strict=True):
        # Resampling blends an object with black at its edges, and keeps its colour inside.
        rows, columns = torch.nonzero(
            (canvas[1] > 127) & (canvas[0].int() * 255 // canvas[1].clamp(1) == label)
        ).T
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found == pytest.approx(box, abs=2)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_are_never_degenerate_and_stay_in_their_quadrant(seed: int) -> None:
    source = generator(seed)
    boxes = torch.rand(200, 2, 2, generator=source).mul(200).sort(dim=1).values.flatten(1)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).amin(1) > 1]
    crowd = Objects(boxes, torch.arange(len(boxes)), torch.zeros(len(boxes)) > 0)
    _, objects = mosaic([(torch.zeros(3, 200, 200).byte(), crowd)] * 4, SIDE, ALL, source)
    assert len(objects.boxes) > 0
    assert objects.boxes.min() >= 0 and objects.boxes.max() <= 1
    assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
    low, high = MIDDLE
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2]).max() <= high + 1 / SIDE
    x1, x2 = objects.boxes[:, 0], objects.boxes[:, 2]
    assert ((x2 <= high + 1 / SIDE) | (x1 >= low - 1 / SIDE)).all()


def test_four_images_meet_in_the_middle() -> None:
    images = [torch.full((3, 50 + 10 * i, 90 - 10 * i), 40 * i + 40, dtype=torch.uint8) for i in range(4)]
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool())
    columns = set()
    for seed in range(30):
        canvas, _ = mosaic([(image, nothing) for image in images], SIDE, ALL, generator(seed))
        column, row = int((canvas[0, 0] == 40).sum()), int((canvas[0, :, 0] == 40).sum())
        for low, high in ((canvas[:, :row], (40, 80)), (canvas[:, row:], (120, 160))):
            assert (low[:, :, :column] == high[0]).all() and (low[:, :, column:] == high[1]).all()
        assert all(MIDDLE[0] * SIDE - 1 <= place <= MIDDLE[1] * SIDE + 1 for place in (row, column))
        columns.add(column)
    assert len(columns) > 15, "the centre is drawn anew each time"


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_images_are_mirrored_as_params_ask(flip: float) -> None:
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    image[:, :, 40:] = 200
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool())
    num_edges = 0
    for seed in range(10):
        canvas, _ = mosaic([(image, nothing)] * 4, SIDE, augment_params(flip=flip), generator(seed))
        steps = canvas[0, 0, : int(MIDDLE[0] * SIDE)].int().diff()
        assert (steps <= 0 if flip else steps >= 0).all()
        num_edges += int(steps.any())
    assert num_edges > 0


def test_objects_keep_their_shape() -> None:
    """What is square in square images is square in the mosaic, whatever the shape of the quadrants."""
    parts = [part(number, 200, 200, [[90, 90, 110, 110]]) for number in range(4)]
    boxes = torch.cat([mosaic(parts, 400, AS_IT_IS, generator(seed))[1].boxes for seed in range(30)])
    width, height = ((boxes[:, 2:] - boxes[:, :2]) * 400).T
    assert len(boxes) > 90
    assert ((width - height).abs() < 1.5).float().mean() > 0.9, "all but those cut by an edge"


def test_objects_are_dropped_by_their_centre_and_ignored_ones_stay_ignored() -> None:
    image, objects = PARTS[2]
    flagged = Objects(objects.boxes, objects.labels, objects.labels == 90)
    num_dropped = 0
    for seed in range(30):
        _, kept = mosaic([(image, flagged)] * 4, SIDE, AS_IT_IS, generator(seed))
        assert torch.equal(kept.ignored, kept.labels == 90)
        num_dropped += 16 - len(kept.labels)
    assert 0 < num_dropped < 30 * 8


def test_the_seed_decides() -> None:
    first, again, other = (mosaic(PARTS, SIDE, ALL, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1].boxes, again[1].boxes)
    assert not torch.equal(first[0], other[0])
