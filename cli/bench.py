"""`ssd bench`: how long a model takes, by batch size and threads."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson, ModelFile, print_json

MAX_PICTURES = 64
"""Of a folder; they are kept in memory."""


def bench(
    model: ModelFile,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1024, help="Images per batch; several times for several [1, 8]"),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=1024, help="Threads of the network, as --batch [1]")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures; by default drawn scenes")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Batches measured of each setting")] = 30,
    as_json: AsJson = False,
) -> None:
    """Latency and throughput on the CPU: decoding, network, post-processing.

    The settings take turns, after a warm-up. Times are milliseconds per batch, p50 and p95.
    """
    # They take seconds, and --help none.
    from cli.model import model_file
    from cli.pictures import drawn_files
    from ssd.inference.detector_file import kind_of
    from ssd.inference.timing import Setting, measure

    settings = [Setting(size, number) for number in threads or [1] for size in batch or [1, 8]]
    files = drawn_files() if images is None else files_of(images)
    with model_file(model) as path:
        kind = kind_of(path)
        rows = [timed.summary() for timed in measure(path, files, settings, rounds)]
    if as_json:
        print_json(
            {"file": model, "kind": kind, "num_pictures": len(files), "rounds": rounds, "settings": rows}
        )
        return
    print_rows(rows)
    if kind != "model.pt":
        print("an exported file is one graph: network includes post-processing", file=sys.stderr)


def files_of(folder: Path) -> list[bytes]:
    """The first pictures of a folder, by name; those that do not decode are named and left out.

    Raises:
        UserError: there is none.
    """
    from ssd.errors import UserError
    from ssd.layouts import IMAGE_SUFFIXES
    from ssd.prepare.images import ImageError, decode_rgb

    if not folder.is_dir():
        raise UserError(f"--images: {folder} is no folder")
    files: list[bytes] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
        content = path.read_bytes()
        try:
            decode_rgb(content)
        except ImageError as error:
            print(f"{path}: left out: {error}", file=sys.stderr)
            continue
        files.append(content)
        if len(files) == MAX_PICTURES:
            break
    if not files:
        raise UserError(f"--images: {folder} has no picture ({', '.join(IMAGE_SUFFIXES)})")
    return files


def print_rows(rows: list[dict[str, Any]]) -> None:
    """A table: p50 and p95 of every phase."""
    phases = [key for key in rows[0] if key.endswith("_ms")]
    titles = [f"{phase.removesuffix('_ms')} ms" for phase in phases]
    print("batch threads" + "".join(f"{title:>20}" for title in titles) + f"{'images/s':>12}")
    for row in rows:
        cells = [f"{row[phase]['p50']:.1f} / {row[phase]['p95']:.1f}" for phase in phases]
        print(
            f"{row['batch']:5d} {row['threads']:7d}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"{row['images_per_s']:12.1f}"
        )
