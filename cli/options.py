"""Arguments and options that several commands share, and how a result is printed."""

import json
from typing import Annotated, Any, Literal

import typer

ModelFile = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model: models/model.pt, an exported .onnx or TorchScript file, runs:/RUN_ID[/PATH], "
        "models:/NAME@ALIAS or models:/NAME/VERSION, git:REVISION (of DVC's), or coco: torchvision's "
        "published SSD300",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A folder or .zip of images with annotations, as labelling tools export them, or a tensor file  "
        "[default: the pipeline's data/tensors/SPLIT]",
    ),
]
Split = Annotated[
    Literal["train", "val", "test", "all"] | None,
    typer.Option(
        "--split",
        help="Of a folder, as it divides itself  [default: all images], or of the pipeline's data  "
        "[default: test]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: cuda where there is one")
]


def print_json(result: Any) -> None:
    """Print a result for scripts. What else a command says goes to stderr."""
    print(json.dumps(result, indent=2, ensure_ascii=False))
