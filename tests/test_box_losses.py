"""GIoU and CIoU losses against torchvision's, and on boxes without area."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from ssd.box_losses import ciou_loss, giou_loss
from ssd.boxes import decode

both = pytest.mark.parametrize("loss", [giou_loss, ciou_loss])


def boxes_of(number: int, seed: int, smallest: float = 0.05) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator)
    return torch.cat([corner, corner + smallest + torch.rand(number, 2, generator=generator) / 2], -1)


@pytest.mark.parametrize(
    ("ours", "torchvisions"), [(giou_loss, generalized_box_iou_loss), (ciou_loss, complete_box_iou_loss)]
)
def test_loss_and_gradient_are_torchvisions(ours, torchvisions) -> None:
    gradients = []
    for function in (ours, torchvisions):
        boxes = boxes_of(300, seed=0).requires_grad_()
        errors = function(boxes, boxes_of(300, seed=1))
        errors.sum().backward()
        gradients.append((errors.detach(), boxes.grad))
    torch.testing.assert_close(*(pair[0] for pair in gradients), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(pair[1] for pair in gradients), rtol=1e-3, atol=1e-3)


@both
def test_the_same_box_costs_nothing_however_small(loss) -> None:
    boxes = torch.cat([boxes_of(50, seed=0), boxes_of(50, seed=0, smallest=0.0) * 0.01])
    torch.testing.assert_close(loss(boxes, boxes), torch.zeros(100), atol=1e-4, rtol=0)


@both
def test_boxes_apart_are_drawn_together(loss) -> None:
    box = torch.tensor([[0.1, 0.1, 0.2, 0.2]], requires_grad=True)
    error = loss(box, torch.tensor([[0.7, 0.1, 0.8, 0.2]]))
    error.sum().backward()
    assert error.item() > 1
    assert box.grad[0, 0::2].sum() < 0
    torch.testing.assert_close(box.grad[0, 1::2].sum(), torch.zeros(()), atol=1e-5, rtol=0)


@both
@pytest.mark.parametrize("offset", [0.0, 1e-3, 50.0, -50.0, 1e4, -1e4])
@pytest.mark.parametrize(
    "target",
    [[0.5, 0.5, 0.5, 0.5], [0.2, 0.3, 0.2, 0.6], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 0.900001, 0.900001]],
)
def test_loss_and_gradient_stay_finite(loss, offset: float, target: list[float]) -> None:
    loc = torch.full((1, 4), offset, requires_grad=True)
    error = loss(decode(loc, torch.tensor([[0.5, 0.5, 0.1, 0.1]])), torch.tensor([target]))
    error.sum().backward()
    assert error.isfinite().all()
    assert loc.grad.isfinite().all()


@both
def test_empty_boxes_in_the_same_place_stay_finite(loss) -> None:
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    error = loss(box, box.detach())
    error.sum().backward()
    assert error.isfinite().all()
    assert box.grad.isfinite().all()
