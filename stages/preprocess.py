"""Stage 2: check the annotations and pack each split into tensor files.

    python -m stages.preprocess

Reads data/raw, and data/packed, where `stages.pack` may have decoded images before, which changes no result.
Writes data/tensors/{train,val,test}, folders of `preprocess.shards` tensor files, and
reports/preprocess/{summary,problems}.json.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd.files import replacing_folder, write_json
from ssd.layouts import SPLITS
from ssd.params import Params
from ssd.prepare.annotations import Catalogue, Found, Problem
from ssd.prepare.packed import PackedImages
from ssd.prepare.preprocess import declared_classes, preprocess, raise_if_unusable
from ssd.prepare.readers.folder_files import listing as first_names
from ssd.prepare.sources import read_source
from ssd.prepare.splits import Listing, make_splits
from ssd.prepare.summary import every_problem, list_problems, summarise
from ssd.tensor_writer import write_shards
from stages.check import stop_if_incomplete
from stages.command import command

RAW = Path("data/raw")
PACKED = Path("data/packed")
TENSORS = Path("data/tensors")
REPORTS = Path("reports/preprocess")
NUM_PRINTED = 20
COLUMNS = {
    "images": "num_images",
    "no objects": "num_images_without_objects",
    "objects": "num_objects",
    "difficult": "num_difficult",
    "crowd": "num_crowd",
    "shrunk": "num_shrunk",
    "problems": "num_problems",
}


@command
def main(params: Params) -> None:
    stop_if_incomplete(params)
    catalogue, listing = read_listing(params)
    print_found(catalogue.found)
    class_names = declared_classes(params.data, catalogue)
    packed = PackedImages(PACKED, params.preprocess)
    result = preprocess(listing, class_names, params.preprocess, RAW.parent, packed)
    # The reports come before the refusal, which points to them.
    summary = summarise(result, catalogue.found)
    problems = every_problem(result, catalogue.found)
    write_json(REPORTS / "summary.json", summary)
    write_json(REPORTS / "problems.json", list_problems(problems))
    print_problems(problems)
    print_summary(summary)
    unused, strict = catalogue.found.unused, params.preprocess.strict
    raise_if_unusable(result, strict=strict, report=REPORTS / "problems.json", unused=unused)
    with replacing_folder(TENSORS) as folder:
        for split in SPLITS:
            shards = result.splits[split].shards(params.preprocess.shards)
            write_shards(folder / split, shards, result.class_names)


def read_listing(params: Params) -> tuple[Catalogue, Listing]:
    """What data/raw holds, and which image is in which split.

    Raises:
        UserError: it is missing, cannot be read, or the params do not fit it.
    """
    catalogue = read_source(params.data, RAW)
    return catalogue, make_splits(catalogue, params.data, params.preprocess)


def print_found(found: Found) -> None:
    """Print what the user's folder was taken for, and what makes up its splits."""
    if found.layout:
        print(f"read as {found.layout}: {found.num_images} images, {found.num_objects} objects")
        for split, source in found.made_of.items():
            print(f"  {split}: {source}")


def print_problems(problems: Sequence[tuple[str, Problem]]) -> None:
    """Print the first problems, those of one reason together, and where the others are."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for split, problem in problems:
        box = "" if problem.box is None else f" [{', '.join(f'{value:g}' for value in problem.box)}]"
        groups.setdefault((problem.action, split, problem.reason), []).append(f"{problem.file}{box}")
    for (action, split, reason), places in list(groups.items())[:NUM_PRINTED]:
        where = f" ({split})" if split else ""
        print(f"{action}{where} {first_names(places, limit=3)}: {reason}")
    if len(groups) > NUM_PRINTED:
        print(f"... and {len(groups) - NUM_PRINTED} kinds more in {REPORTS / 'problems.json'}")


def print_summary(summary: dict[str, Any]) -> None:
    """Print a line for each split, the account of all images and objects, then warnings and notes."""
    print("".join(f"{title:>12}" for title in ["split", *COLUMNS]))
    for name, split in summary["splits"].items():
        print("".join(f"{value:>12}" for value in [name, *(split[key] for key in COLUMNS.values())]))
    print("".join(f"{title:>12}" for title in ["", "found", "kept", "dropped"]))
    for kind in ("images", "objects"):
        counts = [summary["account"][f"num_{kind}_{what}"] for what in ("found", "kept", "dropped")]
        print("".join(f"{value:>12}" for value in [kind, *counts]))
    for kind in ("warning", "note"):
        for line in summary[f"{kind}s"]:
            print(f"{kind}: {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
