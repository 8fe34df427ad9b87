"""`ssd audit`: the annotations that a model contradicts most."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Data, Device, ModelFile, Split, print_json
from cli.output import check_out
from ssd.errors import UserError

if TYPE_CHECKING:
    from ssd.loading.tensor_file import TensorFile

NUM_PRINTED = 30
LIST = "suspects.csv"
LACKING = "what --out holds lacks them, too: do not replace your annotations by its"


def audit(
    model: ModelFile,
    data: Data = None,
    split: Split = None,
    num: Annotated[int, typer.Option("--num", help="Suspects at most, the most suspicious", min=1)] = 100,
    out: Annotated[Path | None, typer.Option(help="Folder for a page with pictures, CSV, COCO, VOC")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier audit")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find annotations that are probably wrong: missing boxes, classes, sloppy boxes, duplicates.

    Audit images that the model was not trained on: it has learnt the errors of the others.
    """
    if out is not None:
        refuse_to_replace(out, overwrite)
    # They take seconds, and --help none.
    from cli.data import opened_data
    from cli.detections import detect_split, warn_of_thresholds
    from cli.model import model_file
    from ssd.audit.folders import rows_of
    from ssd.audit.suspects import find_suspects
    from ssd.inference.detector_file import open_detector

    with model_file(model) as path:
        detector = open_detector(path, device)
        warn_of_thresholds(detector)
        lacking = "" if out is None else LACKING
        with opened_data(data, split, detector.class_names, lacking) as file:
            detections = detect_split(detector, file, device)
            objects = [file.objects(index) for index in range(len(file))]
            found = find_suspects(detections, objects, len(file.class_names))
            rows = rows_of(found[:num], file)
            if as_json:
                print_json(rows)
            else:
                print_suspects(rows)
            counts = f"{len(found)} suspects among {len(file.labels)} objects in {len(file)} images"
            print(counts, file=sys.stderr)
            if out is not None:
                write_files(out, rows, file, f"{data or file.path}, audited by {model}")


def refuse_to_replace(out: Path, overwrite: bool) -> None:
    """Check that the folder is new, empty, or an earlier audit that may be replaced: it may hold corrections.

    Raises:
        UserError: it is not.
    """
    check_out(out)
    if Path.cwd().is_relative_to(out.resolve()):
        raise UserError(f"--out {out}: the current folder cannot be replaced; name one in it")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / LIST).is_file():
        raise UserError(f"--out {out}: holds something else than an audit; name a new folder")
    if not overwrite:
        raise UserError(f"{out}: exists; name another folder by --out, or replace it by --overwrite")


def write_files(out: Path, rows: list[dict[str, Any]], file: "TensorFile", title: str) -> None:
    """The page, and the suspicious images for labelling tools, in place of an earlier audit's."""
    from ssd.audit.folders import write_coco, write_csv, write_voc
    from ssd.audit.page import write_page
    from ssd.files import replacing_folder, write_json

    with replacing_folder(out.resolve()) as folder:
        write_page(folder, rows, file, title)
        write_csv(folder / LIST, rows)
        write_json(folder / "suspects.json", rows)
        write_coco(folder / "coco.json", rows, file)
        write_voc(folder / "voc", rows, file)


def print_suspects(rows: list[dict[str, Any]]) -> None:
    """The most suspicious, one line each."""
    from ssd.audit.page import sentence

    for place, row in enumerate(rows[:NUM_PRINTED], start=1):
        print(f"{place:3d}  {row['suspicion']:.3f}  {row['kind']:9s}  {row['image_id']}: {sentence(row)}")
    if len(rows) > NUM_PRINTED:
        print(f"... {len(rows) - NUM_PRINTED} more: --json or --out")
