"""A training that must give the same losses as the day it was written down: it guards the numerics."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_training import SMALL, build, run, trainer

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params

MakeParams = Callable[..., Params]

# (total, loc, conf) of each epoch, by the settings below, in float32. Change them only with a reason to give.
GOLDEN = [
    (7.889165, 2.950076, 4.939089),
    (7.927095, 3.100442, 4.826652),
    (7.483570, 2.743198, 4.740371),
]


def test_the_losses_are_the_golden_ones(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    changes = {"train.epochs": 3, "train.lr": 0.003, "train.optimizer": "sgd", "train.clip_norm": 5.0}
    running = trainer(make_params(**{**SMALL, **changes}), shapes_file, model=build())
    result = run(running, tmp_path / "run")
    losses = [(row.train_loss, row.train_loc, row.train_conf) for row in result.history]
    # Other processors and other numbers of threads, adding in another order, differed by less than 1e-6.
    assert losses == [pytest.approx(golden, rel=1e-4) for golden in GOLDEN]
