"""What training says of its best models together, on the val split."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_training import SMALL, trainer

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.training.selection import validation_scores
from stages.fused_best import FUSED, report_fused


def test_a_model_fused_with_itself_scores_as_it_does_alone(
    make_params: Callable[..., Params],
    shapes_file: TensorFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own boxes of a class overlap by less than what is fused, after NMS."""
    monkeypatch.chdir(tmp_path)
    running = trainer(make_params(**SMALL, **{"train.keep_best": 2}), shapes_file)
    weights = {key: value.clone() for key, value in running.step.best_model().state_dict().items()}
    objects = [shapes_file.objects(index) for index in range(len(shapes_file))]
    alone = validation_scores(running._validate().detections, objects, shapes_file.class_names)
    together = report_fused(running, [weights, weights])
    assert together is not None and alone.map50 is not None and together.map50 is not None
    assert alone.map50 > 0
    assert together.map50 == pytest.approx(alone.map50, abs=1e-6)
    written = json.loads(FUSED.read_text())
    assert (written["num_models"], written["map50"], written["f1"]) == (2, together.map50, together.f1)


def test_without_others_there_is_nothing_to_say_and_no_old_file_stays(
    make_params: Callable[..., Params],
    shapes_file: TensorFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    FUSED.parent.mkdir(parents=True)
    FUSED.write_text("{}")
    assert report_fused(trainer(make_params(**SMALL), shapes_file), [{}]) is None
    assert not FUSED.exists()
