"""A figure of one image with the detections of two detectors, its objects between them."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from ssd.metrics.outcomes import Outcomes
from ssd.plots.detections import account, draw_found
from ssd.plots.pictures import draw_objects, picture_grid, shorten, show_image
from ssd.structures import Objects


def side_by_side_figure(
    index: int,
    image: Tensor,
    objects: Objects,
    name: str,
    both: tuple[Outcomes, Outcomes],
    class_names: Sequence[str],
) -> Figure:
    """A's detections on the left, the objects in the middle, B's on the right; errors are shaded.

    Args:
        index: of the image in the split.
        image: uint8 [3, H, W].
        name: above the objects.
        both: of A and B; their scores are the lowest that are drawn.
    """
    figure, (left, middle, right) = picture_grid([image], per_image=3, images_across=1)
    show_image(middle, image, shorten(name))
    draw_objects(middle, objects, class_names)
    for side, axes, found in zip("AB", (left, right), both, strict=True):
        show_image(axes, image, f"{side}: {account(found, index)}")
        draw_found(axes, found, index, class_names)
    return figure
