"""Disk space: what is still to be written, once, against what is free on each disk."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_params import data_params, preprocess_params
from voc_folder import write_folder

from ssd.params import Source
from ssd.preflight import space
from ssd.preflight.space import Need, Places, check_space, copies, dvc_cache, file_system, list_needs
from ssd.source.shapes import write_shapes

VOC2007 = 460_032_000 + 451_020_800
LINKED = '[cache]\n    type = "hardlink,copy"\n'


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A workspace on a file system that copies."""
    monkeypatch.setattr(space, "file_system", lambda _: "ext4")
    (tmp_path / ".dvc").mkdir()
    return Places(tmp_path, tmp_path / "data/raw", tmp_path / "data/tensors")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """free(n): every disk has n free bytes."""

    def set_free(num_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes))

    return set_free


def needs(places: Places, source: Source, **changes: object) -> dict[str, int]:
    found = list_needs(data_params(source, **changes), preprocess_params(), places)
    return {need.name.removeprefix(f"{places.root}/"): need.num_bytes for need in found}


def test_a_public_set_is_counted_in_every_folder(places: Places) -> None:
    expected = {
        "data.archives": VOC2007,
        "data/raw": VOC2007,
        "data/tensors": VOC2007,
        "DVC's cache": 2 * VOC2007,
    }
    assert needs(places, "voc2007") == expected


def test_coco_s_annotations_are_larger_than_their_zip(places: Places) -> None:
    found = needs(places, "coco")
    assert found["data.archives"] == 252_907_541 + 815_585_330 + 19_336_861_798
    assert found["data/raw"] == 469_785_474 + 19_987_840 + 815_585_330 + 19_336_861_798


def test_present_parts_are_not_counted(places: Places) -> None:
    archives = places.root / "archives"
    archives.mkdir()
    (archives / "VOCtest_06-Nov-2007.tar").touch()
    (archives / ".VOCtrainval_06-Nov-2007.tar.part").write_bytes(bytes(1000))
    assert needs(places, "voc2007")["data.archives"] == 460_032_000 - 1000
    (places.raw / "voc2007").mkdir(parents=True)
    assert needs(places, "voc2007") == {"data/tensors": VOC2007, "DVC's cache": VOC2007}
    (places.tensors / "train").mkdir(parents=True)
    (places.tensors / "train/00000-of-00001.safetensors").touch()
    assert needs(places, "voc2007") == {}


def test_tensors_of_another_source_do_not_count_as_present(places: Places) -> None:
    (places.raw / "shapes").mkdir(parents=True)
    (places.tensors / "train").mkdir(parents=True)
    (places.tensors / "train/00000-of-00001.safetensors").touch()
    assert needs(places, "voc2007")["data/tensors"] == VOC2007


def test_a_cache_of_links_takes_nothing_but_preprocess_packs_twice(places: Places) -> None:
    (places.root / ".dvc/config").write_text(LINKED)
    found = needs(places, "voc2007")
    assert "DVC's cache" not in found
    assert found["data/tensors"] == 2 * VOC2007


def test_a_file_system_that_shares_blocks_is_no_copy(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copies(places)
    for kind in ("btrfs", "xfs", ""):
        monkeypatch.setattr(space, "file_system", lambda _, kind=kind: kind)
        assert not copies(places)
    (places.root / ".dvc/config.local").write_text(
        "['remote \"x\"']\n    url = a%b\n[cache]\n    type = copy\n"
    )
    assert copies(places)


def test_a_cache_elsewhere_holds_both_whatever_its_links(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places.root / ".dvc/config").write_text(f"{LINKED}    dir = /mnt/cache\n")
    assert dvc_cache(places.root) == Path("/mnt/cache")
    monkeypatch.setattr(space, "_same_disk", lambda *_: False)
    found = needs(places, "voc2007")
    assert found["DVC's cache"] == found["data/tensors"] == 2 * VOC2007


def test_a_folder_of_one_s_own_is_as_large_as_its_files(places: Places) -> None:
    own = places.root / "own"
    write_folder(own, {"train": ["a", "b"]})
    (own / "JPEGImages/large.jpg").write_bytes(bytes(1_000_000))
    size = sum(path.stat().st_size for path in own.rglob("*") if path.is_file())
    found = needs(places, "voc_dir")
    assert found["data/raw"] == size
    annotations = size - sum(path.stat().st_size for path in (own / "JPEGImages").iterdir())
    assert found["data/tensors"] == size - annotations - 1_000_000 + 640 * 640


@pytest.mark.parametrize("side", [64, 192])
def test_drawn_shapes_take_no_more_than_was_estimated(places: Places, side: int) -> None:
    estimated = needs(places, "shapes", shapes_side=side)
    write_shapes(places.root / "drawn", num_train=5, num_val=2, num_test=3, side=side, seed=1)
    files = [path for path in (places.root / "drawn").rglob("*") if path.is_file()]
    whole = sum(path.stat().st_size for path in files)
    images = sum(path.stat().st_size for path in files if path.suffix == ".jpg")
    assert whole <= estimated["data/raw"] < 2.5 * whole
    assert images <= estimated["data/tensors"] < 2.5 * images


def test_a_copied_folder_is_found_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in preprocess: download has copied the user's folder to data/raw, which is a relative path."""
    write_folder(tmp_path / "data/raw/voc_dir", {"train": ["a", "b"]})
    monkeypatch.chdir(tmp_path)
    relative = Places(tmp_path, Path("data/raw"), Path("data/tensors"))
    assert needs(relative, "voc_dir")["data/tensors"] > 0


def test_too_little_space_for_an_estimate_is_a_warning(free: Callable[[int], None], tmp_path: Path) -> None:
    certain, estimate = Need("raw", tmp_path, 10), Need("tensors", tmp_path, 10, is_estimate=True)
    free(15)
    assert [finding.fatal for finding in check_space([certain, estimate])] == [False]
    free(5)
    assert [finding.fatal for finding in check_space([certain, estimate])] == [True]


def test_too_little_space_is_one_line_with_its_parts(
    places: Places, free: Callable[[int], None], tmp_path: Path
) -> None:
    wanted = [Need("data.archives", tmp_path / "a/b", 3 * 10**9), Need("data/raw", tmp_path, 2 * 10**9)]
    free(5 * 10**9)
    assert check_space(wanted) == []
    free(5 * 10**9 - 1)
    (finding,) = check_space(wanted)
    assert (finding.key, finding.fatal) == ("data.source", True)
    assert finding.text.startswith(
        "about 5.00 GB of disk space are needed (3.00 in data.archives, 2.00 in data/raw), 5.00 GB are "
    )


def test_the_file_system_is_that_of_the_folder_s_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields may be optional before the dash; a device that is not listed has no known file system."""
    device = tmp_path.stat().st_dev
    own, other = f"{os.major(device)}:{os.minor(device)}", f"{os.major(device)}:{os.minor(device) + 1}"
    root = f"36 35 {other} / / rw,noatime shared:1 - ext4 /dev/sda1 rw"
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(space, "MOUNTS", mounts)
    for line, expected in (
        (f"98 36 {own} /sub /a\\040b rw shared:2 master:1 - fuse.overlayfs overlay rw", "fuse.overlayfs"),
        (f"98 36 {own} / /data rw - xfs /dev/sdb1 rw", "xfs"),
        (f"98 36 {other} / /data rw - xfs /dev/sdb1 rw", ""),
    ):
        mounts.write_text(f"{root}\n{line}\n")
        assert file_system(tmp_path) == expected
    mounts.unlink()
    assert file_system(tmp_path) == ""
