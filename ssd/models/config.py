"""The configuration of a network: saved with its weights, sufficient to rebuild it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ssd.errors import UserError
from ssd.models.auxiliary import NORMED, PLAIN, SSDLITE, TAPERED, Auxiliary
from ssd.models.backbones import CONV4
from ssd.models.feature_maps import Shapes, map_shapes
from ssd.models.priors import PriorLevel, paper_levels, table_levels
from ssd.models.vgg import InputScale
from ssd.params import ModelParams

Neck = Literal["none", "fpn"]
HeadKind = Literal["conv3x3", "conv1x1", "ssdlite"]


@dataclass(frozen=True)
class SSDConfig:
    """The configuration of a network.

    strides: of the backbone's feature maps, pixels per cell; () takes the backbone's defaults. input_size:
    pixels. num_classes: with background. width: channels of the feature pyramid (FPN), and with 1x1 heads of
    the projection and the auxiliary stages. levels: the priors of each feature map. input_scale: of vgg16
    (see `ssd.models.vgg`); imagenet for every other backbone.
    """

    family: ClassVar = "ssd"
    backbone: str
    strides: tuple[int, ...]
    input_size: int
    num_classes: int
    neck: Neck
    heads: HeadKind
    width: int
    levels: tuple[PriorLevel, ...]
    input_scale: InputScale

    @property
    def auxiliary(self) -> Auxiliary:
        """The auxiliary convolutions."""
        return auxiliary_of(self.backbone, self.heads, self.width)

    def map_shapes(self, side: int | None = None) -> Shapes:
        """For inputs of `side` pixels, else of `input_size`; see `ssd.models.feature_maps.map_shapes`."""
        return map_shapes(self.backbone, self.strides, self.auxiliary, self.input_size, side)

    def map_sizes(self, side: int | None = None) -> list[tuple[int, int]]:
        """(height, width) of every feature map, finest first, for inputs of `side` or `input_size` pixels."""
        own, more = self.map_shapes(side)
        return [(height, width) for _, height, width in own + more]

    def levels_at(self, side: int) -> tuple[PriorLevel, ...]:
        """The levels of the feature maps of an input of `side` pixels, as many as there are maps.

        Their shapes are the same at every size. Explicit steps (`model.prior_steps`) hold at `input_size`
        alone. At another size the centres are evenly spaced, each in the middle of its cell, so that none
        lies outside the image; where the side is a multiple of the stride, that is the stride in pixels.
        Steps in pixels cannot be kept, for the last maps have no constant stride: the paper's 100 pixels
        belong to 3x3 cells, and at 448 pixels that map has 5x5.
        """
        levels = self.levels[: len(self.map_sizes(side))]
        return levels if side == self.input_size else tuple(replace(level, step=None) for level in levels)

    @property
    def cell_priors(self) -> tuple[PriorLevel, ...]:
        """What two networks with the same priors have in common, at any two input sizes."""
        return self.levels

    @staticmethod
    def from_state(state: dict[str, Any]) -> "SSDConfig":
        """From `dataclasses.asdict` of a config."""
        levels = tuple(map(PriorLevel.from_state, state["levels"]))
        return SSDConfig(**{**state, "strides": tuple(state["strides"]), "levels": levels})


def auxiliary_of(backbone: str, heads: HeadKind, width: int) -> Auxiliary:
    """The auxiliary convolutions: by the heads first, then by the backbone.

    SSDLite's with SSDLite's heads, single ones of `width` channels with 1x1 heads; else the paper's where the
    backbone has no batch norm, and those of MLPerf and NVIDIA after conv4.
    """
    if heads == "ssdlite":
        return SSDLITE
    if heads == "conv1x1":
        return Auxiliary("single", (width,))
    if backbone == "vgg16":
        return PLAIN
    return TAPERED if backbone.endswith(CONV4) else NORMED


def map_sides(backbone: str, strides: tuple[int, ...], heads: HeadKind, input_size: int) -> list[int]:
    """Cells per side of every feature map, finest first.

    Raises:
        UserError: there is no such backbone, or it has no feature maps of these strides.
    """
    width = 256  # any: the sides do not depend on it
    own, more = map_shapes(backbone, strides, auxiliary_of(backbone, heads, width), input_size)
    return [height for _, height, _ in own + more]


def paper_config(
    backbone: str,
    input_size: int,
    num_classes: int,
    first: float = 0.1,
    second: float = 0.2,
    last: float = 1.05,
    *,
    strides: tuple[int, ...] = (),
    neck: Neck = "none",
    heads: HeadKind = "conv3x3",
    width: int = 256,
    input_scale: InputScale = "imagenet",
) -> SSDConfig:
    """A configuration with the paper's priors for its feature maps (see `paper_levels`)."""
    num_levels = len(map_sides(backbone, strides, heads, input_size))
    levels = tuple(paper_levels(num_levels, first, second, last))
    return SSDConfig(backbone, strides, input_size, num_classes, neck, heads, width, levels, input_scale)


def model_config(
    params: ModelParams,
    num_classes: int,
    kmeans: Sequence[PriorLevel] = (),
    input_scale: InputScale = "imagenet",
) -> SSDConfig:
    """The configuration that the `model` section describes.

    Args:
        params: the section.
        num_classes: with background.
        kmeans: the levels to use where `priors` is kmeans.
        input_scale: what `resolve_input_scale` made of the section's setting.

    Raises:
        UserError: backbone, strides and the lists of priors contradict each other.
    """
    strides = tuple(params.strides)
    sides = map_sides(params.backbone, strides, params.heads, params.input_size)
    return SSDConfig(
        backbone=params.backbone,
        strides=strides,
        input_size=params.input_size,
        num_classes=num_classes,
        neck=params.neck,
        heads=params.heads,
        width=params.width,
        levels=tuple(_prior_levels(params, sides, kmeans)),
        input_scale=input_scale,
    )


def _prior_levels(
    params: ModelParams, sides: Sequence[int], kmeans: Sequence[PriorLevel]
) -> list[PriorLevel]:
    """The priors of each feature map, of `sides` cells per side."""
    match params.priors:
        case "paper":
            levels = paper_levels(len(sides), params.scale_first, params.scale_second, params.scale_last)
        case "table":
            levels = table_levels(params.prior_scales, params.prior_ratios)
        case "kmeans":
            levels = list(kmeans)
    _check_length("prior_ratios", len(levels), sides)
    if not params.prior_steps:
        return levels
    _check_length("prior_steps", len(params.prior_steps), sides)
    return [
        PriorLevel(level.shapes, step / params.input_size)
        for level, step in zip(levels, params.prior_steps, strict=True)
    ]


def _check_length(key: str, length: int, sides: Sequence[int]) -> None:
    if length != len(sides):
        raise UserError(
            f"found {length} of them; needed are {len(sides)}, one per feature map "
            f"({', '.join(f'{side}x{side}' for side in sides)})",
            key=f"model.{key}",
        )
