"""Debian's Chromium, driven by playwright, and what a page complains of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
"""A camera that films a clock, and may be used without a question."""


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless one."""
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root.
        sandbox = os.geteuid() != 0
        browser = playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS, chromium_sandbox=sandbox
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, width: int, height: int, *, phone: bool = False) -> Iterator[Page]:
    """A page of its own; no script of it may fail."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if phone else "light",
    )
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert failures == []
