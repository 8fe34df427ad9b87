"""The synthetic data set `shapes`: generated from a seed and written in Pascal VOC layout.

Eight classes on textured backgrounds with unlabelled clutter. Object sizes span a factor of ten; objects
overlap and occlude one another, extend beyond the image's edge (truncated) or are nearly hidden
(difficult); some images have none. The same seed gives the same bytes: every image has its own random
generator, and pixels come from integer arithmetic.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ssd.files import write_bytes
from ssd.layouts import SPLITS
from ssd.parallel import ordered_map
from ssd.source.glyphs import BLACK_OR_WHITE, GLYPHS, draw_glyph

EMPTY_FRACTION = 0.08  # fraction of images without objects
SMALLEST, LARGEST = 0.09, 0.9  # side of an object, as a fraction of the image's longer side
MAX_OBJECTS = 6
MAX_COVER = 0.5  # largest overlap when placed, as a fraction of the smaller box
HIDDEN, DIFFICULT = 0.15, 0.6  # visible fraction below which an object is omitted, or difficult


@dataclass(frozen=True)
class ShapeObject:
    """An object as annotated. box: xyxy in pixels, 0-based, half-open."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class _Drawn:
    """An object as drawn. box: xyxy in pixels, may extend beyond the image; mask: as large as the box."""

    name: str
    box: tuple[int, int, int, int]
    mask: Image.Image


def write_shapes(folder: Path, *, num_train: int, num_val: int, num_test: int, side: int, seed: int) -> None:
    """Write the data set into `folder`: JPEGImages, Annotations and ImageSets/Main, as in VOC.

    Args:
        folder: is created.
        num_train, num_val, num_test: images per split.
        side: longer side of an image, pixels; the shorter one is 0.7 to 1 of it.
        seed: determines every byte.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[int, int]] = []
    for split, num_images in enumerate((num_train, num_val, num_test)):
        numbers = [(split, index) for index in range(num_images)]
        listing = "".join(f"{_image_id(*number)}\n" for number in numbers)
        write_bytes(folder / "ImageSets" / "Main" / f"{SPLITS[split]}.txt", listing.encode())
        jobs += numbers
    write = partial(_write_image, folder, side, seed)
    for _ in ordered_map(write, jobs, workers=0, description="drawing shapes"):
        pass


def draw_scene(generator: Generator, side: int) -> tuple[Image.Image, list[ShapeObject]]:
    """Draw one image whose longer side is `side` pixels; return it with its objects."""
    short = int(side * generator.uniform(0.7, 1.0))
    width, height = (side, short) if generator.random() < 0.5 else (short, side)
    image = _background(generator, width, height)
    drawn: list[_Drawn] = []
    if generator.random() >= EMPTY_FRACTION:
        for _ in range(int(generator.integers(1, MAX_OBJECTS + 1))):
            box = _place(generator, width, height, [item.box for item in drawn])
            if box is not None:
                name = GLYPHS[int(generator.integers(len(GLYPHS)))]
                drawn.append(_Drawn(name, box, _paste(generator, image, name, box)))
    noisy = np.asarray(image, dtype=np.int16) + generator.integers(-6, 7, (height, width, 1), dtype=np.int16)
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return image, _visible_objects(drawn, width, height)


def _background(generator: Generator, width: int, height: int) -> Image.Image:
    """A gradient between random colours, coarse and fine coloured noise, and unlabelled clutter."""
    corners = generator.integers(40, 216, (2, 2, 3), dtype=np.uint8)
    image = Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)
    for cells in (4, int(generator.integers(8, 40))):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        noise = noise.resize((width, height), Image.Resampling.BICUBIC)
        image = Image.blend(image, noise, float(generator.uniform(0.1, 0.3)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(0, 8))):
        points = [(int(generator.integers(width)), int(generator.integers(height))) for _ in range(3)]
        colour = tuple(int(c) for c in generator.integers(0, 256, 3))
        draw.line(points, fill=colour, width=int(generator.integers(1, 4)))
    if generator.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(1))
    return image


def _place(
    generator: Generator, width: int, height: int, others: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A random box (xyxy, pixels) with little overlap with the others, or None after ten failed tries."""
    longest = max(width, height)
    for _ in range(10):
        size = longest * SMALLEST * (LARGEST / SMALLEST) ** generator.random()
        stretch = 2.0 ** generator.uniform(-0.5, 0.5)
        w, h = max(int(size * stretch**0.5), 8), max(int(size / stretch**0.5), 8)
        # Up to a third of an object may lie outside the image.
        x = int(generator.integers(-w // 3, max(width - 2 * w // 3, 1 - w // 3)))
        y = int(generator.integers(-h // 3, max(height - 2 * h // 3, 1 - h // 3)))
        if generator.random() < 0.7:
            x, y = min(max(x, 0), max(width - w, 0)), min(max(y, 0), max(height - h, 0))
        box = (x, y, x + w, y + h)
        if all(_covered_fraction(box, other) <= MAX_COVER for other in others):
            return box
    return None


def _covered_fraction(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection area over the smaller box's area."""
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _paste(
    generator: Generator, image: Image.Image, name: str, box: tuple[int, int, int, int]
) -> Image.Image:
    """Draw an object into `image` at `box`, which may extend beyond it; return its binary mask."""
    patch = image.resize((1, 1), Image.Resampling.BOX, box=_clip(box, image)).getpixel((0, 0))
    assert isinstance(patch, tuple), "the image is RGB"
    size = (box[2] - box[0], box[3] - box[1])
    paint, mask = draw_glyph(name, size, _colours(generator, patch), float(generator.uniform(-25, 25)))
    image.paste(paint, box[:2], mask)
    return mask.point(BLACK_OR_WHITE)


def _clip(box: tuple[int, int, int, int], image: Image.Image) -> tuple[int, int, int, int]:
    return max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)


def _colours(generator: Generator, behind: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two colours that contrast with the background `behind` and with each other."""
    chosen: list[tuple[int, ...]] = []
    while len(chosen) < 2:
        colour = tuple(int(c) for c in generator.integers(0, 256, 3))
        against = [behind, *chosen]
        if all(sum(abs(c - o) for c, o in zip(colour, other, strict=True)) > 150 for other in against):
            chosen.append(colour)
    return chosen[0], chosen[1]


def _visible_objects(drawn: Sequence[_Drawn], width: int, height: int) -> list[ShapeObject]:
    """Objects in drawing order; a box encloses the visible pixels, as VOC's annotation guidelines require."""
    objects: list[ShapeObject] = []
    covered = Image.new("L", (width, height))
    for item in reversed(drawn):
        inside = Image.new("L", (width, height))
        inside.paste(item.mask, item.box[:2])
        visible = ImageChops.subtract(inside, covered)
        covered = ImageChops.lighter(inside, covered)
        share = visible.histogram()[255] / max(item.mask.histogram()[255], 1)
        box = visible.getbbox()
        if box is None or share < HIDDEN:
            continue
        truncated = _clip(item.box, inside) != item.box
        objects.append(ShapeObject(item.name, box, truncated, difficult=share < DIFFICULT))
    return objects[::-1]


def _image_id(split: int, index: int) -> str:
    return f"{split + 1}{index:05d}"


def _write_image(folder: Path, side: int, seed: int, number: tuple[int, int]) -> None:
    """Draw image `number` (split, index) and write it with its annotation."""
    image, objects = draw_scene(np.random.default_rng([seed, *number]), side)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92)
    name = _image_id(*number)
    (folder / "JPEGImages" / f"{name}.jpg").write_bytes(content.getvalue())
    (folder / "Annotations" / f"{name}.xml").write_text(_annotation(name, image, objects), encoding="utf-8")


def _annotation(name: str, image: Image.Image, objects: Sequence[ShapeObject]) -> str:
    """The annotation as VOC XML: corners are 1-based and inclusive."""
    lines = ["<annotation>", "\t<folder>shapes</folder>", f"\t<filename>{name}.jpg</filename>"]
    lines += ["\t<source>", "\t\t<database>shapes</database>", "\t</source>", "\t<size>"]
    lines += [f"\t\t<width>{image.width}</width>", f"\t\t<height>{image.height}</height>"]
    lines += ["\t\t<depth>3</depth>", "\t</size>", "\t<segmented>0</segmented>"]
    for item in objects:
        corners = {"xmin": item.box[0] + 1, "ymin": item.box[1] + 1, "xmax": item.box[2], "ymax": item.box[3]}
        lines += ["\t<object>", f"\t\t<name>{escape(item.name)}</name>", "\t\t<pose>Unspecified</pose>"]
        lines += [
            f"\t\t<truncated>{item.truncated:d}</truncated>",
            f"\t\t<difficult>{item.difficult:d}</difficult>",
        ]
        lines += ["\t\t<bndbox>", *(f"\t\t\t<{tag}>{value}</{tag}>" for tag, value in corners.items())]
        lines += ["\t\t</bndbox>", "\t</object>"]
    return "\n".join([*lines, "</annotation>", ""])
