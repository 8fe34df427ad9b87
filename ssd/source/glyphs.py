"""Drawings of the eight object classes of the `shapes` data set."""

from math import cos, pi, sin

from PIL import Image, ImageChops, ImageDraw

SUPERSAMPLING = 2

GLYPHS = ("ball", "bars", "checker", "crescent", "cross", "ring", "star", "triangle")
"""Class names, alphabetical."""

Colour = tuple[int, ...]

BLACK_OR_WHITE = [0] * 128 + [255] * 128  # lookup table for Image.point: thresholds a mask


def draw_glyph(
    name: str, size: tuple[int, int], colours: tuple[Colour, Colour], degrees: float
) -> tuple[Image.Image, Image.Image]:
    """Draw one glyph.

    Args:
        name: one of GLYPHS.
        size: width and height, pixels.
        colours: RGB of the body and of its marks.
        degrees: rotation, counter-clockwise.

    Returns:
        paint: RGB image; mask: L image, 0 outside the glyph. Both have the given size. The mask
        touches all four sides.
    """
    side = max(max(size) * SUPERSAMPLING, 24)
    mask = Image.new("L", (side, side))
    paint = Image.new("RGB", (side, side), colours[0])
    _body(name, ImageDraw.Draw(mask), side)
    if name == "crescent":
        bite = Image.new("L", (side, side))
        ImageDraw.Draw(bite).ellipse((side * 0.33, side * 0.05, side * 1.1, side * 0.82), fill=255)
        mask = ImageChops.subtract(mask, bite)
    _marks(name, ImageDraw.Draw(paint), side, colours[1])
    mask = mask.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    paint = paint.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=colours[0])
    box = mask.point(BLACK_OR_WHITE).getbbox()
    return (
        paint.resize(size, Image.Resampling.BOX, box=box),
        mask.resize(size, Image.Resampling.BOX, box=box),
    )


def _body(name: str, draw: ImageDraw.ImageDraw, side: int) -> None:
    """Fill the outline of a glyph."""
    edge = side - 1
    match name:
        case "ball" | "crescent":
            draw.ellipse((0, 0, edge, edge), fill=255)
        case "ring":
            draw.ellipse((0, 0, edge, edge), fill=255)
            draw.ellipse((edge * 0.3, edge * 0.3, edge * 0.7, edge * 0.7), fill=0)
        case "bars":
            draw.rounded_rectangle((0, edge * 0.15, edge, edge * 0.85), radius=side * 0.1, fill=255)
        case "checker":
            draw.rectangle((0, 0, edge, edge), fill=255)
        case "cross":
            draw.rectangle((edge * 0.33, 0, edge * 0.67, edge), fill=255)
            draw.rectangle((0, edge * 0.33, edge, edge * 0.67), fill=255)
        case "star":
            draw.polygon(_spokes(side, num_points=5, inner=0.42), fill=255)
        case "triangle":
            draw.polygon([(edge / 2, 0), (edge, edge), (0, edge)], fill=255)


def _marks(name: str, draw: ImageDraw.ImageDraw, side: int, colour: Colour) -> None:
    """Paint the details inside the outline: a highlight, stripes, squares, dots."""
    match name:
        case "ball":
            draw.ellipse((side * 0.18, side * 0.15, side * 0.48, side * 0.45), fill=colour)
        case "bars":
            for stripe in range(1, 6, 2):
                draw.rectangle((side * stripe / 6, 0, side * (stripe + 1) / 6 - 1, side), fill=colour)
        case "checker":
            for row in range(4):
                for column in range(row % 2, 4, 2):
                    corner = (side * column / 4, side * row / 4)
                    draw.rectangle((*corner, corner[0] + side / 4 - 1, corner[1] + side / 4 - 1), fill=colour)
        case "cross":
            draw.rectangle((0, side * 0.33, side, side * 0.67), fill=colour)
        case "star":
            draw.ellipse((side * 0.34, side * 0.37, side * 0.66, side * 0.69), fill=colour)
        case "crescent":
            for dot in (0.45, 0.6, 0.75):
                draw.ellipse((side * 0.1, side * (dot - 0.05), side * 0.2, side * (dot + 0.05)), fill=colour)
        case "triangle":
            draw.rectangle((0, side * 0.75, side, side), fill=colour)


def _spokes(side: int, num_points: int, inner: float) -> list[tuple[float, float]]:
    """Corners of a star, alternately outer and inner, the first at the top."""
    middle = (side - 1) / 2
    corners = []
    for corner in range(2 * num_points):
        radius = middle * (inner if corner % 2 else 1.0)
        angle = pi * corner / num_points
        corners.append((middle + radius * sin(angle), middle - radius * cos(angle)))
    return corners
