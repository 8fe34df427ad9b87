"""RoI align by tensor operations alone is torchvision's, forwards and backwards."""

import torch

from ssd.models.faster_rcnn.roi_align import roi_align_by_level, roi_align_by_sums, rois_of

SIDE = 512


def test_both_are_the_same() -> None:
    """Of boxes on all levels, smaller than a cell, and at the borders, where samples lie outside."""
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 3, SIDE // s, SIDE // s, generator=generator).requires_grad_() for s in (4, 8, 16, 32)
    ]
    corners = torch.rand(2, 60, 2, 2, generator=generator).sort(dim=2).values
    boxes = corners.flatten(2)
    boxes[:, :20, 2:] = boxes[:, :20, :2] + 0.01
    boxes[:, 20] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    boxes[:, 21] = torch.tensor([0.999, 0.999, 1.0, 1.0])
    boxes[:, 22] = 0.0
    rois, levels = rois_of(boxes, SIDE)
    assert levels.unique().tolist() == [0, 1, 2, 3]
    found = roi_align_by_sums(maps, rois, levels)
    expected = roi_align_by_level(maps, rois, levels)
    assert found.shape == (120, 3, 7, 7)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), maps),
        torch.autograd.grad(expected.square().sum(), maps),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_features_of_half_the_precision_are_sampled_at_the_same_places() -> None:
    """Of a slope over the map, the features are the coordinates of the samples, up to their own rounding."""
    maps = [
        torch.arange(SIDE // s, dtype=torch.float32).expand(1, 1, SIDE // s, -1) / 64 for s in (4, 8, 16, 32)
    ]
    boxes = torch.tensor([[[0.701, 0.1, 0.703, 0.3], [0.501, 0.1, 0.903, 0.6]]])
    for align in (roi_align_by_level, roi_align_by_sums):
        exact = align(maps, *rois_of(boxes, SIDE))
        half = align([x.bfloat16() for x in maps], *rois_of(boxes, SIDE))
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half, exact.bfloat16(), atol=0, rtol=0.005)
