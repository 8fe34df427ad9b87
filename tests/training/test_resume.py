"""A training that was stopped, killed or lost a file ends with the same bits as one that was not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_training import SMALL, Recorder, build, build_faster_rcnn, results_of, run, same_weights, trainer

from ssd.interrupt import StopSignal
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.training.loop import Trainer
from ssd.training.progress import random_state, set_random_state

MakeParams = Callable[..., Params]

# Everything that has a state, in two trainings, and another family of detectors.
EVERYTHING = {
    "ema": {
        "train.ema": 0.9,
        "train.optimizer": "adamw",
        "train.epochs": 2,
        "train.warmup_steps": 3,
        "train.schedule": "plateau",
        "train.patience": 0,
        "train.select_by": "train_loss",
        "train.early_stop": 3,
        "train.multi_scale": 0.5,
        "train.keep_best": 2,
        "train.precision": "bf16",
    },
    "scaler": {
        "train.epochs": 2,
        "train.optimizer": "sgd",
        "train.schedule": "cosine",
        "train.precision": "fp16",
        "train.accumulate": 2,
        "train.repeat_threshold": 0.5,
        "train.lr": 0.001,
    },
    "faster_rcnn": {"train.epochs": 2, "train.accumulate": 2, "train.multi_scale": 0.5, "train.lr": 0.001},
}


def stop_after(running: Trainer, num_steps: int) -> StopSignal:
    """A signal that comes while step `num_steps` (from 1) computes."""
    stop, steps = StopSignal(), iter(range(1, 1000))

    def receive(*_: object) -> None:
        if running.step.model.training and next(steps) == num_steps:
            stop.received = True

    running.step.model.register_forward_pre_hook(receive)
    return stop


@pytest.mark.parametrize("name", EVERYTHING)
def test_stopped_at_several_steps_it_ends_as_if_it_never_was(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, name: str
) -> None:
    params = make_params(**{**SMALL, **EVERYTHING[name]})
    parts = params.train.accumulate

    def start() -> Trainer:
        model = build_faster_rcnn() if name == "faster_rcnn" else build(32, "shufflenet_v2_x0_5")
        return trainer(params, shapes_file, model=model, mosaic=0.3, mixup=0.5)

    whole = run(start(), tmp_path / "whole")
    for num_steps in (2, 5):
        running = start()
        with pytest.raises(KeyboardInterrupt):
            run(running, tmp_path / "cut", stop=stop_after(running, num_steps * parts))
    cut = run(start(), tmp_path / "cut")
    assert same_weights(whole, cut)
    assert results_of(whole) == results_of(cut)
    assert (whole.best_epoch, whole.best_score) == (cut.best_epoch, cut.best_score)


def test_stopped_in_validation_it_ends_as_if_it_never_was(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 2})
    whole = run(trainer(params, shapes_file), tmp_path / "whole")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ssd.training.loop.run_split", interrupted)
        run(trainer(params, shapes_file), tmp_path / "cut")
    resumed = trainer(params, shapes_file)
    recorder = Recorder()
    cut = run(resumed, tmp_path / "cut", recorder)
    assert recorder.steps == [8], "the first epoch's steps were not taken again"
    assert same_weights(whole, cut)
    assert results_of(whole) == results_of(cut)


def test_a_damaged_checkpoint_costs_steps_but_no_bit(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 2})
    whole = run(trainer(params, shapes_file), tmp_path / "whole")
    running = trainer(params, shapes_file)
    with pytest.raises(KeyboardInterrupt):
        run(running, tmp_path / "cut", stop=stop_after(running, 6))
    (tmp_path / "cut" / "step-00000006.pt").write_bytes(b"half of it")
    recorder = Recorder()
    cut = run(trainer(params, shapes_file), tmp_path / "cut", recorder)
    assert "step-00000006.pt: damaged" in caplog.text
    assert "training resumes from step 4" in caplog.text
    assert recorder.steps == [8]
    assert same_weights(whole, cut)
    assert results_of(whole) == results_of(cut)


def test_a_finished_training_is_given_again_without_a_step(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 1})
    first = run(trainer(params, shapes_file), tmp_path / "run")
    recorder = Recorder()
    again = run(trainer(params, shapes_file), tmp_path / "run", recorder)
    assert recorder.steps == []
    assert recorder.history == first.history == again.history
    assert same_weights(first, again)


def test_a_finished_training_keeps_only_what_it_is_given_again_from(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    run(trainer(make_params(**{**SMALL, "train.epochs": 2}), shapes_file), tmp_path / "run")
    states = list((tmp_path / "run").glob("step-*.pt"))
    assert len(states) == 1
    assert states[0].stat().st_size < 100_000, "it holds no weights"


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_it_never_was(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    """kill -9, again and again: in steps, in validation, in the middle of writing a checkpoint."""
    params = make_params(
        **{
            **SMALL,
            "train.epochs": 3,
            "train.checkpoint_minutes": 1e-9,
            "train.ema": 0.9,
            "train.keep_best": 2,
        }
    )
    whole = run(trainer(params, shapes_file), tmp_path / "whole")
    script = Path(__file__).parents[1] / "helpers/kill_training.py"
    command = [sys.executable, str(script), str(tmp_path / "params.yaml"), str(shapes_file.path)]
    output = subprocess.run([*command, str(tmp_path / "cut")], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    report = json.loads(output.stdout)
    assert len(set(report["steps_at_kill"])) > 1, f"kills at different moments: {report}"
    for number in range(report["num_finished"]):
        cut = run(trainer(params, shapes_file), tmp_path / "cut" / str(number))
        assert same_weights(whole, cut), report
        assert results_of(whole) == results_of(cut), report


def test_every_random_generator_goes_on_where_it_was() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, ...]:
        normal = (np.random.normal(), random.gauss(0, 1), float(torch.randn(())))
        return (random.random(), np.random.rand(), float(torch.rand(())), *normal)

    draw()
    state = random_state()
    expected = draw()
    draw()
    set_random_state(state)
    assert draw() == expected
