"""What several test files share: small real inputs, made here."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import loopback as lb
import numpy as np
import pytest
import torch
from default_params import default_text
from loopback import Loopback

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params, TrackingParams, load_params
from ssd.source.glyphs import GLYPHS
from ssd.source.shapes import draw_scene
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

LONGEST = ("test_pipeline.py", "test_experiments.py", "test_several_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: each is run by one worker, and none should be left alone in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path not in slow))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors: threads would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_server_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that run in a test's process log to the test's own store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def make_params(tmp_path: Path) -> Callable[..., Params]:
    """The default params with changes, also as a file: make_params(**{"train.lr": 0.1})."""

    def make(**changes: object) -> Params:
        path = tmp_path / "params.yaml"
        path.write_text(default_text(**changes))
        return load_params(path)

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A server in place of the hosts of public files."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with lb.serving() as running:
        yield running


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MLflow store that has no run. MLflow takes seconds to make one: copy it."""
    from ssd.tracking.client import open_store

    root = tmp_path_factory.mktemp("empty")
    settings = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
    with pytest.MonkeyPatch.context() as own:
        own.delenv("MLFLOW_TRACKING_URI", raising=False)
        _, writer = open_store(settings, root)
    writer.gone()
    return root


@pytest.fixture(scope="session")
def shapes_file(tmp_path_factory: pytest.TempPathFactory) -> TensorFile:
    """A tensor file of 16 small scenes."""
    samples = []
    for index in range(16):
        image, objects = draw_scene(np.random.default_rng([0, index]), 96)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=92)
        samples.append(
            AnnotatedImage(
                id=f"scene{index}",
                encoded=content.getvalue(),
                size=(image.height, image.width),
                boxes=[item.box for item in objects],
                labels=[GLYPHS.index(item.name) + 1 for item in objects],
                difficult=[item.difficult for item in objects],
                crowd=[False] * len(objects),
            )
        )
    path = tmp_path_factory.mktemp("shapes") / "train.safetensors"
    write_tensor_file(path, samples, GLYPHS)
    return TensorFile(path)
