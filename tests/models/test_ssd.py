"""The network: maps, priors and outputs that fit each other, whatever backbone and size."""

import copy

import pytest
import torch

from ssd.models.config import paper_config
from ssd.models.ssd import SSD


def build(backbone: str = "resnet18", input_size: int = 64, num_classes: int = 5) -> SSD:
    torch.manual_seed(0)
    return SSD(paper_config(backbone, input_size, num_classes, 0.1, 0.2, 1.05))


def test_ssd300_has_the_paper_s_maps_and_8732_priors() -> None:
    model = build("resnet50", 300, 21).eval()
    assert model.priors.shape == (8732, 4)
    assert [head.out_channels // 4 for head in model.heads.loc] == [4, 6, 6, 6, 4, 4]
    with torch.inference_mode():
        loc, logits = model(torch.zeros(1, 3, 300, 300))
    assert loc.shape == (1, 8732, 4)
    assert logits.shape == (1, 8732, 21)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("input_size", [64, 100, 128, 160, 224])
def test_outputs_fit_the_priors_at_every_size(backbone: str, input_size: int) -> None:
    model = build(backbone, input_size).eval()
    with torch.inference_mode():
        loc, logits = model(torch.zeros(2, 3, input_size, input_size))
    assert loc.shape == (2, len(model.priors), 4)
    assert logits.shape == (2, len(model.priors), 5)


def test_a_batch_equals_its_images() -> None:
    model = build().eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together = model(images)
        alone = [model(image[None]) for image in images]
    for part in range(2):
        torch.testing.assert_close(together[part], torch.cat([x[part] for x in alone]), atol=1e-4, rtol=1e-4)


def test_outputs_do_not_change_type_with_the_mode() -> None:
    model, images = build(), torch.randn(2, 3, 64, 64)
    assert [x.shape for x in model.train()(images)] == [x.shape for x in model.eval()(images)]


def test_outputs_lie_in_the_order_of_the_priors() -> None:
    """Light one cell of the finest map: only the priors of the cells around it may answer differently."""
    model = build().eval()
    features = [
        torch.zeros(1, head.in_channels, side, side)
        for head, side in zip(model.heads.loc, (8, 4, 2, 1), strict=True)
    ]
    lit = copy.deepcopy(features)
    lit[0][0, :, 2, 5] = 1
    dark_loc, lit_loc = (_heads(model, maps) for maps in (features, lit))
    changed = model.priors[(dark_loc != lit_loc).any(-1)[0], :2]
    distance = (changed * 8 - torch.tensor([5.5, 2.5])).abs().max().item()
    assert len(changed) > 0
    assert distance <= 1


def _heads(model: SSD, maps: list[torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model.heads(maps)[0]


@pytest.mark.parametrize("input_size", [64, 128, 160])
def test_bfloat16_gradients_agree_with_float32(input_size: int) -> None:
    """Some CPUs compute wrong bf16 weight gradients of strided 3x3 convolutions on 1x1 maps.

    In eval mode: batch norm over the few cells of the last maps would drown the comparison in noise.
    """
    reference = build("resnet18", input_size).eval()
    images = torch.randn(4, 3, input_size, input_size)
    gradients = []
    for enabled in (False, True):
        model = copy.deepcopy(reference)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loc, logits = model(images)
        (loc.float().square().mean() + logits.float().square().mean()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, exact in gradients[0].items():
        rough = gradients[1][name]
        assert rough.isfinite().all(), name
        if name.startswith(("auxiliary", "heads")) and exact.norm() > 1e-6:
            cosine = torch.cosine_similarity(rough.flatten(), exact.flatten(), dim=0).item()
            assert cosine > 0.9, f"{name}: {cosine}"


def test_the_two_heads_of_a_level_answer_as_if_each_ran_alone() -> None:
    model = build().eval()
    x = torch.randn(2, model.heads.loc[0].in_channels, 8, 8)
    with torch.inference_mode():
        loc, logits = model.heads.level(0, x)
        for found, head in ((loc, model.heads.loc[0]), (logits, model.heads.conf[0])):
            expected = head(x).permute(0, 2, 3, 1).reshape(found.shape)
            torch.testing.assert_close(found, expected)


def test_other_input_sizes_have_priors_of_their_own() -> None:
    """The levels keep their scales; a level whose map would vanish is left out."""
    model = build().eval()
    for side in (64, 96, 160, 224):
        with torch.inference_mode():
            loc, logits = model(torch.zeros(1, 3, side, side))
        priors = model.priors_at(side)
        assert loc.shape[1] == logits.shape[1] == len(priors)
        assert set(priors[:, 2].tolist()) <= set(model.priors[:, 2].tolist())
    assert torch.equal(model.priors_at(model.config.input_size), model.priors)
