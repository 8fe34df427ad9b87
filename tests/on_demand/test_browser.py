"""The demo and MLflow's pages as a person sees them, in a browser: `make browser-test`."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from small_detector import build_model, scenes

from ssd.loss import LossSettings
from ssd.models.saved import save_model
from ssd.params import TrackingParams
from ssd.source.glyphs import GLYPHS
from ssd.tracking.run import tracked_run
from tests.on_demand.browser import opened, running_browser
from tests.on_demand.servers import Server, free_port

TRACKING = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
PATIENCE = 300_000
"""Milliseconds that a page may take on a slow machine."""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


def serving(folder: Path, port: int, *command: str) -> Server:
    """`python -m COMMAND` in a folder, once it listens."""

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    python = [sys.executable, "-m", *command]
    return Server(python, dict(os.environ), folder / "server.log", listens, folder=folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one with two models."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, name in enumerate(("old.pt", "new.pt")):
        model = build_model(seed, len(GLYPHS))
        save_model(folder / name, model.state_dict(), model.config, GLYPHS, asdict(LossSettings()))
    port = free_port()
    server = serving(folder, port, "cli.main", "demo", "old.pt", "new.pt", "--port", str(port))
    yield f"http://127.0.0.1:{port}"
    server.kill()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF, which Chromium does not show, turned by EXIF: 90 pixels wide as shown, 60 high."""
    path = tmp_path_factory.mktemp("picture") / "picture.tif"
    image = Image.fromarray(scenes(1, 90, 60)[0].permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)], ids=["wide", "phone"])
def test_the_demo_shows_boxes_of_two_models_on_the_picture_that_was_decoded(
    browser: Browser, demo: str, picture: Path, width: int, phone: bool
) -> None:
    with opened(browser, width, 844, phone=phone) as page:
        page.goto(demo)
        expect(page.locator("#status")).to_contain_text("Ready: old.pt and new.pt")
        with page.expect_file_chooser() as chooser:
            page.locator("#drop").focus()
            page.keyboard.press("Enter")
        chooser.value.set_files(picture)
        expect(page.locator(".result")).to_have_count(2)
        image = page.locator(".picture img").first
        assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [90, 60]
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "no sideways scroll"

        num_boxes = page.locator(".box").count()
        assert num_boxes == page.locator(".list li").count() > 0
        page.locator("#all").focus()
        page.keyboard.press("End")
        expect(page.locator("#all-value")).to_have_text("1.00")
        assert page.locator(".box").count() < num_boxes
        expect(page.locator("#phone")).to_be_visible(visible=phone)


def test_the_demo_says_what_is_no_image_and_takes_one_by_camera(browser: Browser, demo: str) -> None:
    with opened(browser, 1280, 900) as page:
        page.goto(demo)
        expect(page.locator("#status")).to_contain_text("Ready")
        page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
        expect(page.locator("#error")).to_have_text(
            "The image cannot be used: not one of JPEG, PNG, BMP, GIF, WEBP, TIFF, PPM."
        )
        page.click("#camera")
        expect(page.locator("#video")).to_have_js_property("videoWidth", 640)
        page.click("#shoot")
        expect(page.locator(".result")).to_have_count(2)
        expect(page.locator("#error")).to_be_hidden()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a store of two runs with a curve and a picture each, and a registered model."""
    root = tmp_path_factory.mktemp("runs")
    Image.new("RGB", (40, 30), "red").save(root / "detections.png")
    ids = []
    for name, best in (("first", 0.5), ("second", 0.75)):
        params = {"train.lr": best / 100}
        with tracked_run(TRACKING, root, "train", name=name, stage_params=params) as run:
            for epoch in range(1, 6):
                run.metrics({"val/map50": best * epoch / 5}, epoch)
            run.file(root / "detections.png", "report")
            ids.append(run.id)
    client = MlflowClient(f"sqlite:///{root / 'mlflow/mlflow.db'}")
    client.create_registered_model("ssd")
    client.create_model_version("ssd", "models/model", ids[1])
    return root, ids


@pytest.fixture(scope="module")
def mlflow_pages(runs: tuple[Path, list[str]]) -> Iterator[str]:
    root, _ = runs
    port = free_port()
    server = serving(root, port, "stages.ui", str(port))
    yield f"http://127.0.0.1:{port}"
    server.kill()


def test_mlflow_compares_two_runs_and_shows_curve_picture_and_registered_model(
    browser: Browser, mlflow_pages: str, runs: tuple[Path, list[str]]
) -> None:
    _, ids = runs
    with opened(browser, 1400, 1000) as page:
        page.set_default_timeout(PATIENCE)
        page.goto(f"{mlflow_pages}/#/experiments/1/runs?workflowType=machine_learning")
        expect(page.get_by_text("first", exact=True).first).to_be_visible()
        chosen = json.dumps(ids)
        page.goto(f'{mlflow_pages}/#/compare-runs?runs={chosen}&experiments=["1"]')
        for text in ("train.lr", "val/map50", "first", "second"):
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        page.goto(f"{mlflow_pages}/#/experiments/1/runs/{ids[1]}/model-metrics")
        expect(page.locator(".js-plotly-plot path.js-line").first).to_be_attached()
        look_at_picture(page, f"{mlflow_pages}/#/experiments/1/runs/{ids[1]}/artifacts/report/detections.png")
        page.goto(f"{mlflow_pages}/#/models")
        expect(page.get_by_role("link", name="ssd", exact=True).first).to_be_visible()


def look_at_picture(page: Page, address: str) -> None:
    """MLflow shows the picture that was logged, 40 by 30 pixels."""
    page.goto(address)
    page.wait_for_function(
        "() => [...document.images].some(image => image.naturalWidth === 40 && image.naturalHeight === 30)"
    )
