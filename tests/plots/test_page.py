"""The page of a run: it holds everything, loads nothing, and says how to read each picture."""

import io
import re
from typing import Any

import pytest
from PIL import Image

from ssd.plots.page import CHARTS, NUM_KINDS, problem_kinds, run_page

HOSTILE = '<script>alert("1")</script>'
NUM_IMAGES = {"num_images": 5, "num_images_without_objects": 1, "num_objects": 9}
SUMMARY = {
    "warnings": ["few images"],
    "notes": ["test is val"],
    "splits": {"train": {**NUM_IMAGES, "num_difficult": 0, "num_crowd": 0, "num_problems": 2}},
}
PROBLEMS = [
    {"action": "dropped", "reason": "zero size", "file": "a.xml"},
    {"action": "mended", "reason": "over the edge", "file": "b.xml"},
    {"action": "mended", "reason": "over the edge", "file": "c.xml"},
]


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (20, 10), "white").save(content, "PNG")
    return content.getvalue()


def metrics(interval: bool) -> dict[str, Any]:
    coco = {"map": 0.25, "map50": 0.5, "map_small": None, "map_medium": 0.2, "map_large": 0.3}
    coco |= {"ar_small": None, "ar_medium": 0.4, "ar_large": 0.5}
    row = {"class": HOSTILE, "num_objects": 9, "coco_ap": 0.25, "coco_ap50": None}
    row |= {"operating_precision": None, "operating_recall": 0.0, "operating_f1": 0.125}
    if interval:
        coco |= {"map_interval": [0.111, 0.333], "map50_interval": [0.444, 0.666]}
        row |= {"coco_ap_interval": [0.222, 0.277], "coco_ap50_interval": None}
    return {
        **{"coco": coco, "per_class": [row], "definitions": ["map: a mean"]},
        **{"num_images": 3, "num_objects": 9, "num_ignored": 2},
        "operating_point": {"score": 0.375, "precision": 0.75, "recall": 0.625, "f1": 0.6875},
    }


def page(interval: bool = True, problems: list[dict[str, str]] = PROBLEMS) -> str:
    setup, settings = {"network": HOSTILE}, {"train": {"lr": 0.002}}
    pictures = dict.fromkeys(CHARTS, png())
    return run_page("shapes", metrics(interval), SUMMARY, problems, setup, settings, pictures)


def test_it_loads_nothing_and_runs_nothing() -> None:
    text = page()
    assert set(re.findall(r'src="([a-z]+:[a-z/]+)', text)) == {"data:image/png", "data:image/jpeg"}
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    assert "default-src 'none'" in text


def test_names_of_the_data_set_are_text_and_no_markup() -> None:
    assert page().count("&lt;script&gt;") == 2


def test_every_picture_has_a_heading_a_sentence_on_how_to_read_it_and_a_link() -> None:
    text = page()
    sections = re.findall(r'<section id="(\w+)">', text)
    assert re.findall(r'<a href="#(\w+)">', text) == sections
    for name, chart in CHARTS.items():
        (section,) = re.findall(rf'(?s)<section id="{name}">(.*?)</section>', text)
        assert f"<h2>{chart.title}</h2>" in section and "<p>" in section and "<img alt=" in section


@pytest.mark.parametrize("interval", [True, False])
def test_figures_have_their_intervals_where_there_are_any(interval: bool) -> None:
    text = page(interval)
    for figure in ("0.500", "0.250", "0.688", "0.375", "precision 0.750, recall 0.625"):
        assert figure in text
    for bounds in ("0.444 to 0.666", "0.111 to 0.333", "0.222–0.277"):  # noqa: RUF001
        assert (bounds in text) is interval
    assert "None" not in text


def test_what_preprocess_found_is_told_and_its_problems_are_summed_by_reason() -> None:
    text = page()
    assert "few images" in text and "test is val" in text
    assert [tuple(kind) for kind in problem_kinds(PROBLEMS)] == [
        ("mended", "over the edge", 2, "b.xml"),
        ("dropped", "zero size", 1, "a.xml"),
    ]
    assert "Nothing had to be mended or dropped" in page(problems=[])
    many = [{"action": "dropped", "reason": f"{number}", "file": "a.xml"} for number in range(NUM_KINDS + 3)]
    assert "and 3 kinds more" in page(problems=many)


def test_what_was_fused_is_told_with_the_figures_of_each_model_alone() -> None:
    pictures, single = dict.fromkeys(CHARTS, png()), {"map50": 0.711, "map": 0.411}
    fused = {
        **{"num_models": 2, "fused": "models/model.pt and 1 further model (evaluate.models)"},
        **{"map50": 0.777, "map50_gain": 0.055, "map50_gain_interval": [-0.012, 0.098], "map50_mean": 0.7165},
        **{"map": 0.444, "map_gain": None, "map_gain_interval": None, "map_mean": 0.4165},
        **{"f1": 0.666, "f1_gain": -0.0004},
        "models": [{"model": "models/model.pt", **single}, {"model": HOSTILE, "map50": 0.722, "map": None}],
        "seconds_per_image": {"first": 0.01, "all": 0.0234, "fusion": 0.001},
    }
    text = run_page("shapes", metrics(True), SUMMARY, PROBLEMS, {}, {}, pictures, fused)
    for told in ("2 models, fused", "1 further model (evaluate.models)", "0.777", "-0.012 to 0.098", "0.722"):
        assert told in text
    assert "10.0 ms with the first model alone" in " ".join(text.split()) and "23.4 ms with all" in text
    assert "<script>" not in text and "-0.000" not in text
    assert "models, fused" not in page()


def test_the_same_inputs_give_the_same_page() -> None:
    assert page() == page()
