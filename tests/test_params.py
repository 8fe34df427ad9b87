"""params.yaml: every mistake is one line that names the key, what was found and what is allowed."""

from pathlib import Path

import pytest
from default_params import default_text

from ssd.errors import UserError
from ssd.params import Params, load_params

REPOSITORY = Path(__file__).parent.parent
TEXT = default_text()


def load(text: str, folder: Path) -> Params:
    (folder / "params.yaml").write_text(text)
    return load_params(folder / "params.yaml")


def test_the_repository_s_params_are_valid_and_every_key_has_a_comment() -> None:
    load_params(REPOSITORY / "params.yaml")
    lines = (REPOSITORY / "params.yaml").read_text().splitlines()
    keys = [line for line in lines if line.startswith("  ")]
    assert all("#" in line for line in keys)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  lr: 0.002", "  lr: -1", "params.yaml: train.lr: found -1; allowed: greater than 0"),
        ("  lr: 0.002", "  lr: fast", "params.yaml: train.lr: found 'fast'; allowed: number"),
        ("  lr: 0.002", "  lr: .nan", "params.yaml: train.lr: found nan; allowed:"),
        ("  lr: 0.002", "  rl: 0.001", "params.yaml: train.lr: missing"),
        (
            "  lr: 0.002",
            "  lr: 0.002\n  lrr: 1",
            "train.lrr: unknown key (did you mean lr?); allowed: epochs, ",
        ),
        (
            "  source: shapes",
            "  source: voc2006",
            "data.source: found 'voc2006'; allowed: 'shapes', 'voc2007'",
        ),
        ("  strict: false", "  strict: 1", "preprocess.strict: found 1; allowed: boolean"),
        ("  flip: 0.5", "  flip: 1.5", "augment.flip: found 1.5; allowed: less than or equal to 1"),
        (
            "  classes: []",
            "  classes: [a, b, a]",
            "data.classes: found a more than once; allowed: unique names",
        ),
        (
            "  scale_second: 0.2",
            "  scale_second: 0.05",
            "model.scale_second: found 0.1, 0.05, 1.05; allowed: between",
        ),
        (
            "  milestones: [0.67",
            "  milestones: [0.9",
            "train.milestones: found [0.9, 0.83]; allowed: increasing",
        ),
        ("  devices: auto", "  devices: 0", "train.devices: found 0; allowed: auto, or a number from 1"),
        ("  devices: auto", "  devices: yes", "train.devices: found 'yes'; allowed: auto, or a number"),
        ("  folds: 0", "  folds: 1", "data.folds: found 1; allowed: 0, or from 2"),
        ("  fold: 0", "  fold: 2", "data.fold: found 2; allowed: below data.folds (0)"),
        ("  strides: []", "  strides: [16, 8]", "model.strides: found [16, 8]; allowed: increasing"),
        (
            "  weights: none",
            "  weights: coco",
            "model.weights: found coco with resnet18 at 128; allowed: coco with",
        ),
        (
            "  priors: paper",
            "  priors: table",
            "model.prior_scales: found 0 scales and 0 lists of ratios; allowed: as many as prior_ratios",
        ),
        ("  object_max: 6.0", "  object_max: 1.1", "augment.object_max: found 1.1; allowed: from object_min"),
        (
            "  resized_crop: 0.3",
            "  resized_crop: 0.6",
            "augment.resized_crop: found 0.6 with object_crop 0.5; allowed: object_crop and resized_crop",
        ),
        ("  opset: 18", "  opset: 11", "export.opset: found 11; allowed: greater than or equal to 18"),
        ("evaluate:", "evaluation:", "params.yaml: evaluate: missing"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(UserError) as caught:
        load(TEXT.replace(old, new, 1), tmp_path)
    assert message in str(caught.value)


def test_one_mistake_is_one_line_and_two_are_two(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(TEXT.replace("  lr: 0.002", "  lr: -1").replace("  flip: 0.5", "  flip: 2"), tmp_path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E+1", 20.0), (".5", 0.5), ("010", 10)])
def test_numbers_are_read_as_people_and_dvc_mean_them(text: str, value: float, tmp_path: Path) -> None:
    """YAML 1.1 would take the first for a text and the last for eight."""
    assert load(TEXT.replace("  lr: 0.002", f"  lr: {text}"), tmp_path).train.lr == value


@pytest.mark.parametrize("text", ["2001-99-99", "0x_", "[" * 2000, '!!int ""', "9" * 5000, "&a [*a, *a]"])
def test_values_that_no_key_has_are_one_short_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(TEXT.replace("  lr: 0.002", f"  lr: {text}"), tmp_path)
    (line,) = str(caught.value).splitlines()
    assert "params.yaml" in line and len(line) < 400


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(UserError, match="params.yaml: not readable"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1, 2", "line 1 is not YAML"),
        ("just text", "expected the sections data, preprocess"),
        ("", "expected the sections"),
        (TEXT.replace("  lr: 0.002", "  lr: 0.002\n  lr: 0.003"), 'duplicate key "lr"'),
        (TEXT.replace("  lr: 0.002", "  lr: !!python/object/apply:os.getcwd []"), "is not YAML"),
    ],
)
def test_files_that_are_no_params(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="params.yaml") as caught:
        load(text, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="params.yaml: not found; run from the repository's root"):
        load_params(tmp_path / "params.yaml")


def test_params_cannot_be_changed(tmp_path: Path) -> None:
    params = load(TEXT, tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0
