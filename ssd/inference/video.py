"""Frames of videos and cameras, one at a time, and films of pictures, by PyAV (FFmpeg's libraries)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.codec.codec import UnknownCodecError

from ssd.files import replacing
from ssd.inference.sources import Picture, Source, Unread

MAX_PIXELS = 8192 * 4320
"""Of a frame: 8K."""

CODECS = {"libx264": "yuv420p", "libopenh264": "yuv420p", "mpeg4": "yuv420p", "mjpeg": "yuvj420p"}
"""Encoders of films, the first that is there: H.264, which browsers play, before others; their pixels."""

TIME_BASE = Fraction(1, 60_000)
"""Of a film, in seconds: a multiple of most frame rates; mpeg4 has no finer one than 1/65535."""

CAMERAS = {"linux": ("/dev/video{}", "v4l2"), "darwin": ("{}", "avfoundation")}
"""FFmpeg's device for a camera's number, and its kind, by operating system."""

ASSUMED_RATE = 25
"""Frames per second of a video that does not tell its times."""


def read_frames(source: Source, every: int) -> Iterator[Picture | Unread]:
    """Each `every`-th frame of a video or camera, from the first, as shown; a camera ends with its reader."""
    number = -1
    try:
        with _opened(source) as container:
            if not container.streams.video:
                yield Unread(source, "holds no video")
                return
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                yield Unread(
                    source, f"{stream.width} x {stream.height} pixels; allowed: up to {MAX_PIXELS:,}"
                )
                return
            stream.thread_type = "AUTO"
            start = None
            for number, frame in enumerate(container.decode(stream)):
                time = Fraction(number, ASSUMED_RATE)
                if frame.pts is not None and frame.time_base is not None:
                    start = frame.pts if start is None else start
                    time = (frame.pts - start) * frame.time_base
                if number % every == 0:
                    yield Picture(source, _upright(frame), number, time)
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield Unread(source, reason if number < 0 else f"broken after frame {number}: {reason}")
        return
    if number < 0:
        yield Unread(source, "holds no frame")


def _opened(source: Source) -> Any:
    if source.kind == "camera":
        device, form = camera_device(int(source.place))
        return av.open(device, format=form)
    # A video may name other files and hosts, as playlists do; of these, only files are opened.
    return av.open(source.place, metadata_errors="ignore", options={"protocol_whitelist": "file"})


def camera_device(number: int) -> tuple[str, str]:
    """What FFmpeg calls a camera of this machine, and the kind of device.

    Raises:
        ValueError: FFmpeg does not number the cameras of this operating system.
    """
    if sys.platform not in CAMERAS:
        raise ValueError("cameras are read on Linux and macOS; record a video and name that")
    device, form = CAMERAS[sys.platform]
    return device.format(number), form


def _upright(frame: av.VideoFrame) -> torch.Tensor:
    """uint8 RGB [3, H, W]; a telephone's video is stored as its sensor lies, with a rotation beside it."""
    array = frame.to_ndarray(format="rgb24")
    # In degrees, counter-clockwise, as np.rot90.
    turned = np.rot90(array, round(frame.rotation / 90) % 4)
    return torch.from_numpy(np.ascontiguousarray(turned)).permute(2, 0, 1)


@contextmanager
def film(path: Path) -> Iterator[Callable[[np.ndarray, Fraction], None]]:
    """Write a film (.mp4), atomically: yields a function that adds uint8 RGB [H, W, 3] shown from a time on.

    All pictures are scaled to the size of the first, whose sides are made even.
    """
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = None
        last = -1

        def add(picture: np.ndarray, time: Fraction) -> None:
            nonlocal stream, last
            if stream is None:
                stream = _new_stream(container, *picture.shape[:2])
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            last = max(last + 1, round(time / TIME_BASE))
            frame.pts, frame.time_base = last, TIME_BASE
            container.mux(stream.encode(frame))

        yield add
        if stream is not None:
            container.mux(stream.encode(None))


def _new_stream(container: Any, height: int, width: int) -> Any:
    codec = next(name for name in CODECS if _is_encoder(name))
    stream = container.add_stream(codec, rate=ASSUMED_RATE)
    stream.width, stream.height = (max(2, side - side % 2) for side in (width, height))
    stream.pix_fmt = CODECS[codec]
    stream.codec_context.time_base = TIME_BASE
    return stream


def _is_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        return False
    return True
