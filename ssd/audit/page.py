"""The suspects as a page to look through: index.html and a picture of each."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ssd.audit.suspects import Box
from ssd.files import write_bytes
from ssd.loading.tensor_file import TensorFile
from ssd.plots.figures import class_colour, save_figure
from ssd.plots.pictures import draw_box, draw_objects, picture_grid, show_image
from ssd.structures import Objects

MARGIN = 0.6
"""Of a crop, at each side, times the longer side of what is in it."""

STYLE = """
body { font: 16px/1.4 sans-serif; margin: 1rem auto; max-width: 76rem; padding: 0 1rem }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); padding: 0 }
li { border: 1px solid #bbb; border-radius: 4px; list-style: none; padding: .5rem }
img { height: auto; width: 100% }
"""


def sentence(row: dict[str, Any]) -> str:
    """What is suspicious about an annotation, in words."""
    annotated, seen, score = row["annotated"], row["seen"], row["score"]
    match row["kind"]:
        case "missing":
            return f"no object is annotated where the model sees {seen} ({score:.2f})"
        case "class":
            return f"annotated as {annotated}, the model sees {seen} ({score:.2f})"
        case "box":
            return f"the box of {annotated} is not that of the model ({score:.2f})"
        case "duplicate":
            return f"{annotated} is annotated twice"
        case _:
            return f"annotated as {annotated}, the model sees nothing"


def write_page(folder: Path, rows: Sequence[dict[str, Any]], file: TensorFile, title: str) -> None:
    """Write index.html and pictures/NNN.png, a crop around each suspect: annotations left, the model right.

    Args:
        rows: of `ssd.audit.folders.rows_of`, in the order of the page.
        title: what was audited, by what.
    """
    items = []
    for place, row in enumerate(rows, start=1):
        picture = f"pictures/{place:03d}.png"
        save_figure(suspect_figure(row, file), folder / picture)
        text = f"{place}. {row['suspicion']:.3f} {row['kind']}: {sentence(row)}; {row['image_id']}"
        items.append(f'<li><img src="{picture}" alt="" loading="lazy"><br>{escape(text)}</li>')
    content = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1>",
        "<p>Left what is annotated, right what the model sees instead; the most suspicious first.</p>",
        "<ol>",
        *items,
        "</ol></body></html>\n",
    ]
    write_bytes(folder / "index.html", "\n".join(content).encode())


def suspect_figure(row: dict[str, Any], file: TensorFile) -> Figure:
    """The part of the image around a suspect: its annotations, and what the model sees instead of it."""
    image, objects = file.image(row["image"]), file.objects(row["image"])
    boxes = [box for box in (row["annotated_box"], row["seen_box"]) if box is not None]
    left, top, right, bottom = crop_around(boxes, *image.shape[1:])
    part = image[:, top:bottom, left:right]
    shift = torch.tensor([left, top, left, top])
    figure, (annotated, seen) = picture_grid([part], per_image=2, images_across=1)
    show_image(annotated, part, "annotated")
    moved = objects.boxes - shift
    inside = (moved[:, 2:] > 0).all(1) & (moved[:, :2] < torch.tensor([right - left, bottom - top])).all(1)
    near = Objects(moved[inside], objects.labels[inside], objects.ignored[inside])
    draw_objects(annotated, near, file.class_names)
    show_image(seen, part, "the model")
    if row["seen_box"] is not None:
        box = (torch.tensor(row["seen_box"]) - shift).tolist()
        draw_box(seen, box, class_colour(row["seen_label"]), f"{row['seen']} {row['score']:.2f}")
    return figure


def crop_around(boxes: Sequence[Box], height: int, width: int) -> tuple[int, int, int, int]:
    """The part of an image to show, as whole pixels: left, top, right, bottom."""
    corners = torch.tensor(boxes)
    (x1, y1), (x2, y2) = corners[:, :2].amin(0).tolist(), corners[:, 2:].amax(0).tolist()
    margin = MARGIN * max(x2 - x1, y2 - y1)
    left, top = max(int(x1 - margin), 0), max(int(y1 - margin), 0)
    return left, top, min(int(x2 + margin) + 1, width), min(int(y2 + margin) + 1, height)
