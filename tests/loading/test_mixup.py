"""Mixup: each image blended with the one before it, and the objects of both."""

import pytest
import torch

from ssd.loading.dataset import normalise
from ssd.loading.mixup import mixup
from ssd.matching import Targets


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int, num_rows: int = 3) -> tuple[torch.Tensor, Targets]:
    """Images that are 1 at their own pixel and 0 elsewhere; image i has i % (num_rows + 1) objects."""
    torch.manual_seed(size)
    images = torch.zeros(size, 3, size, size)
    images[range(size), :, range(size), range(size)] = 1
    num_objects = torch.arange(size) % (num_rows + 1)
    present = torch.arange(num_rows) < num_objects[:, None]
    boxes = torch.rand(size, num_rows, 4) * present[..., None]
    labels = torch.randint(1, 5, (size, num_rows)) * present
    return images.contiguous(memory_format=torch.channels_last), Targets(
        boxes, labels, present & (labels > 3)
    )


def weights(mixed: torch.Tensor) -> torch.Tensor:
    rows = range(len(mixed))
    return mixed[rows, 0, rows, rows]


def test_nothing_happens_without_luck() -> None:
    images, targets = batch(4)
    mixed, same = mixup(images, targets, 0.0, generator())
    assert mixed is images and same is targets


def test_each_image_is_blended_with_the_one_before_it() -> None:
    images, targets = batch(6)
    mixed, _ = mixup(images, targets, 1.0, generator())
    weight = weights(mixed)
    assert ((weight > 0) & (weight < 1)).all() and len(set(weight.tolist())) == 6
    for row in range(6):
        expected = weight[row] * images[row] + (1 - weight[row]) * images[row - 1]
        torch.testing.assert_close(mixed[row], expected)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert images.sum() == 6 * 3, "the images that came in are left as they were"


def test_objects_of_both_images_count_and_padding_stays_padding() -> None:
    images, targets = batch(6)
    _, both = mixup(images, targets, 1.0, generator())
    assert both.labels.shape == (6, 6) and both.boxes.shape == (6, 6, 4)
    for row in range(6):
        for field in ("boxes", "labels", "ignored"):
            own, other = getattr(targets, field)[row], getattr(targets, field)[row - 1]
            assert torch.equal(getattr(both, field)[row], torch.cat([own, other]))
    assert (both.labels > 0).sum() == 2 * (targets.labels > 0).sum()
    assert (both.boxes[both.labels == 0] == 0).all()


def test_batches_without_objects_mix_too() -> None:
    images, targets = batch(3, num_rows=0)
    assert mixup(images, targets, 1.0, generator())[1].labels.shape == (3, 0)


def test_images_may_be_normalised_before_or_after() -> None:
    images, targets = torch.rand(4, 3, 8, 8) * 255, batch(4)[1]
    before = mixup(normalise(images), targets, 1.0, generator())[0]
    after = normalise(mixup(images, targets, 1.0, generator())[0])
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_the_seed_decides() -> None:
    images, targets = batch(4)
    first, again, other = (mixup(images, targets, 1.0, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_probability_is_that_of_a_batch() -> None:
    images, targets = batch(2)
    source = generator()
    mixed = [mixup(images, targets, 0.3, source)[0] is not images for _ in range(1000)]
    assert sum(mixed) / 1000 == pytest.approx(0.3, abs=0.05)


def test_weights_are_drawn_from_beta() -> None:
    images = torch.cat([torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)]).repeat(10_000, 1, 1, 1)
    none = Targets(torch.zeros(20_000, 0, 4), torch.zeros(20_000, 0).long(), torch.zeros(20_000, 0).bool())
    drawn = mixup(images, none, 1.0, generator())[0][:, 0, 0, 0]
    torch.manual_seed(0)
    expected = torch.distributions.Beta(1.5, 1.5).sample((200_000,))
    points = torch.linspace(0.02, 0.98, 25)
    torch.testing.assert_close(drawn.quantile(points), expected.quantile(points), atol=0.01, rtol=0)
