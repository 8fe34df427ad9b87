"""The figures: what they show, that nothing at all can be drawn, and that the files are reproducible."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ssd.metrics.voc import VocResult, evaluate_voc, sampled_curve
from ssd.plots.figures import (
    PALETTE,
    PrecisionRecall,
    history_figure,
    precision_recall_figure,
    save_figure,
)
from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", r"a $\sum$ of $\bucks$"]  # mathtext would refuse the last


def random_result(num_classes: int, num_images: int = 60) -> VocResult:
    """Every object is found by a detection whose box is more or less off."""
    generator = torch.Generator().manual_seed(num_classes)
    found, truth = [], []
    for _ in range(num_images):
        corner = 100 * torch.rand(5, 2, generator=generator)
        boxes = torch.cat([corner, corner + 40], dim=1)
        labels = torch.randint(1, num_classes + 1, (5,), generator=generator)
        scores = torch.rand(5, generator=generator).sort(descending=True).values
        found.append(Detections(boxes + 8 * torch.randn(5, 4, generator=generator), scores, labels))
        truth.append(Objects(boxes, labels, torch.zeros(5, dtype=torch.bool)))
    return evaluate_voc(found, truth, num_classes)


def figure_of(result: VocResult, names: Sequence[str]) -> Figure:
    curves = [
        PrecisionRecall(label, name, curve.ap_area, sampled_curve(curve))
        for label, (name, curve) in enumerate(zip(names, result.classes, strict=True), start=1)
        if curve.ap_area is not None
    ]
    return precision_recall_figure(curves, result.map_area, result.iou_threshold)


def history(num_epochs: int) -> list[dict[str, float | None]]:
    """Validated every second epoch; the best is the fourth."""
    rows: list[dict[str, float | None]] = []
    for epoch in range(1, num_epochs + 1):
        validated = epoch % 2 == 0
        rows.append(
            {
                "epoch": epoch,
                **{f"train_{part}": 5 / epoch for part in ("loss", "loc", "conf")},
                **{f"val_{part}": 6 / epoch if validated else None for part in ("loss", "loc", "conf")},
                "val_map50": (0.5 if epoch == 4 else 0.3) if validated else None,
                "val_map75": 0.2 if validated else None,
                "lr": 1e-3,
            }
        )
    return rows


@pytest.mark.parametrize("num_epochs", [1, 12])
def test_no_point_of_a_history_is_cut_by_its_frame(num_epochs: int) -> None:
    for axes in history_figure(history(num_epochs)).axes:
        (left, right), top = axes.get_xlim(), axes.get_ylim()[1]
        for line in axes.lines:
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            assert ((left < x) & (x < right)).all()
            if line.get_linestyle() != ":":
                assert y.max() < 0.96 * top
                assert not line.get_clip_on(), "nor is the marker of a point at 0"


def test_after_one_epoch_the_axis_has_the_tick_of_that_epoch_alone() -> None:
    for axes in history_figure(history(1)).axes:
        left, right = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1]


def test_a_history_without_validation_says_so_and_names_no_line_that_is_not_there() -> None:
    rows = [{key: None if "val" in key else value for key, value in row.items()} for row in history(3)]
    axes = history_figure(rows).axes
    assert axes[3].get_title() == "no validation"
    legend = axes[0].get_legend()
    assert axes[3].get_legend() is None
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["train"]


def test_a_validation_split_without_an_object_is_not_called_no_validation() -> None:
    rows = [{key: None if "map" in key else value for key, value in row.items()} for row in history(3)]
    assert history_figure(rows).axes[3].get_title() == "validation mAP: no object in val"


def test_only_classes_with_objects_have_a_legend_entry() -> None:
    object_ = Objects(torch.tensor([[5.0, 5, 20, 20]]), torch.tensor([1]), torch.tensor([False]))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    result = evaluate_voc([nothing], [object_], 3)
    legend = figure_of(result, NAMES).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["0.000  ant"]


@pytest.mark.parametrize("num_classes", [21, 80, 96])
def test_every_curve_has_a_look_of_its_own(num_classes: int) -> None:
    curves = [PrecisionRecall(label, f"{label}", 0.5, [(0, 1)]) for label in range(1, num_classes + 1)]
    (axes,) = precision_recall_figure(curves, 0.5, 0.5).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == num_classes


def test_a_precision_recall_figure_lists_the_best_class_first() -> None:
    figure = figure_of(random_result(21), [f"class {k}" for k in range(21)])
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None and len(axes.lines) == 21
    shown = [float(text.get_text().split()[0]) for text in legend.get_texts()]
    assert shown == sorted(shown, reverse=True) and len(shown) == 21


def test_a_history_skips_epochs_that_measured_nothing_and_names_the_highest_map50() -> None:
    figure = history_figure(history(7))
    assert len(figure.axes) == 5
    panels = {axes.get_title(): axes for axes in figure.axes}
    train, validation = panels["total loss"].lines
    np.testing.assert_array_equal(train.get_xdata(), [1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(validation.get_xdata(), [2, 4, 6])
    strict = panels["validation mAP (highest mAP@0.5 0.500, epoch 4)"].lines[1]
    assert strict.get_label() == "mAP@0.75"
    np.testing.assert_array_equal(strict.get_ydata(), [0.2] * 3)


FIGURES: dict[str, Callable[[], Figure]] = {
    "precision_recall": lambda: figure_of(random_result(3), NAMES),
    "history": lambda: history_figure(history(6)),
    "precision_recall of nothing": lambda: figure_of(evaluate_voc([], [], 3), NAMES),
    "history of nothing": lambda: history_figure([]),
    "history without validation": lambda: history_figure(history(1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_saved_figure_has_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    save_figure(figure, tmp_path / "new folder" / "first.png")
    save_figure(figure, tmp_path / "second.png")
    save_figure(FIGURES[name](), tmp_path / "third.png")
    first = (tmp_path / "new folder" / "first.png").read_bytes()
    assert first == (tmp_path / "second.png").read_bytes() == (tmp_path / "third.png").read_bytes()
    with Image.open(tmp_path / "second.png") as picture:
        assert picture.format == "PNG"
        assert set(picture.info) <= {"dpi"}


def test_figures_leave_pyplot_alone() -> None:
    for make in FIGURES.values():
        make()
    assert plt.get_fignums() == []


# Machado et al. 2009, full severity, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def cielab(linear_rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ linear_rgb / to_xyz.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_every_two_colours_differ_for_every_kind_of_colour_vision(deficiency: str) -> None:
    assert len(PALETTE) >= 21
    seen = []
    for colour in PALETTE:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(cielab(np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1)))
    # About 2 is just noticeable side by side.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14
