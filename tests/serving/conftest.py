"""The HTTP API around a small detector, in the test's own process."""

from collections.abc import Iterator

import pytest
from served import LIMITS, detector_file
from starlette.testclient import TestClient

from ssd.inference.detector_file import DetectorFile
from ssd.serving.app import create_app
from ssd.serving.page import add_page


@pytest.fixture(scope="session")
def detector() -> DetectorFile:
    return detector_file()


@pytest.fixture(scope="module")
def client(detector: DetectorFile) -> Iterator[TestClient]:
    """Of a server of the demo, with two models."""
    app = create_app({"a.pt": detector, "b.pt": detector}, LIMITS)
    add_page(app)
    with TestClient(app, "http://127.0.0.1:8000") as client:
        yield client
