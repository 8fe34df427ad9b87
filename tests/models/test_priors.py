"""The paper's table of priors."""

from itertools import pairwise

import pytest
import torch

from ssd.boxes import cxcywh_to_xyxy
from ssd.models.priors import make_priors, paper_levels

SSD300_MAPS = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def test_ssd300_has_8732_priors() -> None:
    levels = paper_levels(6, 0.1, 0.2, 1.05)
    assert [len(level.shapes) for level in levels] == [4, 6, 6, 6, 4, 4]
    assert make_priors(SSD300_MAPS, levels).shape == (8732, 4)


def test_ssd300_scales_are_those_of_the_authors_code() -> None:
    """min sizes 30, 60, 111, 162, 213, 264 of 300 pixels, extra boxes at sqrt(s_k s_k+1)."""
    levels = paper_levels(6, 0.1, 0.2, 1.05)
    sizes = [30, 60, 111, 162, 213, 264, 315]
    assert [level.shapes[0][0] * 300 for level in levels] == pytest.approx(sizes[:-1])
    extra = [(a * b) ** 0.5 for a, b in pairwise(sizes)]
    assert [level.shapes[1][0] * 300 for level in levels] == pytest.approx(extra)


def test_aspect_ratios_keep_the_area() -> None:
    for width, height in paper_levels(6, 0.1, 0.2, 1.05)[1].shapes[2:]:
        assert width * height == pytest.approx(0.2**2)
        assert max(width / height, height / width) == pytest.approx(2) or max(
            width / height, height / width
        ) == pytest.approx(3)


def test_centres_are_the_middles_of_the_cells_row_by_row() -> None:
    priors = make_priors([(2, 3)], paper_levels(1, 0.1, 0.2, 1.05)).view(2, 3, 4, 4)
    torch.testing.assert_close(priors[0, :, 0, 0], torch.tensor([1 / 6, 3 / 6, 5 / 6]))
    torch.testing.assert_close(priors[:, 0, 0, 1], torch.tensor([0.25, 0.75]))


def test_priors_mirror_onto_themselves() -> None:
    """Flipping an image must not change how well it can be matched."""
    boxes = cxcywh_to_xyxy(make_priors(SSD300_MAPS, paper_levels(6, 0.1, 0.2, 1.05)))
    mirrored = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)
    as_rows = lambda x: sorted(map(tuple, (x * 1e4).round().tolist()))  # noqa: E731
    assert as_rows(boxes) == as_rows(mirrored)


def test_maps_and_levels_must_agree() -> None:
    with pytest.raises(ValueError, match="2 feature maps but priors for 1"):
        make_priors([(2, 2), (1, 1)], paper_levels(1, 0.1, 0.2, 1.05))
