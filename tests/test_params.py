"""params.yaml: every mistake is one line that names the key, what was found and what is allowed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from default_params import default_text
from dvc.utils.serialize import load_yaml

from ssd.errors import UserError
from ssd.params import Params, load_params
from ssd.params_file import read_params_file

REPOSITORY = Path(__file__).parent.parent
TEXT = default_text()


def load(text: str, folder: Path) -> Params:
    (folder / "params.yaml").write_text(text)
    return load_params(folder / "params.yaml")


def test_the_repository_s_params_are_valid_and_every_key_has_a_comment() -> None:
    load_params(REPOSITORY / "params.yaml")
    lines = (REPOSITORY / "params.yaml").read_text().splitlines()
    keys = [line for line in lines if line[:2] == "  " != line[2:4]]  # not the axes of tune.space
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
            "params.yaml: train.lrr: unknown key (did you mean lr?)",
        ),
        (
            "  lr: 0.002",
            "  lr: 0.002\n  nms_iou: 1",
            "train.nms_iou: unknown key (did you mean evaluate.nms_iou",
        ),
        ("evaluate:", "opset: 18\nevaluate:", "params.yaml: opset: unknown key (did you mean export.opset?)"),
        ("  lr: 0.002", "  lr: 0.002\n  xyz: 1", "train.xyz: unknown key; allowed: epochs, batch_size, "),
        ("  lr: 0.002", "  lr: 0.002\n  5: 1", "params.yaml: train.5: found 5; allowed: Keys should be "),
        ("  lr: 0.002", "  lr: 1:30", "params.yaml: train.lr: found '1:30'; allowed: number"),
        ("  seed: 0", f"  seed: {2**31}", "train.seed: found 2147483648; allowed: less than 2147483648"),
        ("  epochs: 4", f"  epochs: {10**30}", "train.epochs: found 1"),
        ("  devices: auto", f"  devices: {10**30}", "train.devices: found 1"),
        ("  path: data/own", '  path: "a\\0b"', "data.path: found 'a\\x00b'; allowed: text without"),
        ("  path: data/own", '  path: "\\ud800"', "data.path: found '\\ud800'; allowed: text without"),
        (
            "  path: data/own",
            "  path: ~nobody-here/x",
            "data.path: found '~nobody-here/x'; allowed: a path; ",
        ),
        ("  archives: data/archives", "  archives: ~nobody-here/x", "data.archives: found '~nobody-here/x'"),
        ("  weights: none", "  weights: ~nobody-here/x", "model.weights: found '~nobody-here/x'; allowed: a"),
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


def test_an_operator_set_that_a_family_cannot_have_is_refused_before_anything_runs(tmp_path: Path) -> None:
    load(default_text(**{"export.opset": 23}), tmp_path)
    load(default_text(**{"export.opset": 21, "model.family": "faster_rcnn"}), tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml: export\.opset: found 22; allowed: 18-21 with model"):
        load(default_text(**{"export.opset": 22, "model.family": "faster_rcnn"}), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  lr: 0.002", f"  lr: {'v' * 90_000}"),
        ("  lr: 0.002", f"  ? {'k' * 90_000}\n  : 1\n  lr: 0.002"),
        ("  lr: 0.002", '  "a\\nb": 1\n  lr: 0.002'),
        ("  classes: []", f"  classes: [{', '.join(['c'] * 1_000)}]"),
        ("  strides: []", f"  strides: [{', '.join(['16', '8'] * 1_000)}]"),
        ("  devices: auto", f"  devices: {'a' * 9_000}"),
        ("  backbone: resnet18", f"  backbone: {'r' * 9_000}!"),
    ],
    ids=["value", "key", "line break", "classes", "list", "auto or number", "pattern"],
)
def test_the_message_about_a_long_mistake_is_short(old: str, new: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(UserError) as caught:
        load(TEXT.replace(old, new, 1), tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("params.yaml: ") and len(line) < 600


def test_of_many_mistakes_the_first_ten_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(TEXT.replace("  classes: []", f"  classes: [{', '.join(['1'] * 1_500)}]"), tmp_path)
    *lines, last = str(caught.value).splitlines()
    assert lines == [f"params.yaml: data.classes.{i}: found 1; allowed: string" for i in range(10)]
    assert last == "params.yaml: and 1,490 more mistakes"


def test_a_section_without_keys_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: report: found None; allowed: a section of keys$"):
        load(re.sub(r"report:\n(  .*\n)+", "report:\n", TEXT), tmp_path)


def test_one_mistake_is_one_line_and_two_are_two(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(TEXT.replace("  lr: 0.002", "  lr: -1").replace("  flip: 0.5", "  flip: 2"), tmp_path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E+1", 20.0), (".5", 0.5), ("010", 10)])
def test_numbers_are_read_as_people_and_dvc_mean_them(text: str, value: float, tmp_path: Path) -> None:
    """YAML 1.1 would take the first for a text and the last for eight."""
    assert load(TEXT.replace("  lr: 0.002", f"  lr: {text}"), tmp_path).train.lr == value


@pytest.mark.parametrize(
    "text",
    [
        "1e-3",
        "010",
        "0o10",
        "0x10",
        "1:30",
        "yes",
        "on",
        "True",
        "1_000",
        ".5",
        "~",
        "2001-01-01",
    ],
)
def test_dvc_reads_the_same_value(text: str, tmp_path: Path) -> None:
    """Or DVC would take a change for none."""
    (tmp_path / "params.yaml").write_text(f"train:\n  lr: {text}\n")
    assert repr(read_params_file(tmp_path / "params.yaml")) == repr(load_yaml(tmp_path / "params.yaml"))


@pytest.mark.parametrize("text", ["2001-99-99", "0x_", "[" * 500, '!!int ""', "9" * 5000, "&a [*a, *a]"])
def test_values_that_no_key_has_are_one_short_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(TEXT.replace("  lr: 0.002", f"  lr: {text}"), tmp_path)
    (line,) = str(caught.value).splitlines()
    assert "params.yaml" in line and len(line) < 400


def bomb(key: str) -> str:
    """Params in which nine lines of lists of the list before stand for 400 million texts in one key."""
    lists = [f"x0: &x0 [{', '.join(['lol'] * 9)}]"]
    lists += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 9)]
    (line,) = (line for line in TEXT.splitlines() if line.startswith(f"  {key}:"))
    return "\n".join(lists) + "\n" + TEXT.replace(line, f"  {key}: *x8")


@pytest.mark.parametrize("key", ["lr", "classes", "prior_ratios", "devices"])
def test_a_bomb_of_aliases_is_one_short_line(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: stands for more than 100,000 values"):
        load(bomb(key), tmp_path)


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="params.yaml: longer than 1,000,000 bytes"):
        load_params(tmp_path / "params.yaml")


def test_text_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(TEXT.replace("train:", "# Größe\ntrain:").encode("latin-1"))
    with pytest.raises(UserError, match=r"params.yaml: line \d+ is not UTF-8; save the file as UTF-8$"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(TEXT.encode("utf-8-sig"))
    load_params(tmp_path / "params.yaml")


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


def test_published_detectors_are_of_one_backbone_each(make_params: Callable[..., Params]) -> None:
    fits = {"model.weights": "coco", "model.family": "faster_rcnn", "model.backbone": "resnet50"}
    assert make_params(**fits).model.weights == "coco"
    for change, found in (
        ({"model.width": 128}, "coco with resnet50 of width 128; allowed: coco with resnet50 of width 256"),
        ({"model.family": "ssd"}, "coco with resnet50 at 128; allowed: coco with vgg16 at 300"),
    ):
        with pytest.raises(UserError, match=found):
            make_params(**{**fits, **change})
