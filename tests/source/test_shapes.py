"""The embedded data set: the same bytes every time, in VOC layout, and not a toy."""

from pathlib import Path

import numpy as np
import pytest

from ssd.files import sha256
from ssd.prepare.readers.voc import read_list
from ssd.prepare.readers.voc_xml import parse_annotation
from ssd.source.glyphs import GLYPHS, draw_glyph
from ssd.source.shapes import ShapeObject, draw_scene, write_shapes

SIDE = 192


@pytest.fixture(scope="module")
def scenes() -> list[tuple[tuple[int, int], list[ShapeObject]]]:
    """(width, height) and objects of 300 scenes."""
    drawn = (draw_scene(np.random.default_rng([1, index]), SIDE) for index in range(300))
    return [(image.size, objects) for image, objects in drawn]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_shapes(tmp_path / name, num_train=3, num_val=2, num_test=2, side=96, seed=seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        digests.append([(str(path.relative_to(tmp_path / name)), sha256(path)) for path in files])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_longer_train_split_leaves_the_other_splits_as_they_were(tmp_path: Path) -> None:
    for name, num_train in (("a", 2), ("b", 4)):
        write_shapes(tmp_path / name, num_train=num_train, num_val=2, num_test=2, side=96, seed=0)
    for image in (tmp_path / "a" / "JPEGImages").iterdir():
        assert sha256(image) == sha256(tmp_path / "b" / "JPEGImages" / image.name)


def test_the_layout_is_pascal_s(tmp_path: Path) -> None:
    write_shapes(tmp_path, num_train=4, num_val=2, num_test=1, side=96, seed=0)
    ids = [
        name
        for split in ("train", "val", "test")
        for name in read_list(tmp_path / f"ImageSets/Main/{split}.txt")
    ]
    assert len(ids) == len(set(ids)) == 7
    for name in ids:
        assert (tmp_path / "JPEGImages" / f"{name}.jpg").is_file()
        file = tmp_path / "Annotations" / f"{name}.xml"
        assert f"<filename>{name}.jpg</filename>" in file.read_text()
        annotation = parse_annotation(file)
        assert annotation.size is not None
        assert not annotation.flaws


def test_annotations_read_back_as_they_were_drawn(tmp_path: Path) -> None:
    write_shapes(tmp_path, num_train=1, num_val=1, num_test=20, side=96, seed=0)
    for index in range(20):
        _, objects = draw_scene(np.random.default_rng([0, 2, index]), 96)
        annotation = parse_annotation(tmp_path / "Annotations" / f"3{index:05d}.xml")
        assert [o.name for o in annotation.objects] == [o.name for o in objects]
        assert [o.box for o in annotation.objects] == [o.box for o in objects]
        assert [o.difficult for o in annotation.objects] == [o.difficult for o in objects]


def test_boxes_lie_in_their_images(scenes: list) -> None:
    for (width, height), objects in scenes:
        for item in objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_it_is_not_a_toy(scenes: list) -> None:
    objects = [item for _, listed in scenes for item in listed]
    whole = [item for item in objects if not item.truncated and not item.difficult]
    sides = [max(o.box[2] - o.box[0], o.box[3] - o.box[1]) for o in whole]
    assert {item.name for item in objects} == set(GLYPHS)
    assert len(GLYPHS) >= 6
    assert max(sides) > 8 * min(sides)
    assert 0.03 < sum(not listed for _, listed in scenes) / len(scenes) < 0.15
    assert sum(item.truncated for item in objects) > 0.05 * len(objects)
    assert sum(item.difficult for item in objects) > 0.005 * len(objects)
    assert _num_overlapping_pairs(scenes) > 20


def _num_overlapping_pairs(scenes: list) -> int:
    pairs = 0
    for _, objects in scenes:
        for index, one in enumerate(objects):
            for other in objects[:index]:
                a, b = one.box, other.box
                pairs += min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
    return pairs


@pytest.mark.parametrize("name", GLYPHS)
@pytest.mark.parametrize("size", [(12, 9), (60, 90)])
def test_a_glyph_fills_its_box(name: str, size: tuple[int, int]) -> None:
    paint, mask = draw_glyph(name, size, ((200, 0, 0), (0, 200, 0)), 10.0)
    assert paint.size == mask.size == size
    assert mask.getbbox() == (0, 0, *size)
