"""Files appear whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from file_limit import file_limit

from ssd.errors import UserError, storage_errors_explained
from ssd.files import replacing, replacing_folder, sha256, write_bytes, write_json


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("first", "second"):
        with replacing_folder(target) as folder:
            (folder / content).write_text(content)
    assert names(target) == ["second"]
    with pytest.raises(RuntimeError), replacing_folder(target) as folder:
        (folder / "third").write_text("half")
        raise RuntimeError
    assert names(target) == ["second"]
    assert names(tmp_path) == ["folder"]


def test_kill_9_in_the_middle_leaves_the_target_alone(tmp_path: Path) -> None:
    code = (
        "import os, signal; from ssd.files import replacing_folder\n"
        "with replacing_folder('target') as folder:\n"
        "    (folder / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    repository = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)}
    )
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "target").exists()


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, None, "é"]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, None, "é"]}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, None, "é"]}


def test_sha256_is_sha256(tmp_path: Path) -> None:
    write_bytes(tmp_path / "abc", b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    """What is written to /dev/full never fits."""
    write_bytes(tmp_path / "file", b"old")
    (tmp_path / ".file.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as full:
        write_bytes(tmp_path / "file", b"new")
    assert full.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_for_which_there_is_no_room_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with replacing_folder(target) as folder:
        (folder / "first").write_text("old")
    with (
        pytest.raises(OSError, match="File too large") as full,
        file_limit(10),
        replacing_folder(target) as folder,
    ):
        (folder / "second").write_text("more than ten bytes")
    assert full.value.filename == str(target)
    assert names(target) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_a_file_in_place_of_a_folder_and_the_reverse_are_named(tmp_path: Path) -> None:
    (tmp_path / "reports").touch()
    (tmp_path / "model.pt").mkdir()
    for path, named in (("reports/metrics.json", "reports"), ("model.pt", "model.pt")):
        in_the_way = pytest.raises(UserError, match="; move away the file or folder")
        with in_the_way as stopped, storage_errors_explained():
            write_bytes(tmp_path / path, b"content")
        assert str(stopped.value).startswith(f"{tmp_path / named}: ")
    assert sorted(names(tmp_path)) == ["model.pt", "reports"]


def test_stopped_while_it_removes_the_old_folder_it_leaves_no_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, remove = tmp_path / "folder", shutil.rmtree
    target.mkdir()
    for name in ("a", "b"):
        (target / name).write_text("old")

    def stopped(folder: Path, **options: bool) -> None:
        if folder.is_dir():
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as folder:
        (folder / "new").write_text("new")
        monkeypatch.setattr(shutil, "rmtree", stopped)
    assert names(target) == ["new"]
    monkeypatch.setattr(shutil, "rmtree", remove)
    with replacing_folder(target) as folder:
        (folder / "newer").write_text("newer")
    assert names(tmp_path) == ["folder"]
