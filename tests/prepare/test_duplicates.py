"""Images that look alike are found across splits, others are not; so are the same pixels with other boxes."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from voc_folder import encode, picture

from ssd.prepare.duplicates import (
    MAX_DISTANCE,
    NUM_NAMED,
    AnnotatedPicture,
    LookAlike,
    find_contradictions,
    find_look_alikes,
    take_fingerprint,
    warn_of_contradictions,
    warn_of_look_alikes,
)
from ssd.source.shapes import draw_scene


def scene(seed: int, side: int = 192) -> Image.Image:
    return draw_scene(np.random.default_rng(seed), side)[0]


def dhash(image: Image.Image) -> bytes:
    found = take_fingerprint(image).dhash
    assert found is not None
    return found


def distance(one: bytes, other: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: Image.open(io.BytesIO(encode(image, quality=50))),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "square": lambda image: image.resize((416, 416), Image.Resampling.BILINEAR),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_an_image_looks_like_it(copy: str) -> None:
    images = [scene(seed) for seed in range(10)]
    distances = [distance(dhash(image), dhash(COPIES[copy](image))) for image in images]
    assert max(distances) <= MAX_DISTANCE


def test_images_of_the_embedded_data_set_do_not_look_alike() -> None:
    images = [(str(seed), dhash(scene(seed, side=96))) for seed in range(200)]
    assert find_look_alikes({"train": images[:150], "val": images[150:160], "test": images[160:]}) == []


def test_the_hash_is_of_both_directions() -> None:
    """Of a picture that grows brighter to the right and downwards every bit is set; turned around, none."""
    grey = np.add.outer(np.arange(90), np.arange(90)).astype(np.uint8)
    image = Image.fromarray(grey).convert("RGB")
    assert dhash(image) == b"\xff" * 16
    assert dhash(image.transpose(Image.Transpose.ROTATE_180)) == bytes(16)
    assert dhash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == bytes(8) + b"\xff" * 8


@pytest.mark.parametrize("noise", [0, 3])
def test_flat_images_are_not_compared(noise: int) -> None:
    grey = np.random.default_rng(0).integers(100, 101 + noise, (60, 80, 3), dtype=np.uint8)
    assert take_fingerprint(Image.fromarray(grey)).dhash is None
    assert find_look_alikes({"train": [("a", None)], "test": [("b", None)]}) == []


def flipped(value: bytes, num_bits: int) -> bytes:
    """`value` with so many other bits, spread over all of it."""
    return (int.from_bytes(value) ^ sum(1 << (11 * bit) for bit in range(num_bits))).to_bytes(16)


def random_hashes(seed: int, num: int) -> list[tuple[str, bytes | None]]:
    random = np.random.default_rng(seed)
    return [(f"{seed}.{number}", random.bytes(16)) for number in range(num)]


def test_the_nearest_image_of_each_later_split_is_found() -> None:
    train, val, test = random_hashes(1, 700), random_hashes(2, 300), random_hashes(3, 400)
    value = train[500][1]
    assert value is not None
    test[17] = ("near", flipped(value, MAX_DISTANCE))
    test[390] = ("nearer", flipped(value, 1))
    val[5] = ("in val", value)
    test[2] = ("far", flipped(value, MAX_DISTANCE + 1))
    found = find_look_alikes({"train": train, "val": val, "test": test})
    assert found == [
        LookAlike("train", "1.500", "val", "in val"),
        LookAlike("train", "1.500", "test", "nearer"),
        LookAlike("val", "in val", "test", "nearer"),
    ]


def test_it_finds_what_comparing_one_by_one_finds() -> None:
    start = random_hashes(4, 40)
    train = [(f"t{n}", flipped(h or b"", n % 12)) for n, (_, h) in enumerate(start)]
    test = [(f"v{n}", h) for n, (_, h) in enumerate(start)]
    found = find_look_alikes({"train": train, "test": test})
    expected = {
        (name, other)
        for name, one in train
        for other, two in test
        if two and distance(one, two) <= MAX_DISTANCE
    }
    assert {(item.name, item.other_name) for item in found} == expected
    assert len(expected) > 30


@pytest.mark.parametrize("splits", [{}, {"train": []}, {"train": [], "test": [("a", bytes(16))]}])
def test_without_images_there_is_nothing_to_find(splits: dict[str, list[tuple[str, bytes | None]]]) -> None:
    assert find_look_alikes(splits) == []


def test_the_warning_counts_the_images_and_names_some() -> None:
    few = [LookAlike("train", "a", "test", "b"), LookAlike("val", "c", "test", "d")]
    assert warn_of_look_alikes(few) == [
        "1 image(s) of train look like images of test: a ~ b",
        "1 image(s) of val look like images of test: c ~ d",
    ]
    many = [LookAlike("train", str(number), "test", "b") for number in range(NUM_NAMED + 1)]
    (line,) = warn_of_look_alikes(many)
    assert line.startswith("11 image(s) of train")
    assert line.endswith("9 ~ b, ...")


def annotated(name: str, content: bytes, *objects: object) -> AnnotatedPicture:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return AnnotatedPicture(name, take_fingerprint(image).samples, content, frozenset(objects))


def test_the_same_pixels_with_other_boxes_are_a_contradiction_whatever_the_file() -> None:
    content = encode(picture(), "PNG")
    recompressed = encode(picture(), "PNG", compress_level=0)
    with_note = encode(picture(), "PNG", dpi=(72, 72))
    found = find_contradictions(
        [
            annotated("a", content, "box"),
            annotated("same", content, "box"),
            annotated("b", recompressed, "other box"),
            annotated("c", with_note),
            annotated("another", encode(picture(1), "PNG"), "other box"),
        ]
    )
    assert found == [("a", "b"), ("a", "c")]
    assert warn_of_contradictions("train", found) == [
        "2 image(s) of train have the pixels of another, but other boxes: a = b, a = c"
    ]
    assert warn_of_contradictions("train", []) == []


def test_one_other_pixel_is_another_picture() -> None:
    image = Image.new("RGB", (1000, 700), (9, 99, 199))
    dotted = image.copy()
    dotted.putpixel((1, 1), (10, 99, 199))
    pictures = [annotated("a", encode(image, "PNG"), 1), annotated("b", encode(dotted, "PNG"), 2)]
    assert pictures[0].samples == pictures[1].samples, "the samples do not see it"
    assert find_contradictions(pictures) == []
