"""Stratified splits: divides a data set into parts with the same distribution of classes."""

import random
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

SAME = 1e-9
"""Tolerance: floating-point numbers that differ by less count as equal, because fractions are inexact."""


def stratified_parts(classes: Sequence[Collection[str]], fractions: Sequence[float], seed: int) -> list[int]:
    """Assign each image to a part, so that the objects of every class are distributed by `fractions`.

    Iterative stratification: the rarest class first, and of it the images with most objects first, each image
    goes to the part that lacks most of the class; ties go to the part with most free places, then to a random
    one. Images without objects come last, but places are reserved for them, so they are stratified as well.

    Args:
        classes: the class names of the objects of each image; a repeated name is several objects, an empty
            collection an image without objects.
        fractions: fraction of the images per part; they sum to 1.
        seed: another seed gives another split of the same quality. The same images in the same order,
            fractions and seed give the same parts on every machine.

    Returns:
        The part number, from 0, of each image. The sizes of the parts are `part_sizes`.

    Source: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data" (ECML 2011), figure 1.
    Unlike there, sizes are exact, objects are counted rather than images, and lack is relative to the
    fraction.
    """
    draw = random.Random(seed).random  # noqa: S311 # numpy's draws may differ from version to version
    counts = [Counter(names) for names in classes]
    order = sorted(range(len(counts)), key=[draw() for _ in counts].__getitem__)
    weights = np.array(fractions, dtype=float)
    places = np.array(part_sizes(len(counts), fractions))
    empty = [image for image in order if not counts[image]]
    free = places - np.minimum(places, part_sizes(len(empty), fractions))

    waiting = _images_by_class(counts, order)
    given = {name: np.zeros(len(places)) for name in waiting}
    totals = {name: sum(counts[image][name] for image in images) for name, images in waiting.items()}
    parts: dict[int, int] = {}
    while waiting:
        name = min(waiting, key=lambda name: (len(waiting[name]), name))
        images = sorted(waiting[name], key=lambda image: -counts[image][name])
        for image in images:
            if len(waiting) > 1:
                lack = _lack_by_share(given[name], counts[image][name], weights)
            else:
                lack = _lack_by_place(given[name], totals[name], weights, free)
            part = _part_lacking_most(lack, free, draw())
            parts[image] = part
            free[part] -= 1
            for found, count in counts[image].items():
                given[found][part] += count
        waiting = _drop(waiting, images, counts)

    left = places - np.bincount(list(parts.values()), minlength=len(places))
    rest = np.repeat(np.arange(len(places)), left)
    parts.update(zip(empty, rest.tolist(), strict=True))
    return [parts[image] for image in range(len(counts))]


def part_sizes(num_images: int, fractions: Sequence[float]) -> list[int]:
    """Integers that sum to `num_images`, each within 1 of its exact fraction (largest remainder method)."""
    assert abs(sum(fractions) - 1) < 1e-6, "fractions sum to 1"
    exact = [num_images * fraction for fraction in fractions]
    sizes = [int(size + SAME) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda part: (round(sizes[part] - exact[part], 6), part))
    for part in by_remainder[: num_images - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _images_by_class(counts: Sequence[Counter[str]], order: Sequence[int]) -> dict[str, list[int]]:
    images: dict[str, list[int]] = {}
    for image in order:
        for name in counts[image]:
            images.setdefault(name, []).append(image)
    return images


def _lack_by_share(
    given: NDArray[np.float64], count: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much each part lacks of a class when `count` objects are next: the Sainte-Lague method.

    All parts fill at the same rate, so each gets images with many objects and with few; adding half of
    `count` assigns objects that cannot be divided evenly as rounding would.
    """
    return -(given + count / 2) / np.maximum(weights, SAME)


def _lack_by_place(
    given: NDArray[np.float64], total: int, weights: NDArray[np.float64], free: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Objects that each part lacks per free place, for the last class.

    The last class fills the places that the others left, so the number of its images in each part is fixed.
    A part with few free places reaches its objects only with images that have many.
    """
    return (total * weights - given) / np.maximum(free, 1)


def _part_lacking_most(lack: NDArray[np.float64], free: NDArray[np.int64], draw: float) -> int:
    """The part with free places that lacks most; ties by most free places, then by `draw` in [0, 1)."""
    open_parts = np.flatnonzero(free)
    lack = lack[open_parts]
    open_parts = open_parts[lack > lack.max() - SAME]
    if len(open_parts) > 1:
        room = free[open_parts]
        open_parts = open_parts[room == room.max()]
    return int(open_parts[int(draw * len(open_parts))])


def _drop(
    waiting: dict[str, list[int]], done: Sequence[int], counts: Sequence[Counter[str]]
) -> dict[str, list[int]]:
    """`waiting` without the images in `done`, and without classes that have no images left."""
    gone = set(done)
    touched = {name for image in done for name in counts[image]}
    left = {
        name: [image for image in images if image not in gone] if name in touched else images
        for name, images in waiting.items()
    }
    return {name: images for name, images in left.items() if images}
