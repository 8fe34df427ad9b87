"""`ssd compare`: which of two models is better on the same images, and whether that can be claimed."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson, Data, Device, ModelFile, Split, print_json
from cli.output import check_out

if TYPE_CHECKING:
    from ssd.inference.detector_file import DetectorFile
    from ssd.tracking.champion import Challenge

PROMOTE = "Make B, models:/NAME/VERSION, the registered model's champion if it is better than A, the champion"


def compare(
    a: ModelFile,
    b: ModelFile,
    data: Data = None,
    split: Split = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the intervals", min=1)] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.json and pictures")] = None,
    num_pictures: Annotated[int, typer.Option(help="Images that changed most, to be drawn", min=0)] = 12,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 1 unless B is better in mAP: for CI")] = False,
    promote: Annotated[bool, typer.Option("--promote", help=PROMOTE)] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same annotated images: paired bootstrap of the difference, B minus A.

    B is better where the 95 % interval of the difference of mAP lies above zero.
    """
    check_out(out)
    # They take seconds, and --help none.
    from cli.comparison import describe, draw_changes, in_words, picture_names, print_comparison
    from cli.data import data_digest, opened_data
    from cli.detections import detect_alike
    from cli.model import model_file, tracking_params
    from ssd.compare.comparison import compare_detections
    from ssd.files import sha256, write_json
    from ssd.inference.detector_file import open_detector
    from ssd.tracking.champion import move_champion, open_challenge
    from stages.command import workspace

    challenge = open_challenge(a, b, tracking_params(), workspace()) if promote else None
    names = pinned(a, b, challenge)
    with ExitStack() as stack:
        paths = [stack.enter_context(model_file(name)) for name in names]
        detectors = [open_detector(path, device) for path in paths]
        class_names = common_classes(names, detectors)
        file = stack.enter_context(opened_data(data, split, class_names))
        found = detect_alike(detectors, file, device)
        objects = [file.objects(index) for index in range(len(file))]
        compared = compare_detections(found[0], found[1], objects, class_names, resamples)
        result = {
            "models": [
                {"model": name, "sha256": sha256(path)} for name, path in zip(names, paths, strict=True)
            ],
            "data": {"sha256": data_digest(file), "num_images": len(file), "num_objects": len(file.labels)},
            "resamples": resamples,
            **describe(compared, file.image_ids),
        }
        if out is not None:
            result["pictures"] = picture_names(compared, num_pictures)
        if as_json:
            print_json(result)
        else:
            print_comparison(result)
        if out is not None:
            draw_changes(compared, file, out, result["pictures"])
            write_json(out / "comparison.json", result)
    if challenge is not None and compared.verdict == "B":
        reasons = {
            "data_sha256": result["data"]["sha256"],
            "over": names[0],
            "map_difference": in_words(compared.map),
        }
        move_champion(challenge, reasons, tracking_params(), workspace())
    if challenge is not None:
        done = "is the champion now" if compared.verdict == "B" else "does not become the champion"
        print(f"{challenge.uri} {done}", file=sys.stderr)
    if gate and compared.verdict != "B":
        print("--gate: B is not better", file=sys.stderr)
        raise typer.Exit(1)


def pinned(a: str, b: str, challenge: "Challenge | None") -> list[str]:
    """The models to compare; by version where the champion is at stake, because aliases may move."""
    if challenge is None:
        return [a, b]
    champion = challenge.champion
    return [a if champion is None else f"models:/{challenge.name}/{champion}", challenge.uri]


def common_classes(names: list[str], detectors: "list[DetectorFile]") -> list[str]:
    """The class names of both models.

    Raises:
        UserError: they differ.
    """
    from ssd.errors import UserError

    of_a, of_b = (", ".join(detector.class_names) for detector in detectors)
    if of_a != of_b:
        raise UserError(
            f"models of different classes do not compare: {names[0]} has {of_a}; {names[1]} has {of_b}"
        )
    return detectors[0].class_names
