"""Box formats, overlap and SSD's offsets."""

import pytest
import torch
from torchvision.ops import box_convert, box_iou

from ssd.boxes import cxcywh_to_xyxy, decode, encode, iou, pairwise_iou, xyxy_to_cxcywh


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    """xyxy boxes of at least 0.01 a side, within 0..1.6."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator)
    size = 0.01 + 0.6 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corner, corner + size], dim=-1)


def test_formats_are_inverse_and_agree_with_torchvision() -> None:
    boxes = random_boxes(50)
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_iou_agrees_with_torchvision_and_is_batched() -> None:
    a, b = random_boxes(3, 20), random_boxes(3, 30, seed=1)
    expected = torch.stack([box_iou(x, y) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(pairwise_iou(a, b), expected)


def test_iou_of_a_box_with_itself_is_one_and_of_empty_boxes_zero() -> None:
    boxes = random_boxes(10)
    torch.testing.assert_close(pairwise_iou(boxes, boxes).diagonal(), torch.ones(10))
    empty = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert pairwise_iou(empty, empty).item() == 0
    assert pairwise_iou(empty, boxes).sum() == pairwise_iou(boxes, empty).sum() == 0


def test_iou_of_pairs_broadcasts() -> None:
    a, b = random_boxes(5), random_boxes(1, seed=1)
    torch.testing.assert_close(iou(a, b), box_iou(a, b)[:, 0])


def test_decode_inverts_encode() -> None:
    boxes, priors = random_boxes(200), xyxy_to_cxcywh(random_boxes(200, seed=2))
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, atol=1e-5, rtol=1e-5)


def test_a_box_on_its_prior_has_no_offset() -> None:
    boxes = random_boxes(20)
    torch.testing.assert_close(encode(boxes, xyxy_to_cxcywh(boxes)), torch.zeros(20, 4), atol=1e-5, rtol=0)


def test_offsets_carry_the_variances() -> None:
    prior = torch.tensor([0.5, 0.5, 0.2, 0.4])
    moved = cxcywh_to_xyxy(torch.tensor([0.52, 0.5, 0.2, 0.4 * torch.e]))
    torch.testing.assert_close(encode(moved, prior), torch.tensor([1.0, 0.0, 0.0, 5.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_decoding_extreme_offsets_stays_finite(extreme: float) -> None:
    decoded = decode(torch.full((1, 4), extreme), torch.tensor([[0.5, 0.5, 0.1, 0.1]]))
    assert decoded.isfinite().all()


def test_encoding_an_empty_box_stays_finite() -> None:
    assert encode(torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 0.1, 0.1]])).isfinite().all()
