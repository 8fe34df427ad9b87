"""POST /detect: what is answered, and how what cannot be is refused."""

import asyncio
import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import HTTPException, Request
from PIL import Image
from served import LIMITS
from small_detector import CLASS_NAMES, scenes
from starlette.testclient import TestClient
from starlette.types import Message
from torch import Tensor
from voc_folder import encode

from ssd.detector import Outputs
from ssd.inference.detector_file import DetectorFile
from ssd.prepare.images import decode_rgb
from ssd.serving.app import create_app
from ssd.serving.room import Room
from ssd.serving.service import Service
from ssd.serving.upload import Limits, decode, read_body

SCENE = Image.fromarray(scenes(1, 90, 60)[0].permute(1, 2, 0).numpy())
PNG = encode(SCENE, "PNG")


def detect(client: TestClient, content: bytes, **query: Any) -> dict[str, Any]:
    response = client.post("/detect", content=content, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(client: TestClient, content: bytes, query: str = "", **headers: str) -> tuple[int, str]:
    """The status code and the one sentence."""
    response = client.post(f"/detect{query}", content=content, headers=headers)
    detail = response.json()["detail"]
    assert isinstance(detail, str) and "\n" not in detail
    return response.status_code, detail


def test_detections_are_those_of_the_model(client: TestClient, detector: DetectorFile) -> None:
    (expected,) = detector.detect([torch.tensor(np.asarray(SCENE)).permute(2, 0, 1)])
    answer = detect(client, PNG, score=0)
    assert (answer["width"], answer["height"]) == (60, 90)
    assert len(answer["detections"]) == len(expected.labels) > 0
    for found, box, score, label in zip(
        answer["detections"], expected.boxes, expected.scores, expected.labels, strict=True
    ):
        assert found["box"] == pytest.approx(box.tolist(), abs=0.02)
        assert found["score"] == pytest.approx(float(score), abs=1e-4)
        assert found["label"] == CLASS_NAMES[int(label) - 1]


def test_a_photo_that_exif_turns_is_detected_as_it_is_shown(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = encode(SCENE.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert detect(client, stored) == detect(client, PNG)


def many_kinds() -> dict[str, bytes]:
    grey = np.asarray(SCENE.convert("L"))
    animation = io.BytesIO()
    SCENE.save(animation, "GIF", save_all=True, append_images=[SCENE.rotate(180)])
    return {
        "grey": encode(SCENE.convert("L"), "PNG"),
        "palette": encode(SCENE.convert("P"), "PNG"),
        "16 bits": encode(Image.fromarray(grey.astype(np.uint16) << 8), "PNG"),
        "CMYK": encode(SCENE.convert("CMYK"), "JPEG"),
        "alpha": encode(SCENE.convert("RGBA"), "PNG"),
        "TIFF": encode(SCENE, "TIFF"),
        "WebP": encode(SCENE, "WEBP"),
        "animation": animation.getvalue(),
    }


@pytest.mark.parametrize("kind", many_kinds())
def test_the_picture_that_comes_back_is_what_was_detected_in(client: TestClient, kind: str) -> None:
    """What a browser cannot show, it can show so; and boxes and pixels agree."""
    content = many_kinds()[kind]
    answer = detect(client, content, picture=True)
    scheme, _, text = answer["picture"].partition(",")
    assert scheme == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert shown.shape == (90, 60, 3)
    assert np.abs(shown.astype(int) - decode_rgb(content)).mean() < 25, "but for what JPEG loses"


def test_a_large_picture_comes_back_smaller_and_its_boxes_stay_in_its_own_pixels(
    detector: DetectorFile,
) -> None:
    app = create_app({"a": detector}, replace(LIMITS, max_pixels=10_000_000))
    with TestClient(app, "http://localhost") as client:
        answer = detect(client, encode(Image.new("RGB", (3200, 40)), "PNG"), picture=True)
    assert answer["width"] == 3200
    shown = Image.open(io.BytesIO(base64.b64decode(answer["picture"].partition(",")[2])))
    assert shown.size == (1600, 20)


def test_thresholds_are_for_all_classes_or_for_one(client: TestClient) -> None:
    everything = detect(client, PNG, score=0)["detections"]
    kept = detect(client, PNG, score=0.5, class_score=["zebra=1", "a b=0.3"])["detections"]
    lowest = {"zebra": 1.0, "a b": 0.3, "café": 0.5}
    assert kept == [found for found in everything if found["score"] >= lowest[found["label"]]]
    assert 0 < len(kept) < len(everything)


def test_a_threshold_below_the_model_s_own_is_told(client: TestClient) -> None:
    assert detect(client, PNG, score=0.1)["warning"] == "this model drops scores below 0.3 itself"
    assert "warning" not in detect(client, PNG, score=0.4)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("?score=2", 400, "score: Input should be less than or equal to 1"),
        ("?score=low", 400, "score: Input should be a valid number"),
        ("?class_score=zebr=0.5", 400, "did you mean zebra?"),
        ("?class_score=zebra", 400, "class_score zebra: needed is NAME=SCORE"),
        ("?model=c.pt", 404, "no model 'c.pt'; there is a.pt, b.pt"),
    ],
)
def test_a_wrong_query_is_told(client: TestClient, query: str, code: int, message: str) -> None:
    found = refused(client, PNG, query)
    assert found[0] == code
    assert message in found[1]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 400, "the file is empty"),
        (b"<html>no image</html>", 400, "not one of JPEG, PNG, BMP, GIF, WEBP, TIFF, PPM"),
        (PNG[:-40], 400, "does not decode"),
        (encode(Image.new("1", (400, 400)), "PNG"), 400, "400 x 400 pixels; allowed: up to 90000"),
        (b"\xff" * 200_001, 413, "longer than the 200000 bytes allowed"),
    ],
    ids=["empty", "no image", "half an image", "too many pixels", "too many bytes"],
)
def test_what_is_no_usable_image_is_told(client: TestClient, content: bytes, code: int, message: str) -> None:
    found = refused(client, content)
    assert found[0] == code
    assert message in found[1]


def test_a_body_is_bounded_while_it_arrives_without_a_length(client: TestClient) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(10_000):
            taken += 10_000
            yield b"\xff" * 10_000

    response = client.post("/detect", content=endless())
    assert response.status_code == 413
    assert "longer than" in response.json()["detail"]


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def silence() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("never set")

    request = Request({"type": "http", "headers": []}, silence)
    with pytest.raises(HTTPException, match="408: the body did not arrive within 0.01 seconds"):
        asyncio.run(read_body(request, replace(LIMITS, body_seconds=0.01)))


def test_a_form_is_told_how_to_send_an_image(client: TestClient) -> None:
    code, message = refused(client, PNG, **{"content-type": "multipart/form-data; boundary=x"})
    assert code == 415
    assert "--data-binary" in message


def test_a_foreign_name_of_this_machine_is_refused(client: TestClient) -> None:
    for path in ("/", "/models", "/health"):
        for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "::1", ""):
            response = client.get(path, headers={"host": host})
            assert response.status_code == 400
            assert response.json()["detail"].startswith("a request has to call this server localhost or ")
        for host in ("localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1"):
            assert client.get(path, headers={"host": host}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/models").headers


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (replace(LIMITS, max_requests=1), "too many requests at once; try again"),
        (
            replace(LIMITS, max_held_pixels=2 * SCENE.width * SCENE.height - 1),
            "too many pixels at once; try again",
        ),
    ],
    ids=["requests", "pixels"],
)
def test_more_than_is_allowed_at_once_is_told_to_come_again(
    detector: DetectorFile, limits: Limits, message: str
) -> None:
    opened, entered = threading.Event(), threading.Event()

    def run(images: Any) -> Outputs:
        entered.set()
        opened.wait()
        return detector.run(images)

    opened.set()
    app = create_app({"a": replace(detector, run=run)}, limits)
    with TestClient(app, "http://localhost") as client:
        opened.clear()
        entered.clear()
        answers: list[int] = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/detect", content=PNG).status_code)
        )
        first.start()
        entered.wait()
        response = client.post("/detect", content=PNG)
        opened.set()
        first.join()
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["detail"] == message
        assert answers == [200]
        assert client.get("/health").status_code == 200, "it lives"
        assert client.post("/detect", content=PNG).status_code == 200


def test_a_bug_is_told_as_every_other_error(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, detector: DetectorFile
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret\nof two lines")

    monkeypatch.setattr("ssd.serving.app._answer", fail)
    told = TestClient(client.app, "http://localhost", raise_server_exceptions=False)
    assert refused(told, PNG) == (500, "the server failed (KeyError); its output says more")


def test_a_detector_that_has_ended_is_told(detector: DetectorFile) -> None:
    client = TestClient(create_app({"a": detector}, LIMITS), "http://localhost")
    with client:
        pass
    assert refused(client, PNG) == (503, "the detector has ended; the server has to be started again")


def test_a_refused_request_keeps_no_other_one_out() -> None:
    """Its body may take long to arrive."""
    service = Service({}, replace(LIMITS, max_requests=1), 1)
    with ExitStack() as slow:
        with service.active_request() as first:
            second = slow.enter_context(service.active_request())
        with service.active_request() as third:
            assert (first, second, third) == (True, False, True)


def test_a_request_is_in_progress_until_its_picture_is_made(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def read_metrics(image: Tensor) -> str:
        seen.append(client.get("/metrics").text)
        return ""

    monkeypatch.setattr("ssd.serving.app.data_url", read_metrics)
    detect(client, PNG, picture=True)
    assert "\nssd_active_requests 1\n" in seen[0]


def test_a_decoded_image_is_as_the_network_takes_it() -> None:
    """Copies of large images are made in the decoder's thread, not between requests."""
    with ThreadPoolExecutor(1) as threads, Room(10_000).share() as share:
        image = asyncio.run(decode(PNG, LIMITS, share, threads))
    assert image.shape == (3, SCENE.height, SCENE.width)
    assert image.is_contiguous()


def test_an_image_that_nobody_waits_for_any_more_takes_no_room() -> None:
    room = Room(10)
    with room.share() as late:
        assert late.take(8)
    assert not late.take(1)
    with room.share() as share:
        assert share.take(10)


def test_a_detector_that_hangs_is_told_to_the_client(detector: DetectorFile) -> None:
    opened = threading.Event()
    opened.set()

    def run(images: Any) -> Outputs:
        opened.wait()
        return detector.run(images)

    app = create_app({"a": replace(detector, run=run)}, replace(LIMITS, answer_seconds=0.01))
    with TestClient(app, "http://localhost") as client:
        opened.clear()
        code, message = refused(client, PNG)
        opened.set()
    assert (code, message) == (503, "no answer within 0.01 seconds")
