"""Stage 2: check the annotations and pack each split into one tensor file.

    python -m stages.preprocess

Reads data/raw; writes data/tensors/{train,val,test}.safetensors and
reports/preprocess/{summary,problems}.json.
"""

import sys
from pathlib import Path
from typing import Any

from ssd.files import replacing_folder, write_json
from ssd.layouts import SPLITS
from ssd.params import Params
from ssd.prepare.preprocess import Preprocessed, all_problems, declared_classes, preprocess, raise_if_unusable
from ssd.prepare.sources import read_source
from ssd.prepare.splits import make_splits
from ssd.prepare.summary import list_problems, summarise
from ssd.tensor_writer import write_tensor_file
from stages.check import stop_if_incomplete
from stages.command import command

RAW = Path("data/raw")
TENSORS = Path("data/tensors")
REPORTS = Path("reports/preprocess")
NUM_PRINTED = 20
COLUMNS = {
    "images": "num_images",
    "no objects": "num_images_without_objects",
    "objects": "num_objects",
    "difficult": "num_difficult",
    "shrunk": "num_shrunk",
    "problems": "num_problems",
}


@command
def main(params: Params) -> None:
    stop_if_incomplete(params)
    catalogue = read_source(params.data, RAW)
    listing = make_splits(catalogue, params.data, params.preprocess)
    class_names = declared_classes(params.data, catalogue)
    result = preprocess(listing, class_names, params.preprocess, scratch=RAW.parent)
    # The reports come before the refusal, which points to them.
    summary = summarise(result)
    write_json(REPORTS / "summary.json", summary)
    write_json(REPORTS / "problems.json", list_problems(result))
    print_problems(result)
    raise_if_unusable(result, strict=params.preprocess.strict, report=REPORTS / "problems.json")
    with replacing_folder(TENSORS) as folder:
        for split in SPLITS:
            path = folder / f"{split}.safetensors"
            write_tensor_file(path, result.splits[split].samples, result.class_names)
    print_summary(summary)


def print_problems(result: Preprocessed) -> None:
    """Print the first problems, and where the others are."""
    problems = all_problems(result)
    for split, problem in problems[:NUM_PRINTED]:
        box = "" if problem.box is None else f" [{', '.join(f'{value:g}' for value in problem.box)}]"
        print(f"{problem.action} ({split}) {problem.file}{box}: {problem.reason}")
    if len(problems) > NUM_PRINTED:
        print(f"... and {len(problems) - NUM_PRINTED} more in {REPORTS / 'problems.json'}")


def print_summary(summary: dict[str, Any]) -> None:
    """Print a line for each split, then warnings and notes."""
    print("".join(f"{title:>12}" for title in ["split", *COLUMNS]))
    for name, split in summary["splits"].items():
        print("".join(f"{value:>12}" for value in [name, *(split[key] for key in COLUMNS.values())]))
    for kind in ("warning", "note"):
        for line in summary[f"{kind}s"]:
            print(f"{kind}: {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
