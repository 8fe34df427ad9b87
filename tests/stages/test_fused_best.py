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
    """Its own boxes of a class overlap by less than what is fused, after NMS. F1 is at `train.f1_score`."""
    monkeypatch.chdir(tmp_path)
    changes = {"train.keep_best": 2, "train.f1_score": 0.01}
    running = trainer(make_params(**SMALL, **changes), shapes_file)
    weights = {key: value.clone() for key, value in running.step.best_model().state_dict().items()}
    objects = [shapes_file.objects(index) for index in range(len(shapes_file))]
    found = running._validate()
    alone, other = (
        validation_scores(found.detections, objects, shapes_file.class_names, threshold)
        for threshold in (0.01, 0.0)
    )
    together = report_fused(running, [weights, weights])
    assert together is not None and alone.map50 is not None and together.map50 is not None
    assert alone.map50 > 0
    assert running._scores(found) == alone
    assert alone.f1 is not None and other.f1 is not None
    assert together.f1 == pytest.approx(alone.f1, rel=1e-3)
    assert 0 < alone.f1 < 0.9 * other.f1
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
