"""One thread owns a detector: batches, failures of single images, the end."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_detector import scenes
from torch import Tensor

from ssd.detector import Outputs
from ssd.inference.detector_file import DetectorFile
from ssd.serving.engine import Engine

IMAGES = [*scenes(3, 64, 80), *scenes(2, 50, 40)]


class Gate:
    """A detector that, once closed, waits for `open`; batches: the sizes that it was asked for."""

    def __init__(self, detector: DetectorFile) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.opened.set()
        self.detector = replace(detector, run=self.guarded(detector.run))

    def guarded(self, run: Callable[[Tensor], Outputs]) -> Callable[[Tensor], Outputs]:
        def wait_and_run(images: Tensor) -> Outputs:
            self.entered.set()
            self.opened.wait()
            return run(images)

        return wait_and_run

    def close(self) -> None:
        self.opened.clear()
        self.entered.clear()


@pytest.fixture
def gate(detector: DetectorFile) -> Gate:
    return Gate(detector)


@pytest.fixture
def engine(gate: Gate) -> Engine:
    return Engine("model", gate.detector, 4, gate.batches.append)


def hold(gate: Gate, engine: Engine) -> None:
    """The engine is busy with one image, so that what comes next waits together."""
    gate.close()
    engine.submit(IMAGES[0])
    gate.entered.wait()


def test_images_that_wait_together_are_one_batch_and_each_gets_its_own_detections(
    gate: Gate, engine: Engine, detector: DetectorFile
) -> None:
    hold(gate, engine)
    futures = [engine.submit(image) for image in IMAGES]
    gate.opened.set()
    for future, image in zip(futures, IMAGES, strict=True):
        (alone,) = detector.detect([image])
        found = future.result()
        assert len(alone.labels) > 0
        assert found.labels.tolist() == alone.labels.tolist()
        assert found.boxes.allclose(alone.boxes, atol=1e-3)
        assert found.scores.allclose(alone.scores, atol=1e-5)
    assert gate.batches == [1, 4, 1], "max_batch is 4"
    engine.close()


def test_a_batch_is_bounded_by_pixels_and_what_is_left_comes_next(
    gate: Gate, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.serving.engine.MAX_PIXELS", 2 * 64 * 80)
    hold(gate, engine)
    futures = [engine.submit(IMAGES[0]) for _ in range(3)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.opened.set()
    closing.join()
    assert gate.batches == [1, 2, 1]
    assert all(len(future.result().labels) > 0 for future in futures)


def test_an_image_that_fails_fails_alone(gate: Gate, engine: Engine) -> None:
    hold(gate, engine)
    futures = [engine.submit(image) for image in (IMAGES[0], torch.zeros(2, 64, 80, dtype=torch.uint8))]
    gate.opened.set()
    assert len(futures[0].result().labels) > 0
    with pytest.raises(RuntimeError):
        futures[1].result()
    assert engine.ready
    engine.close()


def test_nobody_s_image_is_not_run(gate: Gate, engine: Engine) -> None:
    hold(gate, engine)
    assert engine.submit(IMAGES[0]).cancel()
    gate.opened.set()
    engine.close()
    assert gate.batches == [1]


def test_what_waits_when_it_closes_is_still_answered(gate: Gate, engine: Engine) -> None:
    hold(gate, engine)
    futures = [engine.submit(image) for image in IMAGES]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.opened.set()
    closing.join()
    assert all(future.done() and not future.exception() for future in futures)
    assert not engine.ready
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(IMAGES[0])
