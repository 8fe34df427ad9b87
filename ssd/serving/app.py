"""The HTTP API of one or more detectors: POST /detect, GET /models, /health and /metrics."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from PIL import Image
from torch import Tensor

from ssd.errors import UserError
from ssd.inference.detector_file import DetectorFile
from ssd.inference.thresholds import Thresholds, choose_thresholds
from ssd.plots.figures import class_colour
from ssd.prepare.images import FORMATS
from ssd.serving.engine import Engine
from ssd.serving.known_host import LOOPBACK_NAMES, KnownHost
from ssd.serving.metrics import CONTENT_TYPE
from ssd.serving.service import Measured, Service
from ssd.serving.upload import Limits, decode, discard_body, read_body
from ssd.structures import Detections

PICTURE_SIDE = 1600
"""Pixels; the longer side of a picture that is sent back."""


def create_app(
    detectors: Mapping[str, DetectorFile],
    limits: Limits,
    max_batch: int = 8,
    hosts: Sequence[str] = LOOPBACK_NAMES,
) -> FastAPI:
    """The HTTP API; its detectors are closed when it shuts down.

    Args:
        detectors: by a name.
        limits: of what is taken.
        max_batch: images per batch.
        hosts: see `KnownHost`.
    """
    service = Service(detectors, limits, max_batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # Without pages of documentation, which would load scripts from elsewhere.
    app = FastAPI(title="ssd", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Measured, service=service)
    app.add_middleware(KnownHost, names=hosts)
    app.add_exception_handler(RequestValidationError, _refuse_query)
    app.add_exception_handler(Exception, _tell_failure)
    _add_detect(app, service)

    @app.get("/models")
    def models() -> dict[str, Any]:
        """What the models are, and what this server takes."""
        return {
            "models": [_describe(name, engine.detector) for name, engine in service.engines.items()],
            "formats": FORMATS,
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
        }

    @app.get("/health")
    def health() -> JSONResponse:
        """200 while images are taken, else 503."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics(), media_type=CONTENT_TYPE)

    return app


def _add_detect(app: FastAPI, service: Service) -> None:
    limits = service.limits

    @app.post("/detect")
    async def detect(
        request: Request,
        score: Annotated[float | None, Query(ge=0, le=1)] = None,
        class_score: Annotated[list[str] | None, Query()] = None,
        model: str | None = None,
        picture: bool = False,
    ) -> dict[str, Any]:
        """Detect objects in the image file that is the body.

        Args:
            score: the lowest one; by default the model's operating point, where it states one, else 0.3.
            class_score: the lowest one of a class, as star=0.5; may be repeated.
            model: its name in /models; the first one where empty.
            picture: send back the picture as shown, downscaled, as a `data:` URL.
        """
        if not service.ready:
            await discard_body(request, limits)
            raise HTTPException(503, "the detector has ended; the server has to be started again")
        with service.active_request() as admitted, service.room.share() as share:
            if not admitted:
                await discard_body(request, limits)
                raise HTTPException(503, "too many requests at once; try again", {"Retry-After": "1"})
            engine = service.engine(model)
            thresholds = _thresholds(engine, score, class_score or [])
            content = await read_body(request, limits)
            try:
                async with asyncio.timeout(limits.answer_seconds):
                    image = await decode(content, limits, share, service.decoders)
                    found = await service.detect(engine, image)
            except TimeoutError:
                raise HTTPException(
                    503, f"no answer within {limits.answer_seconds:g} seconds", {"Retry-After": "10"}
                ) from None
            answer = _answer(engine, image, thresholds, found)
            if picture:
                loop = asyncio.get_running_loop()
                answer["picture"] = await loop.run_in_executor(service.decoders, data_url, image)
            return answer


def _thresholds(engine: Engine, score: float | None, class_scores: Sequence[str]) -> Thresholds:
    try:
        return choose_thresholds(engine.detector.metadata, score, class_scores)
    except UserError as error:
        raise HTTPException(400, str(error).replace("--class-score", "class_score", 1)) from None


def _answer(engine: Engine, image: Tensor, thresholds: Thresholds, found: Detections) -> dict[str, Any]:
    """Boxes are xyxy in pixels of the image as shown."""
    names = engine.detector.class_names
    found = thresholds.keep(found)
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    answer: dict[str, Any] = {
        "model": engine.name,
        "width": image.shape[2],
        "height": image.shape[1],
        "detections": [
            {"box": [round(x, 2) for x in box], "score": round(score, 4), "label": names[label - 1]}
            for box, score, label in rows
        ],
    }
    floor = engine.detector.metadata["score_threshold"]
    if thresholds.scores.min() < floor:
        answer["warning"] = f"this model drops scores below {floor:g} itself"
    return answer


def _describe(name: str, detector: DetectorFile) -> dict[str, Any]:
    names = detector.class_names
    return {
        "name": name,
        "kind": detector.kind,
        "classes": [{"name": each, "colour": class_colour(i)} for i, each in enumerate(names, 1)],
        "score": round(float(choose_thresholds(detector.metadata, None, []).scores[0]), 3),
        **{key: detector.metadata[key] for key in ("input_size", "score_threshold", "max_detections")},
    }


def data_url(image: Tensor) -> str:
    """A JPEG of an image, uint8 RGB [3, H, W], whose longer side has at most PICTURE_SIDE pixels."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


async def _refuse_query(_: Request, error: Exception) -> JSONResponse:
    """One sentence, as for every other error."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 400)


async def _tell_failure(_: Request, error: Exception) -> JSONResponse:
    """A bug, whose traceback the server prints."""
    return JSONResponse({"detail": f"the server failed ({type(error).__name__}); its output says more"}, 500)
