"""A figure of detections beside the ground truth, with what is wrong at the operating point."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ssd.metrics.outcomes import Outcomes
from ssd.plots.figures import class_colour
from ssd.plots.pictures import draw_box, picture_grid, shorten, show_image, write_on

PAIRS_ACROSS = 2


def detection_figure(
    found: Outcomes, images: Mapping[int, Tensor], image_ids: Sequence[str], class_names: Sequence[str]
) -> Figure:
    """Each image twice, side by side: its objects, and its detections with at least the score of `found`.

    Errors are shaded: missed objects, false alarms, and, with a note, classes taken for others. What does not
    count, because of an ignored object, is dashed.

    Args:
        images: those to draw, uint8 [3, H, W], by their index in the split.
        image_ids: of all images of the split.
        class_names: in label order.
    """
    figure, panels = picture_grid(list(images.values()), per_image=2, images_across=PAIRS_ACROSS)
    if not images:
        write_on(panels[0], "no image to show")
    for place, (index, image) in enumerate(images.items()):
        left, right = panels[2 * place : 2 * place + 2]
        show_image(left, image, shorten(image_ids[index]))
        show_image(right, image, account(found, index))
        if not draw_truth(left, found, index, class_names):
            write_on(left, "no object")
        if not draw_found(right, found, index, class_names):
            write_on(right, f"no detection with a score of {found.score:.2f} or more")
    return figure


def account(found: Outcomes, index: int) -> str:
    """How many of an image's objects were found, and its errors: "4 found, 1 missed, 2 false alarms"."""
    images, truth = found.judged.found.images, found.judged.truth.images
    num_false = np.count_nonzero(images[found.false_alarms] == index)
    counts = {
        "found": np.count_nonzero(images[found.correct[0]] == index),
        "as another class": np.count_nonzero(images[found.confused[0]] == index),
        "missed": np.count_nonzero(truth[found.missed] == index),
        "false alarm" if num_false == 1 else "false alarms": num_false,
    }
    return ", ".join(f"{number} {what}" for what, number in counts.items() if number or what == "found")


def draw_truth(axes: Axes, found: Outcomes, index: int, class_names: Sequence[str]) -> int:
    """Draw the objects of an image; return their number."""
    truth, ignored = found.judged.truth, found.judged.ignored
    taken_for = dict(
        zip(found.confused[1].tolist(), found.judged.found.labels[found.confused[0]], strict=True)
    )
    errors = {*taken_for, *found.missed.tolist()}
    rows = np.flatnonzero(truth.images == index).tolist()
    for row in rows:
        label, text = int(truth.labels[row]), class_names[truth.labels[row] - 1]
        if row in taken_for:
            text += f" (as {class_names[taken_for[row] - 1]})"
        if ignored[row]:
            text += " (ignored)"
        box, colour = truth.boxes[row].tolist(), class_colour(label)
        draw_box(axes, box, colour, text, dashed=bool(ignored[row]), shaded=row in errors)
    return len(rows)


def draw_found(axes: Axes, found: Outcomes, index: int, class_names: Sequence[str]) -> int:
    """Draw the detections of an image that reach the score, the best on top; return their number."""
    judged = found.judged
    really = dict(zip(found.confused[0].tolist(), judged.truth.labels[found.confused[1]], strict=True))
    errors = {*really, *found.false_alarms.tolist()}
    rows = np.flatnonzero((judged.found.images == index) & (judged.scores >= found.score))
    for row in rows[np.argsort(judged.scores[rows], kind="stable")].tolist():
        label, ignored = int(judged.found.labels[row]), not judged.counted[row]
        text = f"{class_names[label - 1]} {judged.scores[row]:.2f}"
        if row in really:
            text += f" (is {class_names[really[row] - 1]})"
        if ignored:
            text += " (ignored)"
        box, colour = judged.found.boxes[row].tolist(), class_colour(label)
        draw_box(axes, box, colour, text, dashed=ignored, shaded=row in errors)
    return len(rows)
