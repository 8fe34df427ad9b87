"""Images with boxes on them: what the figures of detections, labels and augmentation are made of."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ssd.plots.figures import class_colour, text_colour
from ssd.structures import Objects

PICTURE_INCHES = 3.2  # width of one picture
LABELLED_ACROSS = 4


def spread(num_images: int, num_pictures: int) -> list[int]:
    """Indices of the images to show, evenly over a split, the same at every run."""
    num_pictures = min(num_pictures, num_images)
    return [index * num_images // num_pictures for index in range(num_pictures)]


def picture_grid(images: Sequence[Tensor], per_image: int, images_across: int) -> tuple[Figure, list[Axes]]:
    """A figure with `per_image` axes for each image, in reading order, high enough for the images' shapes."""
    across = max(1, min(images_across, len(images)))
    aspects = [image.shape[1] / image.shape[2] for image in images] or [1.0]
    heights = [max(aspects[start : start + across]) for start in range(0, len(aspects), across)]
    figure = Figure(
        figsize=(PICTURE_INCHES * across * per_image, PICTURE_INCHES * sum(heights) + 0.3 * len(heights)),
        layout="constrained",
    )
    grid = figure.subplots(
        len(heights), across * per_image, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    panels: list[Axes] = list(grid.flat)
    for axes in panels:
        axes.set_axis_off()
    return figure, panels


def show_image(axes: Axes, image: Tensor, title: str) -> None:
    """Draw an image, uint8 [3, H, W], so that the axes' coordinates are those of boxes in its pixels."""
    height, width = image.shape[1:]
    # Pixel i covers [i, i + 1): the half-open coordinates of the boxes.
    axes.imshow(image.permute(1, 2, 0).cpu().numpy(), extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    if title:
        axes.set_title(title, fontsize=8, pad=3, parse_math=False)


def write_on(axes: Axes, text: str) -> None:
    """Words in the middle of a picture, or of the place of one."""
    patch = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 3}
    middle = axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=patch
    )
    middle.set_in_layout(False)


def shorten(name: str, longest: int = 34) -> str:
    """A name without its middle where it is longer than a picture is wide."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def draw_objects(axes: Axes, objects: Objects, class_names: Sequence[str]) -> None:
    """Boxes with class names; ignored objects are dashed."""
    for box, label, ignored in zip(
        objects.boxes.tolist(), objects.labels.tolist(), objects.ignored.tolist(), strict=True
    ):
        text = class_names[label - 1] + (" (ignored)" if ignored else "")
        draw_box(axes, box, class_colour(label), text, dashed=ignored)


def draw_box(
    axes: Axes,
    box: Sequence[float],
    colour: str,
    text: str,
    *,
    dashed: bool = False,
    shaded: bool = False,
) -> None:
    """One xyxy box in pixels, with its text on a patch of its colour at an upper corner."""
    x1, y1, x2, y2 = box
    if shaded:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, color=colour, alpha=0.25, linewidth=0))
    # A white outline keeps the box visible on a background of its own colour.
    for edge, points, style in (("white", 3.2, "-"), (colour, 1.8, "--" if dashed else "-")):
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False)
        outline.set(edgecolor=edge, linewidth=points, linestyle=style)
        axes.add_patch(outline)

    # Above the box where the picture has room, else inside; towards the middle, so as to stay in the picture.
    image_width = axes.get_xlim()[1]
    above, right = y1 > 0.06 * image_width, x1 + x2 > 1.3 * image_width
    label = axes.annotate(
        text,
        (min(x2, image_width) if right else max(x1, 0), y1 if above else max(y1, 0)),
        xytext=(-2 if right else 2, 2 if above else -3),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if above else "top",
        fontsize=6.5,
        color=text_colour(colour),
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
        parse_math=False,
    )
    label.set_in_layout(False)


def label_figure(
    images: Sequence[Tensor],
    objects: Sequence[Objects],
    image_ids: Sequence[str],
    class_names: Sequence[str],
) -> Figure:
    """Images, uint8 [3, H, W], with their objects; ignored ones (difficult, crowd) are dashed."""
    figure, panels = picture_grid(images, per_image=1, images_across=LABELLED_ACROSS)
    for axes, image, truth, name in zip(panels, images, objects, image_ids, strict=False):
        show_image(axes, image, shorten(name))
        draw_objects(axes, truth, class_names)
        if not len(truth.labels):
            write_on(axes, "no object")
    return figure
