"""What becomes of each detection and object: named one by one, and summed as the confusion matrix sums it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.metrics.confusion import confusion_matrix
from ssd.metrics.outcomes import outcomes
from ssd.metrics.voc import judge_detections
from ssd.structures import Detections, Objects

NUM_CLASSES = 3


def random_split(seed: int, num_images: int = 4) -> tuple[list[Detections], list[Objects]]:
    """Objects on a coarse grid, some ignored, and detections that often lie on one of them."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(number: int) -> torch.Tensor:
        corners = 4.0 * torch.randint(0, 3, (number, 2), generator=generator)
        return torch.cat([corners, corners + torch.randint(4, 7, (number, 2), generator=generator)], dim=1)

    def labels(number: int) -> torch.Tensor:
        return torch.randint(1, NUM_CLASSES + 1, (number,), generator=generator)

    found, truth = [], []
    for _ in range(num_images):
        num_found, num_objects = torch.randint(0, 9, (2,), generator=generator).tolist()
        scores = torch.rand(num_found, generator=generator).sort(descending=True).values
        found.append(Detections(boxes(num_found), scores, labels(num_found)))
        ignored = torch.rand(num_objects, generator=generator) < 0.2
        truth.append(Objects(boxes(num_objects), labels(num_objects), ignored))
    return found, truth


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_every_detection_and_object_that_counts_has_one_outcome(seed: int, score: float) -> None:
    judged = judge_detections(*random_split(seed), NUM_CLASSES)
    what = outcomes(judged, score)
    found = np.concatenate([what.correct[0], what.confused[0], what.false_alarms])
    assert sorted(found) == np.flatnonzero(judged.counted & (judged.scores >= score)).tolist()
    truth = np.concatenate([what.correct[1], what.confused[1], what.missed])
    assert sorted(truth) == np.flatnonzero(~judged.ignored).tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_the_errors_of_all_images_are_those_of_the_confusion_matrix(seed: int, score: float) -> None:
    found, truth = random_split(seed)
    judged = judge_detections(found, truth, NUM_CLASSES)
    errors = outcomes(judged, score).num_errors(len(found))
    matrix = confusion_matrix(judged, NUM_CLASSES, score)
    assert errors.sum() == matrix.sum() - matrix.trace()
    for index, number in enumerate(errors):
        alone = judge_detections(found[index : index + 1], truth[index : index + 1], NUM_CLASSES)
        assert outcomes(alone, score).num_errors(1) == [number]
