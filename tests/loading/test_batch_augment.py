"""What is done to batches: colour jitter against its steps, normalisation, mixup."""

import colorsys
from collections import Counter
from itertools import permutations

import pytest
import torch
from default_params import augment_params
from torchvision.transforms.v2.functional import permute_channels

from ssd.loading.batch_augment import LUMA, augment_batch, distort, mixup, normalise
from ssd.params import AugmentParams
from ssd.structures import MEAN, STD, Targets

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""A mean and standard deviation that leave colours as they are."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jitter(
    photometric: float, brightness: float, contrast: float, saturation: float, hue: float
) -> AugmentParams:
    return augment_params(
        photometric=photometric, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
    )


def step_by_step(images: torch.Tensor, augment: AugmentParams, contrast_first: bool) -> torch.Tensor:
    """The distortion as its four steps, in float64, from the same draws."""
    source, size = generator(), len(images)

    def draw(strength: float) -> torch.Tensor:
        value = (torch.rand(size, generator=source) * 2 - 1) * strength
        return (value * (torch.rand(size, generator=source) < augment.photometric)).double()

    brightness, contrast = draw(augment.brightness), draw(augment.contrast)
    saturation, hue = draw(augment.saturation), draw(augment.hue)
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
    augment = jitter(0.7, 0.125, 0.5, 0.5, 0.1)
    images = torch.randint(0, 256, (6, 3, *size), generator=generator(1), dtype=torch.uint8)
    expected = step_by_step(images, augment, contrast_first)
    out = distort(images, augment, generator(), *PLAIN)
    torch.testing.assert_close(out.double(), expected, atol=5e-3, rtol=0)
    assert not torch.equal(out, images.float())


@pytest.mark.parametrize("probability", [0.0, 0.8])
def test_normalising_in_the_same_pass_is_normalising_after(probability: float) -> None:
    augment = jitter(probability, 0.3, 0.5, 0.5, 0.1)
    images = torch.randint(0, 256, (5, 3, 24, 24), generator=generator(1), dtype=torch.uint8)
    expected = normalise(distort(images, augment, generator(), *PLAIN))
    out = distort(images, augment, generator())
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_type_and_layout_of_the_images_do_not_matter() -> None:
    images = torch.randint(0, 256, (5, 3, 24, 24), generator=generator(1), dtype=torch.uint8)
    augment = jitter(0.8, 0.1, 0.5, 0.5, 0.1)
    expected = distort(images, augment, generator(), *PLAIN)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(distort(channels_last, augment, generator(), *PLAIN), expected)
    floats = images.float()
    assert torch.equal(distort(floats, augment, generator(), *PLAIN), expected)
    assert torch.equal(floats, images.float()), "the images that came in are left as they were"


@pytest.mark.parametrize("augment", [jitter(0, 0.5, 0.5, 0.5, 0.5), jitter(1, 0, 0, 0, 0)])
def test_no_distortion_leaves_the_images(augment: AugmentParams) -> None:
    images = torch.rand(3, 3, 8, 8) * 255
    torch.testing.assert_close(distort(images, augment, generator(), *PLAIN), images, atol=1e-2, rtol=0)


def test_brightness_shifts_all_pixels_alike() -> None:
    images = torch.full((64, 3, 4, 4), 128.0)
    shift = distort(images, jitter(1, 0.125, 0, 0, 0), generator(), *PLAIN) - images
    assert shift.flatten(1).std(1).max() < 1e-2
    assert 20 < shift.abs().max() <= 0.125 * 255 + 1e-2


def test_contrast_turns_about_the_mean_grey() -> None:
    images = torch.rand(32, 3, 8, 8, generator=generator()) * 50 + 100
    out = distort(images, jitter(1, 0, 0.5, 0, 0), generator(), *PLAIN)
    luma = torch.tensor(LUMA)
    torch.testing.assert_close(out.mean((2, 3)) @ luma, images.mean((2, 3)) @ luma, atol=0.05, rtol=0)
    ratio = out.flatten(1).std(1) / images.flatten(1).std(1)
    assert ratio.min() < 0.7 < 1.3 < ratio.max()


def test_saturation_and_hue_leave_grey_alone_and_keep_the_luma() -> None:
    augment = jitter(1, 0, 0, 0.5, 0.1)
    grey = torch.full((8, 3, 4, 4), 90.0)
    torch.testing.assert_close(distort(grey, augment, generator(), *PLAIN), grey, atol=0.05, rtol=0)
    colour = torch.rand(8, 3, 4, 4) * 60 + 100
    luma = torch.tensor(LUMA).view(3, 1, 1)
    out = distort(colour, augment, generator(), *PLAIN)
    torch.testing.assert_close((out * luma).sum(1), (colour * luma).sum(1), atol=0.2, rtol=0)


def test_hue_turns_the_colour_circle() -> None:
    """Red turns towards yellow or magenta by about the share that was drawn."""
    red = torch.tensor([200.0, 100.0, 100.0]).view(1, 3, 1, 1).expand(64, 3, 2, 2)
    out = distort(red, jitter(1, 0, 0, 0, 0.1), generator(), *PLAIN)
    hues = [colorsys.rgb_to_hsv(*(pixel / 255).tolist())[0] for pixel in out[:, :, 0, 0]]
    turns = [min(hue, 1 - hue) for hue in hues]
    assert 0.05 < max(turns) < 0.16


def channel_orders(images: torch.Tensor, augment: AugmentParams, seed: int) -> list[tuple[int, ...]]:
    """For each image of three distinct channels, which of them each channel of the result shows."""
    out = distort(images, augment, generator(seed), *PLAIN)
    gaps = (out[:, :, None] - images[:, None]).abs().amax((-1, -2))
    assert gaps.amin(2).max() < 1e-2, "each channel is one of the image's"
    return [tuple(row) for row in gaps.argmin(2).tolist()]


def test_channels_are_permuted_as_often_as_asked_and_all_six_orders_are_equally_probable() -> None:
    images = torch.rand(6000, 3, 2, 2, generator=generator(1)) * 255
    augment = augment_params("light", channel_shuffle=0.6)
    orders = Counter(channel_orders(images, augment, 0))
    assert len(orders) == 6
    expected = {order: 0.1 + 0.4 * (order == (0, 1, 2)) for order in orders}
    assert {order: count / 6000 for order, count in orders.items()} == pytest.approx(expected, abs=0.02)
    assert channel_orders(images[:100], augment, 0) != channel_orders(images[:100], augment, 1)


def test_channels_are_permuted_after_the_other_distortions_in_the_same_map() -> None:
    """Against a second pass per image: torchvision permutes the channels, then they are normalised."""
    images = torch.randint(0, 256, (32, 3, 9, 7), generator=generator(1), dtype=torch.uint8)
    strengths = {"photometric": 0.8, "brightness": 0.3, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}
    unpermuted = distort(images, augment_params(**strengths), generator(), *PLAIN)
    out = distort(images, augment_params(**strengths, channel_shuffle=1.0), generator())
    num_changed = 0
    for found, image in zip(out, unpermuted, strict=True):
        every = [normalise(permute_channels(image, list(order))[None])[0] for order in permutations(range(3))]
        gaps = [(found - one).abs().max().item() for one in every]
        assert min(gaps) < 1e-4
        num_changed += gaps[0] > 1e-4
    assert 20 < num_changed < 32


@pytest.mark.parametrize("photometric", [0.0, 0.5])
def test_a_batch_is_permuted_with_colour_jitter_and_without(photometric: float) -> None:
    images, targets = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), batch(8)[1]
    without = augment_params("light", photometric=photometric)
    shuffled = without.model_copy(update={"channel_shuffle": 1.0})
    pixels = [augment_batch(images, targets, augment, (0, 0, 0, 0))[0] for augment in (without, shuffled)]
    assert not torch.equal(*pixels)


def test_each_image_has_a_draw_of_its_own() -> None:
    out = distort(torch.full((16, 3, 2, 2), 128.0), jitter(1, 0.125, 0, 0, 0), generator())
    assert len(set(out[:, 0, 0, 0].tolist())) == 16


def test_normalised_images_have_imagenet_s_mean_at_zero() -> None:
    images = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    out = normalise(images)
    torch.testing.assert_close(out, torch.zeros_like(out), atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_normalising_leaves_the_images_that_came_in() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7)).float().contiguous(memory_format=torch.channels_last)
    before = images.clone()
    expected = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.equal(normalise(images), expected)
    assert torch.equal(images, before)


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


@pytest.mark.parametrize("policy", ["none", "light"])
def test_policy_none_only_normalises(policy: str) -> None:
    images, targets = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), batch(4)[1]
    augment = augment_params(policy, photometric=1.0, mixup=1.0)
    pixels, found = augment_batch(images, targets, augment, (0, 0, 0, 0))
    assert torch.equal(pixels, normalise(images)) == (policy == "none")
    assert (found is targets) == (policy == "none")


def test_the_key_decides_what_happens_to_a_batch() -> None:
    images, targets = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), batch(4)[1]
    augment = augment_params("light", photometric=0.5, mixup=0.5)
    keys = [(0, 0, index, 0) for index in range(8)]
    first, again = ([augment_batch(images, targets, augment, key)[0] for key in keys] for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_without_colour_jitter_a_batch_is_normalised() -> None:
    images, targets = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), batch(4)[1]
    pixels, found = augment_batch(images, targets, augment_params("ssd"), (0, 0, 0, 0))
    assert torch.equal(pixels, normalise(images)) and found is targets
