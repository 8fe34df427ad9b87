"""Weighted box fusion: invariants, and the paper's equations by plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ssd.ensemble.fusion import fuse, fuse_splits
from ssd.structures import Detections


def detections(rows: list[tuple[float, float, float, float, float, int]]) -> Detections:
    """From rows (x, y, width, height, score, label)."""
    rows = sorted(rows, key=lambda row: -row[4])
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h, _, _ in rows]).reshape(-1, 4)
    return Detections(
        boxes, torch.tensor([row[4] for row in rows]), torch.tensor([row[5] for row in rows]).long()
    )


def plain_fusion(models: list[Detections], threshold: float) -> list[tuple[list[float], float, int]]:
    """The paper's steps 2 to 8 as they are written, with lists."""
    rows = [
        (score, model.boxes[i], int(model.labels[i]))
        for model in models
        for i, score in enumerate(model.scores.tolist())
    ]
    clusters: list[list[tuple[float, torch.Tensor, int]]] = []

    def fused_box(cluster: list[tuple[float, torch.Tensor, int]]) -> torch.Tensor:
        total = sum(score for score, _, _ in cluster)
        weighted = torch.stack([score * box.double() for score, box, _ in cluster]).sum(0)
        return weighted / total

    for row in sorted(rows, key=lambda row: -row[0]):
        overlaps = [
            float(box_iou(row[1].double()[None], fused_box(cluster)[None])) if cluster[0][2] == row[2] else 0
            for cluster in clusters
        ]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=-1)
        if best >= 0 and overlaps[best] > threshold:
            clusters[best].append(row)
        else:
            clusters.append([row])
    n = len(models)
    found = [
        (
            fused_box(c).tolist(),
            sum(score for score, _, _ in c) / len(c) * min(len(c), n) / n,
            c[0][2],
        )
        for c in clusters
    ]
    return sorted(found, key=lambda item: -item[1])


SIDE = st.integers(1, 30).map(float)
ROW = st.tuples(SIDE, SIDE, SIDE, SIDE, st.integers(1, 999).map(lambda n: n / 1000), st.integers(1, 2))


@given(st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=3), st.sampled_from([0.3, 0.55]))
@settings(max_examples=60, deadline=None)
def test_it_is_what_the_paper_writes(
    models: list[list[tuple[float, float, float, float, float, int]]], threshold: float
) -> None:
    found = fuse([detections(rows) for rows in models], threshold)
    expected = plain_fusion([detections(rows) for rows in models], threshold)
    assert found.scores.tolist() == pytest.approx([score for _, score, _ in expected], abs=1e-6)
    left = list(zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))
    for box, score, label in expected:  # rows of equal scores may come in either order
        same = [
            row
            for row in left
            if row[2] == label and row[1] == pytest.approx(score, abs=1e-6) and row[0] == pytest.approx(box)
        ]
        assert same, (box, score, label)
        left.remove(same[0])


CAT = (10.0, 10.0, 20.0, 20.0, 0.9, 1)
FAR = (60.0, 10.0, 20.0, 20.0, 0.5, 1)
DOG = (10.0, 10.0, 20.0, 20.0, 0.8, 2)


def test_one_model_whose_boxes_do_not_overlap_stays_as_it_is() -> None:
    alone = detections([CAT, FAR, DOG])
    fused = fuse([alone])
    assert fused.boxes.equal(alone.boxes)
    assert fused.scores.equal(alone.scores)
    assert fused.labels.equal(alone.labels)


def test_models_that_agree_give_what_one_gives() -> None:
    alone = detections([CAT, FAR, DOG])
    fused = fuse([alone] * 3)
    torch.testing.assert_close(fused.boxes, alone.boxes)
    torch.testing.assert_close(fused.scores, alone.scores)


def test_what_one_of_three_models_sees_has_a_third_of_its_score() -> None:
    fused = fuse([detections([CAT]), detections([]), detections([])])
    assert fused.scores.tolist() == pytest.approx([0.3])


def test_boxes_are_averaged_by_score() -> None:
    moved = (12.0, 10.0, 20.0, 20.0, 0.3, 1)
    fused = fuse([detections([CAT]), detections([moved])])
    assert fused.boxes.tolist() == [pytest.approx([10.5, 10, 30.5, 30])]
    assert fused.scores.tolist() == pytest.approx([0.6])


def test_the_best_are_kept() -> None:
    fused = fuse([detections([CAT, FAR, DOG])], max_detections=2)
    assert fused.scores.tolist() == pytest.approx([0.9, 0.8])


def test_a_split_is_fused_image_by_image() -> None:
    one, other = detections([CAT]), detections([FAR])
    fused = fuse_splits([[one, other], [one, detections([])]])
    assert [item.scores.tolist() for item in fused] == [pytest.approx([0.9]), pytest.approx([0.25])]


def test_nothing_detected_stays_nothing() -> None:
    fused = fuse([detections([]), detections([])])
    assert fused.boxes.shape == (0, 4)
