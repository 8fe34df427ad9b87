"""An image from the body of a request: bounded in bytes, pixels and time."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect
from torch import Tensor

from ssd.prepare.images import ImageError, decode_rgb
from ssd.serving.room import Share

CLIENT_GONE = 499
"""The status code that servers log where nobody is left to get an answer."""


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    max_bytes: of a body; max_pixels: of an image; max_requests: at once, further ones are refused, which
    bounds the memory for bodies; max_held_pixels: of the images of all requests, which bounds the memory for
    these; body_seconds: for sending a body; answer_seconds: for decoding and detection.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_requests: int = 32
    max_held_pixels: int = 200_000_000
    body_seconds: float = 30.0
    answer_seconds: float = 60.0


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request, which is counted as it arrives, whatever its headers say.

    Raises:
        HTTPException: it is too long (413), too slow (408), or a form (415).
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        await discard_body(request, limits)
        raise HTTPException(
            415,
            "the body is a multipart form; send the bytes of the image file as the body, as "
            "curl --data-binary @picture.jpg does",
        )
    content = await _read(request, limits, limits.max_bytes)
    if content is None:
        raise HTTPException(413, f"the body is longer than the {limits.max_bytes} bytes allowed")
    return content


async def discard_body(request: Request, limits: Limits) -> None:
    """Read a body, and keep nothing of it."""
    await _read(request, limits, 0)


async def _read(request: Request, limits: Limits, num_kept: int) -> bytes | None:
    """A body of at most `num_kept` bytes; None for a longer one.

    That one is still read, up to twice what is allowed: a client that sends when the connection is closed
    never sees the answer.
    """
    chunks: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > 2 * limits.max_bytes:
                    return None
                if num_bytes > num_kept:
                    chunks.clear()
                else:
                    chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(
            408, f"the body did not arrive within {limits.body_seconds:g} seconds", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise HTTPException(CLIENT_GONE, "the client has gone") from None
    return b"".join(chunks) if num_bytes <= num_kept else None


async def decode(content: bytes, limits: Limits, share: Share, threads: Executor) -> Tensor:
    """The image as shown, uint8 RGB [3, H, W], contiguous: whoever needs it copies nothing.

    Args:
        share: of which room for the image is taken.

    Raises:
        HTTPException: it is none that can be used (400), or there is too little memory for it (503).
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(threads, partial(_decode, content, limits, share))
    except ImageError as error:
        raise HTTPException(400, f"the image cannot be used: {error}") from None
    except MemoryError:
        raise HTTPException(503, "too little memory for this image now", {"Retry-After": "1"}) from None


def _decode(content: bytes, limits: Limits, share: Share) -> Tensor:
    """In a decoder's thread; those are few, so what they decode need not be in the share before."""
    rgb = decode_rgb(content, limits.max_pixels)
    if not share.take(rgb.shape[0] * rgb.shape[1]):
        raise HTTPException(503, "too many pixels at once; try again", {"Retry-After": "1"})
    return torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order="C"))
