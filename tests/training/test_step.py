"""One step: clipping, parts, average, freezing, learning rates by depth, and steps that are skipped."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from small_training import SMALL, build, run, trainer
from torch import Tensor

from ssd.errors import UserError
from ssd.loading.dataset import Batch
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.training.loop import Trainer
from ssd.training.optimizer import build_optimizer, lr_scales
from ssd.training.schedule import side_of_batch

MakeParams = Callable[..., Params]
PLAIN_SGD = {"train.optimizer": "sgd", "train.momentum": 0.0, "train.weight_decay": 0.0}
OPTIMIZERS = ["sgd", "adam", "adamw"]


def first_batch(running: Trainer) -> Batch:
    batch: Batch = next(iter(running.loader))
    return batch


def weights(running: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in running.step.model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def take_steps(running: Trainer, num_steps: int = 1, lr: float = 0.01) -> list[list[float]]:
    batches = list(running.loader)[:num_steps]
    return [running.step(batch, 0, index, lr).tolist() for index, batch in enumerate(batches)]


def spoil_steps(running: Trainer, *numbers: int) -> None:
    """Make the loss of these steps, counted from 0 and from now, NaN."""
    steps = iter(range(1000))

    def spoil(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        spoils = module.training and next(steps) in numbers
        return output * float("nan") if spoils else output

    first = next(m for m in running.step.model.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_hook(spoil)


def set_scale(running: Trainer, scale: float) -> None:
    """Of the loss, in float16; no effect in other precisions."""
    running.step.scaler.load_state_dict({**running.step.scaler.state_dict(), "scale": scale})


def test_gradients_are_clipped(make_params: MakeParams, shapes_file: TensorFile) -> None:
    """Plain SGD moves by lr times the clipped gradient, so no step is longer than lr * clip_norm."""
    running = trainer(
        make_params(**{**SMALL, **PLAIN_SGD, "train.clip_norm": 0.01}), shapes_file, model=build()
    )
    before = [p.detach().clone() for p in running.step.model.parameters()]
    running.step(first_batch(running), 0, 0, lr=1.0)
    moved = [(p - q).norm() for p, q in zip(running.step.model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_norms_and_biases_have_no_weight_decay(make_params: MakeParams, optimizer: str) -> None:
    model = build()
    params = make_params(**{"train.optimizer": optimizer, "train.weight_decay": 0.3}).train
    groups = build_optimizer(model, params).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        plain = name.endswith("bias") or "bn" in name or parameter.ndim == 1
        assert decay[id(parameter)] == (0.0 if plain else 0.3), name


def test_learning_rates_fall_with_the_depth_of_the_backbone(make_params: MakeParams) -> None:
    changes = {"train.backbone_lr": 0.5, "train.layer_decay": 0.1}
    scales = lr_scales(build(), make_params(**changes).train)
    assert scales["heads.conf.0.weight"] == scales["auxiliary.0.0.weight"] == 1
    assert scales["backbone.layer4.0.conv1.weight"] == 0.5
    assert scales["backbone.layer3.0.bn1.bias"] == pytest.approx(0.05)
    assert scales["backbone.conv1.weight"] == scales["backbone.bn1.weight"] == pytest.approx(0.5e-4)


def test_each_group_moves_by_its_own_learning_rate(make_params: MakeParams, shapes_file: TensorFile) -> None:
    moves = []
    for factor in (1.0, 0.01):
        params = make_params(**{**SMALL, **PLAIN_SGD, "train.backbone_lr": factor})
        running = trainer(params, shapes_file, model=build())
        before = weights(running)
        running.step(first_batch(running), 0, 0, lr=0.1)
        after = weights(running)
        moves.append({name: after[name] - before[name] for name in before})
    torch.testing.assert_close(moves[1]["heads.loc.0.weight"], moves[0]["heads.loc.0.weight"])
    layer = "backbone.layer4.0.conv2.weight"
    torch.testing.assert_close(moves[1][layer], moves[0][layer] * 0.01, rtol=1e-2, atol=1e-7)


def test_frozen_parts_stay_as_they_are(make_params: MakeParams, shapes_file: TensorFile) -> None:
    changes = {"train.freeze_stages": 3, "train.freeze_bn": True}
    running = trainer(make_params(**{**SMALL, **changes}), shapes_file, model=build())
    before = weights(running)
    take_steps(running, 2)
    moved = changed(before, weights(running))
    for name in before:
        stays = name.startswith(("backbone.conv1", "backbone.layer1", "backbone.layer2")) or (
            name.startswith("backbone") and ("bn" in name or "downsample.1" in name)
        )
        assert (name not in moved) == stays, name


def test_the_whole_backbone_can_be_frozen(make_params: MakeParams, shapes_file: TensorFile) -> None:
    running = trainer(make_params(**{**SMALL, "train.freeze_stages": 5}), shapes_file, model=build())
    before = weights(running)
    take_steps(running)
    moved = changed(before, weights(running))
    assert not {name for name in moved if name.startswith("backbone")}
    assert {name for name in moved if name.startswith("auxiliary")}


def test_a_batch_in_parts_is_the_same_step(make_params: MakeParams, shapes_file: TensorFile) -> None:
    """Exactly so where batch norm does not look at the batch: here every norm is in eval mode."""
    results = []
    for parts in (1, 2):
        running = trainer(
            make_params(**{**SMALL, **PLAIN_SGD, "train.accumulate": parts}), shapes_file, model=build()
        )
        running.step.frozen_norms = [m for m in running.step.model.modules() if "BatchNorm" in str(type(m))]
        (losses,) = take_steps(running)
        results.append((losses, weights(running)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    for name, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], value, rtol=1e-4, atol=1e-6)


def test_the_average_follows_the_weights(make_params: MakeParams, shapes_file: TensorFile) -> None:
    running = trainer(make_params(**{**SMALL, "train.ema": 0.9}), shapes_file, model=build())
    name = "heads.conf.0.weight"
    expected = weights(running)[name]
    for update, batch in enumerate(list(running.loader)[:3], start=1):
        running.step(batch, 0, update, 0.01)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weights(running)[name]
    average = running.step.best_model()
    assert average is not running.step.model
    torch.testing.assert_close(average.state_dict()[name], expected)
    assert not average.training


def test_the_average_is_what_is_saved(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    running = trainer(
        make_params(**{**SMALL, "train.epochs": 1, "train.ema": 0.99}), shapes_file, model=build()
    )
    result = run(running, tmp_path / "run")
    average = running.step.best_model().state_dict()
    assert all(torch.equal(value, average[name]) for name, value in result.weights.items())
    assert not torch.equal(average["heads.conf.0.weight"], weights(running)["heads.conf.0.weight"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_is_not_finite_changes_nothing(
    make_params: MakeParams, shapes_file: TensorFile, optimizer: str, precision: str
) -> None:
    params = make_params(**{**SMALL, "train.optimizer": optimizer, "train.precision": precision})
    running = trainer(params, shapes_file, model=build(32, "shufflenet_v2_x0_5"))
    set_scale(running, 256.0)  # at which no gradient overflows float16
    spoil_steps(running, 0)  # the optimiser's first, too
    take_steps(running, 2)
    before = weights(running)
    batch = list(running.loader)[2]
    spoil_steps(running, 0)
    *losses, skipped = running.step(batch, 0, 2, 0.01).tolist()
    assert skipped == 1
    assert losses[0] != losses[0]
    assert {name for name in changed(before, weights(running)) if "num_batches" not in name} == set()
    *losses, skipped = running.step(batch, 0, 3, 0.01).tolist()
    assert skipped == 0
    assert "heads.conf.0.weight" in changed(before, weights(running))
    assert all(value.isfinite().all() for value in weights(running).values())


def test_some_steps_may_be_skipped_and_their_images_are_named(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = trainer(
        make_params(**{**SMALL, "train.epochs": 2, "train.max_skipped": 2}), shapes_file, model=build()
    )
    spoil_steps(running, 1, 5)
    result = run(running, tmp_path / "run")
    lines = [record.message for record in caplog.records if "step skipped" in record.message]
    assert len(lines) == 2
    assert "step skipped (2 of 2): the loss is nan on images scene" in lines[1]
    assert [epoch.skipped for epoch in result.history] == [1, 1]
    assert all(epoch.train_loss == epoch.train_loss for epoch in result.history)


def test_too_many_steps_skipped_stop_the_training(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    running = trainer(
        make_params(**{**SMALL, "train.epochs": 2, "train.max_skipped": 1}), shapes_file, model=build()
    )
    spoil_steps(running, 1, 2)
    with pytest.raises(UserError, match=r"loss is nan on images (scene\d+, ){3}scene\d+, and 1 "):
        run(running, tmp_path / "run")


def test_fp16_stops_when_no_scale_helps(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 1, "train.precision": "fp16"})
    running = trainer(params, shapes_file, model=build(32, "shufflenet_v2_x0_5"))
    set_scale(running, 1e-9)
    with pytest.raises(UserError, match="gradients overflow float16 at every scale"):
        run(running, tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"train.precision": "bf16"},
        {"train.precision": "fp16"},
        {"train.channels_last": False},
        {"train.compile": True},
    ],
)
def test_a_faster_step_is_the_same_step_but_for_rounding(
    make_params: MakeParams,
    shapes_file: TensorFile,
    changes: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The C++ of the default backend takes a minute to build and is not ours; the traced graphs are.
    traced = partial(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: traced(module))
    # On a CPU, float16 takes a step of ResNet18 seconds.
    backbone = "shufflenet_v2_x0_5" if "fp16" in changes.values() else "resnet18"
    reference, found = (
        take_steps(trainer(params, shapes_file, model=build(backbone=backbone)), 3, lr=1e-4)
        for params in (make_params(**SMALL), make_params(**{**SMALL, **changes}))
    )
    assert found[0] == pytest.approx(reference[0], rel=0.01)
    for expected, step in zip(reference, found, strict=True):
        assert step == pytest.approx(expected, rel=0.1)


def test_compiling_without_a_compiler_is_one_clear_line(
    make_params: MakeParams, shapes_file: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"train.compile: .* needs a C\+\+ compiler"):
        trainer(make_params(**{**SMALL, "train.compile": True}), shapes_file, model=build())


def test_channels_last_is_a_switch(make_params: MakeParams, shapes_file: TensorFile) -> None:
    for switch in (True, False):
        running = trainer(make_params(**{**SMALL, "train.channels_last": switch}), shapes_file, model=build())
        weight = running.step.model.backbone.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == switch


def test_small_first_and_full_later(make_params: MakeParams) -> None:
    params = make_params(**{"train.small_epochs": 2, "train.small_scale": 0.5}).train
    assert [side_of_batch(params, 300, epoch, 0) for epoch in range(4)] == [160, 160, 300, 300]


def test_every_batch_may_have_its_own_size(make_params: MakeParams) -> None:
    params = make_params(**{"train.multi_scale": 0.3}).train
    sides = [side_of_batch(params, 300, 0, batch) for batch in range(200)]
    assert set(sides) == {224, 256, 288, 320, 352, 384}
    assert sides == [side_of_batch(params, 300, 0, batch) for batch in range(200)]


@pytest.mark.parametrize("changes", [{"train.multi_scale": 0.4}, {"train.small_epochs": 1}])
def test_training_goes_through_other_sizes(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, changes: dict[str, object]
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 2, **changes})
    running = trainer(params, shapes_file, model=build(128, "shufflenet_v2_x0_5"))
    sides = set()
    running.step.model.backbone.register_forward_hook(
        lambda module, images, maps: sides.add(images[0].shape[-1]) if module.training else None
    )
    result = run(running, tmp_path / "run")
    assert len(sides) > 1
    assert all(row.skipped == 0 and row.train_loss < 30 for row in result.history)
