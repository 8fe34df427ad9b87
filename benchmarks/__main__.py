"""Run benchmarks, write benchmarks/results and the table of benchmarks/README.md.

python -m benchmarks                       # all
python -m benchmarks evaluation            # some
python -m benchmarks --voc data/own        # and the input pipeline on your own images
python -m benchmarks --model models/model.pt  # and the audit of broken labels by a model of shapes
python -m benchmarks --model models/model.pt --bccd BCCD fine_tuning  # and fine-tuning it on BCCD
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import (
    audit,
    bootstrap,
    detector,
    evaluation,
    evaluation_stage,
    faster_rcnn_detector,
    faster_rcnn_step,
    fine_tuning,
    gpu_training,
    gradient_exchange,
    input_pipeline,
    matching_loss,
    postprocess,
    training_step,
)
from benchmarks.harness import run
from benchmarks.results import Result, read_results, write_result
from benchmarks.table import line, update_readme

NAMES = (
    "input_pipeline",
    "input_pipeline_voc",
    "training_step",
    "matching_loss",
    "postprocess",
    "detector",
    "faster_rcnn_step",
    "faster_rcnn_detector",
    "evaluation_stage",
    "evaluation",
    "bootstrap",
    "audit",
    "fine_tuning",
    "gradient_exchange",
    "gpu_training",
)
MISSING = {
    "gpu_training": "no GPU",
    "input_pipeline_voc": "no folder of VOC images (`--voc`)",
    "audit": "no model of shapes (`--model`)",
    "fine_tuning": "no model of shapes (`--model`) or no BCCD (`--bccd`)",
}
"""Why a benchmark may have no results."""


def runnable(voc: Path | None, model: Path | None, bccd: Path | None) -> dict[str, Callable[[], Result]]:
    """The benchmarks that this machine and this command line can run."""
    found: dict[str, Callable[[], Result]] = {
        "input_pipeline": partial(run, input_pipeline.benchmark),
        "training_step": partial(run, training_step.benchmark),
        "matching_loss": partial(run, matching_loss.benchmark),
        "postprocess": partial(run, postprocess.benchmark),
        "detector": partial(run, detector.benchmark),
        "faster_rcnn_step": partial(run, faster_rcnn_step.benchmark),
        "faster_rcnn_detector": partial(run, faster_rcnn_detector.benchmark),
        "evaluation_stage": partial(run, evaluation_stage.benchmark),
        "evaluation": partial(run, evaluation.benchmark),
        "bootstrap": partial(run, bootstrap.benchmark),
        "gradient_exchange": gradient_exchange.run,
    }
    if voc is not None:
        found["input_pipeline_voc"] = partial(run, partial(input_pipeline.benchmark, voc))
    if model is not None:
        found["audit"] = partial(audit.run, model)
    if model is not None and bccd is not None:
        found["fine_tuning"] = partial(fine_tuning.run, model, bccd)
    if torch.cuda.is_available():
        found["gpu_training"] = gpu_training.run
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare with the usual implementations."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all without a name")
    parser.add_argument(
        "--voc", type=Path, metavar="FOLDER", help="images in VOC layout, for input_pipeline_voc"
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="a model.pt of the embedded data set, for audit and fine_tuning",
    )
    parser.add_argument(
        "--bccd", type=Path, metavar="FOLDER", help="BCCD (github.com/Shenggan/BCCD_Dataset), for fine_tuning"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"{name} is none of {', '.join(NAMES)}")
    possible = runnable(arguments.voc, arguments.model, arguments.bccd)
    for name in arguments.names or NAMES:
        if name not in possible:
            print(f"{name}: not run: {MISSING[name]}", flush=True)
            continue
        result = possible[name]()
        write_result(result)
        for row in result.rows:
            print(line(row), flush=True)
    update_readme(read_results(NAMES), MISSING)


if __name__ == "__main__":
    main()
