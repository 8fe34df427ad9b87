"""Two detectors on the same images: the paired bootstrap of their difference, and the images that changed."""

import numpy as np
import torch

from benchmarks.scenes import random_detections
from ssd.compare.comparison import ChangedImage, compare_detections
from ssd.metrics.bootstrap import CocoIntervals, bootstrap_coco, bootstrap_difference, draw_images
from ssd.metrics.coco import evaluate_coco, match_classes
from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", "cat", "dog"]
Scene = tuple[list[Detections], list[Detections], list[Objects]]


def two_detectors(num_images: int, seed: int = 0, noise: float = 3.0) -> Scene:
    """A, and B, which finds what A finds, with boxes that are off by `noise` pixels more."""
    generator = torch.Generator().manual_seed(seed)
    a, truth = random_detections(num_images, len(NAMES), 20, generator)
    b = [
        Detections(
            item.boxes + noise * torch.randn(item.boxes.shape, generator=generator), item.scores, item.labels
        )
        for item in a
    ]
    return a, b, truth


def differences(scene: Scene, num_resamples: int, swapped: bool = False) -> CocoIntervals:
    a, b, truth = scene
    matches = [match_classes(found, truth, NAMES) for found in ((b, a) if swapped else (a, b))]
    return bootstrap_difference(*matches, NAMES, len(truth), num_resamples)


def flat(intervals: CocoIntervals) -> np.ndarray:
    """All intervals, float64 [figures, 2]."""
    per_class = [*intervals.per_class_map.values(), *intervals.per_class_map50.values()]
    return np.array([intervals.map, intervals.map50, *per_class])


def test_the_paired_bootstrap_is_a_loop_over_the_drawn_images() -> None:
    a, b, truth = scene = two_detectors(10)
    (draws,) = draw_images(10, 15, seed=0)
    rows = []
    for row in draws:
        drawn = np.repeat(np.arange(10), row).tolist()
        figures = []
        for found in (a, b):
            result = evaluate_coco([found[i] for i in drawn], [truth[i] for i in drawn], NAMES)
            per_class = [*result.per_class_map.values(), *result.per_class_map50.values()]
            figures.append([result.map, result.map50, *per_class])
        rows.append(np.array(figures[1], float) - np.array(figures[0], float))
    expected = np.nanpercentile(rows, (2.5, 97.5), axis=0).T
    np.testing.assert_allclose(flat(differences(scene, 15)), expected, rtol=0, atol=1e-12)


def test_a_detector_does_not_differ_from_itself() -> None:
    a, _, truth = two_detectors(12)
    assert not flat(differences((a, a, truth), 50)).any()
    compared = compare_detections(a, a, truth, NAMES, 50)
    assert (compared.map.difference, compared.map.interval) == (0.0, (0.0, 0.0))
    assert (compared.verdict, compared.changed) == ("none", ())


def test_swapping_the_sides_flips_the_signs() -> None:
    scene = two_detectors(12)
    one, other = flat(differences(scene, 60)), flat(differences(scene, 60, swapped=True))
    np.testing.assert_allclose(one, -other[:, ::-1], rtol=0, atol=1e-12)
    a, b, truth = scene
    there, back = compare_detections(a, b, truth, NAMES, 60), compare_detections(b, a, truth, NAMES, 60)
    assert there.verdict == "A"
    assert back.verdict == "B"
    assert there.map.difference == -(back.map.difference or 0)
    assert [(item.image, item.errors_a, item.errors_b) for item in there.changed] == [
        (item.image, item.errors_b, item.errors_a) for item in back.changed
    ]


def test_pairing_makes_the_interval_of_alike_detectors_narrower() -> None:
    """Two intervals of their own, taken as independent, have a difference of sqrt(2) their width."""
    a, b, truth = scene = two_detectors(60, noise=1.0)

    def width(interval: tuple[float, float] | None) -> float:
        assert interval is not None
        return interval[1] - interval[0]

    alone = [bootstrap_coco(match_classes(found, truth, NAMES), NAMES, 60, 200).map for found in (a, b)]
    independent = (width(alone[0]) ** 2 + width(alone[1]) ** 2) ** 0.5
    assert width(differences(scene, 200).map) < 0.7 * independent


def test_the_image_that_changed_most_comes_first() -> None:
    """B misses the object of image 1, and both objects of image 2; a box of another class counts once."""
    box = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    plain = torch.zeros(2, dtype=torch.bool)
    truth = [Objects(box, torch.tensor([1, 1]), plain)] * 3
    full = Detections(box, torch.tensor([0.9, 0.8]), torch.tensor([1, 1]))
    half = Detections(box[:1], torch.tensor([0.9]), torch.tensor([1]))
    other = Detections(box, torch.tensor([0.9, 0.9]), torch.tensor([2, 2]))
    compared = compare_detections([full] * 3, [full, half, other], truth, ["ant", "bee"], 10)
    assert compared.changed == (ChangedImage(2, 0, 2), ChangedImage(1, 0, 1))


def test_without_objects_nothing_can_be_claimed() -> None:
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    compared = compare_detections([found], [found], [nothing], NAMES, 10)
    assert (compared.map.difference, compared.map.interval, compared.verdict) == (None, None, "none")
