"""`ssd predict`: what a model detects in pictures and videos, drawn and as tables."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Device, ModelFile, print_json
from ssd.errors import UserError

if TYPE_CHECKING:
    from ssd.inference.detector_file import DetectorFile
    from ssd.inference.sources import Picture, Source, Unread
    from ssd.inference.tables import Add
    from ssd.inference.thresholds import Thresholds
    from ssd.structures import Detections


class Format(StrEnum):
    """What is written."""

    drawn = "drawn"
    coco = "coco"
    voc = "voc"
    yolo = "yolo"
    csv = "csv"


PLACES = {Format.coco: "coco.json", Format.csv: "detections.csv"}
"""In the folder of results; the other formats are a folder of their name."""


def predict(
    model: ModelFile,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Image and video files, folders, 'globs in quotes', camera:0, URLs of images",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results")] = Path("predictions"),
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--format", help="What to write; may be repeated  [default: drawn, or none with --json]"
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(
            help="Lowest score  [default: the operating point that the model states, or 0.3]", min=0, max=1
        ),
    ] = None,
    class_score: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCORE", help="Lowest score of a class; may be repeated"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images that the network takes at once", min=1, max=1024)] = 8,
    every: Annotated[int, typer.Option(help="Of a video, use each n-th frame", min=1)] = 1,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch http and https URLs")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace former results")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Detect objects in pictures and videos: drawn, or as COCO, VOC, YOLO or CSV.

    What cannot be read is named and skipped. The exit code is 1 if nothing could be read.
    """
    # They take seconds, and --help none.
    from cli.model import model_file
    from ssd.inference.detector_file import open_detector
    from ssd.inference.sources import find_sources
    from ssd.inference.thresholds import choose_thresholds, lowest_settings

    wanted = list(dict.fromkeys(formats or ([] if as_json else [Format.drawn])))
    refuse_to_replace(out, wanted, overwrite)
    found = find_sources(sources, out, allow_urls)
    with model_file(model) as path:
        detector = open_detector(path, device, lowest_settings(score, class_score or []))
        thresholds = choose_thresholds(detector.metadata, score, class_score or [])
        warn_of_unused(detector, thresholds, device)
        images: list[dict[str, Any]] = []
        with ExitStack() as outputs:
            adders = [outputs.enter_context(open_output(kind, out, detector.class_names)) for kind in wanted]
            if as_json:
                adders.append(json_rows(images, detector.class_names))
            tally = detect_all(detector, thresholds, found, adders, batch, every)
    if as_json:
        print_json({"images": images, **tally.as_json()})
    written = [str(out / PLACES.get(kind, f"{kind}/")) for kind in wanted]
    print("; ".join([tally.in_words(), *written]), file=sys.stderr if as_json else sys.stdout)
    if tally.interrupted:
        raise typer.Exit(130)
    if not tally.num_images:
        raise typer.Exit(1)


@dataclass
class Tally:
    """What was done. seconds: in the detector alone; interrupted: by Ctrl-C, before the last source."""

    num_images: int = 0
    num_detections: int = 0
    seconds: float = 0.0
    skipped: list["Unread"] = field(default_factory=list)
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "skipped": [{"source": unread.source.shown, "reason": unread.reason} for unread in self.skipped],
            "num_images": self.num_images,
            "num_detections": self.num_detections,
            "ms_per_image": round(1000 * self.seconds / max(self.num_images, 1), 3),
        }

    def in_words(self) -> str:
        counts = self.as_json()
        words = f"{self.num_images} images, {self.num_detections} detections"
        if self.num_images:
            words += f", {counts['ms_per_image']:.1f} ms per image in the detector"
        if self.skipped:
            words += f"; {len(self.skipped)} skipped"
        return f"stopped: {words}" if self.interrupted else words


def detect_all(
    detector: "DetectorFile",
    thresholds: "Thresholds",
    sources: "Sequence[Source]",
    adders: "Sequence[Add]",
    num_images: int,
    every: int,
) -> Tally:
    """Detect in all sources, `num_images` at once, and hand what is kept of each picture to all `adders`.

    Ctrl-C and SIGTERM end it after a batch, so that what is written is complete; a second one at once.
    """
    from tqdm import tqdm

    from ssd.inference.reading import batches, read_pictures
    from ssd.inference.sources import count_images
    from ssd.interrupt import StopSignal

    tally = Tally()
    stop = StopSignal()
    stop.install()
    try:
        with stop.held(), tqdm(total=count_images(sources), unit="image", leave=False, disable=None) as bar:
            read = readable(read_pictures(sources, every, num_images), tally.skipped)
            for batch in batches(read, num_images):
                start = perf_counter()
                detected = detector.detect([picture.image for picture in batch])
                tally.seconds += perf_counter() - start
                for picture, found in zip(batch, map(thresholds.keep, detected), strict=True):
                    for add in adders:
                        add(picture, found)
                    tally.num_detections += len(found.scores)
                tally.num_images += len(batch)
                bar.update(len(batch))
                if stop.received:
                    tally.interrupted = True
                    break
    finally:
        stop.uninstall()
    return tally


def readable(found: "Iterable[Picture | Unread]", skipped: "list[Unread]") -> "Iterator[Picture]":
    """The pictures; what cannot be read is named on stderr and added to `skipped`."""
    from tqdm import tqdm

    from ssd.inference.sources import Unread

    for picture in found:
        if isinstance(picture, Unread):
            skipped.append(picture)
            tqdm.write(f"{picture.source.shown}: skipped: {picture.reason}", file=sys.stderr)
        else:
            yield picture


def refuse_to_replace(out: Path, wanted: "Sequence[Format]", overwrite: bool) -> None:
    """Raise UserError if `out` has results of the `wanted` formats that may not be replaced."""
    for kind in wanted:
        place = out / PLACES.get(kind, kind)
        if not overwrite and (place.is_file() or (place.is_dir() and any(place.iterdir()))):
            raise UserError(f"{place}: exists; name another folder by --out, or replace it by --overwrite")


def open_output(kind: Format, out: Path, class_names: list[str]) -> "AbstractContextManager[Add]":
    """Begin to write one format below `out`."""
    from ssd.inference.drawn import drawn_files
    from ssd.inference.tables import coco_file, csv_table, voc_files, yolo_files

    writers = {
        Format.drawn: drawn_files,
        Format.coco: coco_file,
        Format.voc: voc_files,
        Format.yolo: yolo_files,
        Format.csv: csv_table,
    }
    return writers[kind](out / PLACES.get(kind, kind), class_names)


def json_rows(images: list[dict[str, Any]], class_names: list[str]) -> "Add":
    """What appends each picture and its detections to `images`."""
    from ssd.inference.tables import rows

    def add(picture: "Picture", found: "Detections") -> None:
        height, width = picture.size
        entry: dict[str, Any] = {"source": picture.source.shown, "image": picture.file_name}
        if picture.frame is not None:
            entry["frame"] = picture.frame
        images.append({**entry, "width": width, "height": height, "detections": rows(found, class_names)})

    return add


def warn_of_unused(detector: "DetectorFile", thresholds: "Thresholds", device: str) -> None:
    """Say what an exported file has of its own, so that an option does not change it."""
    built_in = detector.metadata["score_threshold"]
    # As tensors: in float32, 0.7 is less than Python's 0.7.
    if (thresholds.scores < built_in).any() and detector.kind != "model.pt":
        print(
            f"{detector.path.name} drops scores below {built_in:g}: lower thresholds change nothing",
            file=sys.stderr,
        )
    if device == "cuda" and detector.kind != "model.pt":
        print(
            f"{detector.path.name}: exported files run on the CPU; --device cuda changes nothing",
            file=sys.stderr,
        )
