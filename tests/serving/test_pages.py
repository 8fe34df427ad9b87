"""What else a server answers: health, metrics, its models, and the page of the demo."""

import re

import pytest
from served import LIMITS
from small_detector import CLASS_NAMES
from starlette.testclient import TestClient

from ssd.inference.detector_file import DetectorFile
from ssd.plots.figures import class_colour
from ssd.serving.app import create_app
from ssd.serving.page import content_policy


def test_models_say_what_they_are_and_what_is_taken(client: TestClient) -> None:
    answer = client.get("/models").json()
    assert [model["name"] for model in answer["models"]] == ["a.pt", "b.pt"]
    model = answer["models"][0]
    assert (model["input_size"], model["score_threshold"], model["max_detections"]) == (64, 0.3, 40)
    assert model["classes"] == [
        {"name": name, "colour": class_colour(label)} for label, name in enumerate(CLASS_NAMES, 1)
    ]
    assert answer["max_bytes"] == LIMITS.max_bytes


def test_health_is_503_once_the_detectors_are_closed(detector: DetectorFile) -> None:
    app = create_app({"a": detector}, LIMITS)
    client = TestClient(app, "http://localhost")
    with client:
        assert client.get("/health").json() == {"ready": True}
    response = client.get("/health")
    assert (response.status_code, response.json()) == (503, {"ready": False})


def test_metrics_count_requests_errors_latencies_and_batches(detector: DetectorFile) -> None:
    app = create_app({"a.pt": detector}, LIMITS)
    with TestClient(app, "http://localhost") as client:
        assert client.post("/detect", content=b"P6 1 1 255 \0\0\0").status_code == 200
        assert client.post("/detect", content=b"no image").status_code == 400
        client.get("/health")
        response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.text.splitlines()
    assert 'ssd_requests_total{code="200"} 1' in lines
    assert 'ssd_requests_total{code="400"} 1' in lines
    assert "ssd_request_seconds_count 2" in lines
    assert 'ssd_batch_images_count{model="a.pt"} 1' in lines
    assert "ssd_active_requests 0" in lines
    sample = re.compile(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)


def test_the_page_may_load_and_send_nothing_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert policy == content_policy(response.text)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"(https?:)?//[a-z]|\sstyle=|\son[a-z]+=|innerHTML", response.text)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_there_is_no_page_that_loads_scripts_from_elsewhere(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_server_of_the_api_alone_has_no_page(detector: DetectorFile) -> None:
    with TestClient(create_app({"a": detector}, LIMITS), "http://localhost") as client:
        assert client.get("/").status_code == 404
