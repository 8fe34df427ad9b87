"""What `ssd compare` says, writes and draws of a comparison."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssd.compare.comparison import Comparison, Difference
from ssd.compare.side_by_side import side_by_side_figure
from ssd.loading.tensor_file import TensorFile
from ssd.plots.figures import save_figure


def describe(compared: Comparison, image_ids: Sequence[str]) -> dict[str, Any]:
    """A comparison as plain numbers; every difference is B's figure minus A's."""
    classes = zip(compared.per_class_map.items(), compared.per_class_map50.values(), strict=True)
    return {
        "verdict": compared.verdict,
        "sentence": sentence(compared),
        "map": asdict(compared.map),
        "map50": asdict(compared.map50),
        "per_class": [
            {"class": name, "map": asdict(map_), "map50": asdict(map50)} for (name, map_), map50 in classes
        ],
        "operating_scores": [found.score for found in compared.outcomes],
        "changed_images": [
            {"image_id": image_ids[item.image], "errors_a": item.errors_a, "errors_b": item.errors_b}
            for item in compared.changed
        ],
    }


def sentence(compared: Comparison) -> str:
    """Which model is better in mAP, and by how much, or that it cannot be said."""
    match compared.verdict:
        case "B":
            return f"B is better than A by {in_words(compared.map)} mAP"
        case "A":
            return f"A is better than B: the difference is {in_words(compared.map)} mAP"
        case "none":
            return f"no difference can be claimed: {in_words(compared.map)} mAP"


def in_words(found: Difference) -> str:
    """ "+0.0213 [+0.008, +0.035]": the difference with its interval; "-" without ground truth."""
    if found.difference is None or found.interval is None:
        return "-"
    low, high = found.interval
    return f"{found.difference:+.4f} [{low:+.3f}, {high:+.3f}]"


def print_comparison(result: dict[str, Any]) -> None:
    """Both models, a row for each figure, the images that changed most, and the sentence."""
    for side, model in zip("AB", result["models"], strict=True):
        print(f"{side}  {model['model']}")
    print(
        f"{result['data']['num_images']} images, {result['resamples']} paired bootstrap resamples of them\n"
    )
    rows = [("mAP", result["map"]), ("mAP@0.5", result["map50"])]
    rows += [(f"AP {found['class']}", found["map"]) for found in result["per_class"]]
    rows += [(f"AP@0.5 {found['class']}", found["map50"]) for found in result["per_class"]]
    width = max(len(title) for title, _ in rows)
    print(f"{'':{width}}       A       B   B - A, 95 % interval")
    for title, found in rows:
        cells = (f"{'-' if found[side] is None else format(found[side], '.4f'):>8}" for side in "ab")
        print(f"{title:{width}}{''.join(cells)}   {in_words(Difference(**found))}")
    if changed := result["changed_images"]:
        score_a, score_b = result["operating_scores"]
        print(
            f"\nimages that changed most: errors of A (score ≥ {score_a:.2f}) and B (score ≥ {score_b:.2f})"
        )
        for item in changed[:10]:
            print(f"  {item['image_id']}: {item['errors_a']} and {item['errors_b']}")
    print(f"\n{result['sentence']}")


def picture_names(compared: Comparison, number: int) -> list[str]:
    """File names of the pictures of the images that changed most, at most `number`."""
    return [f"changed-{place:02d}.png" for place in range(1, min(number, len(compared.changed)) + 1)]


def draw_changes(compared: Comparison, file: TensorFile, out: Path, names: Sequence[str]) -> None:
    """Draw the images that changed most into files of these names in `out`, in place of earlier ones."""
    for former in out.glob("changed-*.png"):
        former.unlink()
    for name, item in zip(names, compared.changed, strict=False):
        figure = side_by_side_figure(
            item.image,
            file.image(item.image),
            file.objects(item.image),
            file.image_ids[item.image],
            compared.outcomes,
            file.class_names,
        )
        save_figure(figure, out / name)
