"""`ssd audit`: the list, the page, and files that are read back as the annotations they are."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from voc_folder import annotation_xml, encode, object_xml, picture, write_image, write_lists
from waiting import Ended

from cli.data import opened_data
from cli.main import main
from ssd.loading.tensor_file import TensorFile
from ssd.source.glyphs import GLYPHS

Run = Callable[..., Ended]
NUM = 6


@pytest.fixture(scope="module")
def audited(glyph_model: Path, shapes_file: TensorFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "out"
    with pytest.raises(SystemExit) as ended:
        main(
            ["audit", str(glyph_model), "--data", str(shapes_file.path), "--num", str(NUM), "--out", str(out)]
        )
    assert not ended.value.code
    return out


def test_the_list_is_the_same_everywhere(
    audited: Path, run_ssd: Run, glyph_model: Path, shapes_file: TensorFile
) -> None:
    ended = run_ssd("audit", glyph_model, "--data", shapes_file.path, "--num", NUM, "--json")
    rows = json.loads(ended.stdout)
    assert len(rows) == NUM
    assert " suspects among " in ended.stderr
    assert rows == json.loads((audited / "suspects.json").read_text())
    assert rows == sorted(rows, key=lambda row: -row["suspicion"])
    with (audited / "suspects.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["kind"] for row in listed] == [row["kind"] for row in rows]
    page = (audited / "index.html").read_text()
    pictures = sorted(path.name for path in (audited / "pictures").iterdir())
    assert len(pictures) == NUM
    assert all(f'src="pictures/{name}"' in page for name in pictures)


def test_the_voc_folder_holds_the_annotations_of_the_suspicious_images(
    audited: Path, shapes_file: TensorFile
) -> None:
    wanted = {row["image"] for row in json.loads((audited / "suspects.json").read_text())}
    with opened_data(str(audited / "voc"), "train", GLYPHS) as file:
        assert {shapes_file.image_ids.index(name) for name in file.image_ids} == wanted
        for index, name in enumerate(file.image_ids):
            own = shapes_file.image_ids.index(name)
            read, written = file.objects(index), shapes_file.objects(own)
            assert torch.equal(read.boxes, written.boxes)
            assert torch.equal(read.labels, written.labels)
            assert torch.equal(read.ignored, written.ignored)
            assert torch.equal(file.encoded(index), shapes_file.encoded(own))


def test_coco_s_file_has_them_too_and_the_suspects_beside(audited: Path, shapes_file: TensorFile) -> None:
    content = json.loads((audited / "coco.json").read_text())
    rows = json.loads((audited / "suspects.json").read_text())
    images = list(dict.fromkeys(row["image"] for row in rows))
    assert len(content["images"]) == len(images)
    expected = [box for image in images for box in shapes_file.objects(image).boxes.tolist()]
    boxes = [
        (x, y, x + width, y + height)
        for x, y, width, height in (item["bbox"] for item in content["annotations"])
    ]
    assert boxes == [tuple(box) for box in expected]
    by_id = {item["id"]: item for item in content["annotations"]}
    for row, suspect in zip(rows, content["suspects"], strict=True):
        if row["object"] is None:
            assert suspect["annotation_id"] is None
        else:
            x, y, _, _ = by_id[suspect["annotation_id"]]["bbox"]
            assert [x, y] == row["annotated_box"][:2]


def test_an_audit_replaces_an_earlier_one_if_told_so_and_nothing_else(
    run_ssd: Run, glyph_model: Path, shapes_file: TensorFile, tmp_path: Path
) -> None:
    options = ("--data", shapes_file.path, "--num", 1, "--out", tmp_path)
    corrected = tmp_path / "corrected.xml"
    corrected.write_text("mine")
    refused = run_ssd("audit", "gone.pt", *options, "--overwrite")
    assert refused.code == 2
    assert "holds something else than an audit" in refused.stderr
    (tmp_path / "suspects.csv").write_text("")
    refused = run_ssd("audit", "gone.pt", *options)
    assert refused.code == 2
    assert refused.stderr.endswith(": exists; name another folder by --out, or replace it by --overwrite\n")
    assert corrected.read_text() == "mine"
    ended = run_ssd("audit", glyph_model, *options, "--overwrite")
    assert ended.code == 0, ended.stderr
    assert not corrected.exists()
    assert ended.stdout.startswith("  1  ")
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_the_current_folder_is_not_replaced_by_an_audit(
    run_ssd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_ssd("audit", "gone.pt", "--out", ".")
    assert (ended.code, ended.stderr) == (
        2,
        "--out .: the current folder cannot be replaced; name one in it\n",
    )


def test_what_an_audit_s_folders_lack_is_said(run_ssd: Run, glyph_model: Path, tmp_path: Path) -> None:
    boxes = object_xml("star", (5, 5, 20, 20)), object_xml("dog", (1, 1, 9, 9))
    write_image(tmp_path / "own", "a", encode(picture()), annotation_xml(*boxes))
    write_lists(tmp_path / "own", {"train": ["a"]})
    options = ("--data", tmp_path / "own", "--num", 1)
    ended = run_ssd("audit", glyph_model, *options, "--out", tmp_path / "out")
    assert ended.code == 0, ended.stderr
    assert "unknown class 'dog'" in ended.stderr
    assert "do not replace your annotations" in ended.stderr
    assert "do not replace" not in run_ssd("audit", glyph_model, *options).stderr
