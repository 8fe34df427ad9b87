"""Drawn pictures as JPEG files, and drawn films of videos."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ssd.inference.drawing import draw_detections
from ssd.inference.results_folder import ResultsFolder
from ssd.inference.sources import Picture, Source
from ssd.inference.tables import Add
from ssd.inference.video import film
from ssd.structures import Detections

QUALITY = 92


@contextmanager
def drawn_files(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """A picture per image, NAME.jpg, and a film per video, NAME.mp4, with their detections.

    Those of a former run are deleted.
    """
    results = ResultsFolder(folder)
    names = list(class_names)
    with ExitStack() as films:
        current: Source | None = None
        add_frame: Callable[[np.ndarray, Fraction], None] | None = None

        def add(picture: Picture, found: Detections) -> None:
            nonlocal current, add_frame
            drawn = draw_detections(picture.image.permute(1, 2, 0).numpy(), found, names)
            if picture.time is None:
                results.write(f"{picture.name}.jpg", _jpeg(drawn))
                return
            if add_frame is None or picture.source != current:
                films.close()  # of the video before
                current = picture.source
                add_frame = films.enter_context(film(results.place(f"{current.name}.mp4")))
            add_frame(drawn, picture.time)

        yield add


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
