"""What the requests of one server share: detectors, limits, metrics."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from ssd.inference.detector_file import DetectorFile
from ssd.serving.engine import Engine
from ssd.serving.metrics import IMAGES, SECONDS, CodeCounter, Gauge, Histogram, render
from ssd.serving.room import Room
from ssd.serving.upload import Limits
from ssd.structures import Detections

DECODERS = 2
"""Threads that decode and encode images, beside those of the detectors."""


class Service:
    """What the requests of one server share.

    Args:
        detectors: by a name; the first is asked unless a request names another.
        limits: of what is taken.
        max_batch: images per batch.
    """

    def __init__(self, detectors: Mapping[str, DetectorFile], limits: Limits, max_batch: int) -> None:
        self.limits = limits
        self.requests = CodeCounter("ssd_requests_total", "Requests to /detect by HTTP status code.")
        self.seconds = Histogram(
            "ssd_request_seconds", "Time from a request to /detect to its answer.", SECONDS
        )
        self.active = Gauge("ssd_active_requests", "Admitted requests to /detect without an answer yet.")
        self.batches = {
            name: Histogram("ssd_batch_images", "Images per batch.", IMAGES, {"model": name})
            for name in detectors
        }
        self.engines = {
            name: Engine(name, detector, max_batch, self.batches[name].observe)
            for name, detector in detectors.items()
        }
        self.room = Room(limits.max_held_pixels)
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")

    @property
    def ready(self) -> bool:
        """Whether every detector takes images."""
        return all(engine.ready for engine in self.engines.values())

    def engine(self, name: str | None) -> Engine:
        """The one of this name; the first without a name.

        Raises:
            HTTPException: there is none.
        """
        name = name or next(iter(self.engines))
        if name not in self.engines:
            raise HTTPException(404, f"no model {name[:80]!r}; there is {', '.join(self.engines)}")
        return self.engines[name]

    @contextmanager
    def active_request(self) -> Iterator[bool]:
        """Count a request, if it is admitted; whether it is. Refused ones must not keep others out."""
        if self.active.value >= self.limits.max_requests:
            yield False
            return
        self.active.value += 1
        try:
            yield True
        finally:
            self.active.value -= 1

    async def detect(self, engine: Engine, image: Tensor) -> Detections:
        """The detections of an image, uint8 RGB [3, H, W]."""
        return await asyncio.wrap_future(engine.submit(image))

    def close(self) -> None:
        """Return when all images have their detections."""
        for engine in self.engines.values():
            engine.close()
        self.decoders.shutdown()

    def metrics(self) -> str:
        """All of them, in Prometheus' text format."""
        return render([self.requests, self.seconds, self.active, *self.batches.values()])


class Measured:
    """Middleware: status codes and latencies of the requests to /detect."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["path"] != "/detect":
            await self.app(scope, receive, send)
            return
        code = 500
        start = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal code
            code = message.get("status", code)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            self.service.requests.add(code)
            self.service.seconds.observe(time.perf_counter() - start)
