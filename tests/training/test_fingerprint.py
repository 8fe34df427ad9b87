"""A training's name changes with what decides its result, and with nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssd.training.checkpoints import fingerprint

SETTINGS = {"train": {"lr": 0.1, "epochs": 3, "milestones": [0.5, 0.8]}, "model": {"backbone": "resnet18"}}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two data files and a package."""
    folder = tmp_path / "checkout"
    for name, content in {
        "data/train.bin": "images to train on",
        "data/val.bin": "images to validate on",
        "package/__init__.py": "",
        "package/loss.py": "weight = 1",
        "package/data/read.py": "side = 300",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def name_of(checkout: Path, settings: dict[str, object] | None = None) -> str:
    files = [checkout / "data/train.bin", checkout / "data/val.bin"]
    return fingerprint(SETTINGS if settings is None else settings, files, code_of(checkout))


def code_of(checkout: Path) -> dict[str, Path]:
    folder = checkout / "package"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}


def test_it_is_sixteen_hex_digits(checkout: Path) -> None:
    name = name_of(checkout)
    assert len(name) == 16
    assert int(name, 16) >= 0


@pytest.mark.slow
def test_it_is_the_same_in_another_process(checkout: Path) -> None:
    code = (
        "from pathlib import Path, PosixPath; from ssd.training.checkpoints import fingerprint\n"
        f"checkout = {checkout!r}\n"
        "files = [checkout / 'data/train.bin', checkout / 'data/val.bin']\n"
        f"print(fingerprint({SETTINGS!r}, files, {code_of(checkout)!r}))"
    )
    repository = Path(__file__).parent.parent.parent
    other = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, check=True)
    assert other.stdout.decode().strip() == name_of(checkout)


def test_places_names_of_data_key_order_and_compiled_files_do_not_count(checkout: Path) -> None:
    name = name_of(checkout)
    turned = {key: dict(reversed(section.items())) for key, section in reversed(SETTINGS.items())}
    assert name_of(checkout, turned) == name

    moved = checkout.with_name("moved")
    shutil.copytree(checkout, moved)
    compiled = moved / "package/__pycache__/loss.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"compiled")
    (moved / "package/notes.txt").write_text("no code")
    assert name_of(moved) == name

    files = [(moved / f"data/{split}.bin").rename(moved / f"{split}.tensors") for split in ("train", "val")]
    assert fingerprint(SETTINGS, files, code_of(moved)) == name


def test_every_setting_counts(checkout: Path) -> None:
    variants = [
        SETTINGS,
        {**SETTINGS, "model": {"backbone": "resnet34"}},
        {**SETTINGS, "train": {"lr": 0.2, "epochs": 3, "milestones": [0.5, 0.8]}},
        {**SETTINGS, "train": {"lr": 0.1, "epochs": 3, "milestones": [0.8, 0.5]}},
        {**SETTINGS, "augment": {}},
        {},
    ]
    assert len({name_of(checkout, settings) for settings in variants}) == len(variants)


@pytest.mark.parametrize("file", ["data/train.bin", "data/val.bin", "package/data/read.py"])
def test_a_changed_byte_of_data_or_code_counts(checkout: Path, file: str) -> None:
    name = name_of(checkout)
    content = (checkout / file).read_text()
    (checkout / file).write_text(content.replace("3", "4") if "3" in content else content + ".")
    assert name_of(checkout) != name
    (checkout / file).write_text(content)
    assert name_of(checkout) == name


def test_swapped_data_and_new_moved_or_deleted_code_count(checkout: Path) -> None:
    found = {name_of(checkout)}
    files = [checkout / "data/val.bin", checkout / "data/train.bin"]
    found.add(fingerprint(SETTINGS, files, code_of(checkout)))
    (checkout / "package/new.py").write_text("")
    found.add(name_of(checkout))
    (checkout / "package/new.py").rename(checkout / "package/data/new.py")
    found.add(name_of(checkout))
    (checkout / "package/loss.py").unlink()
    found.add(name_of(checkout))
    assert len(found) == 5


def test_another_torch_counts(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name_of(checkout)
    monkeypatch.setattr("torch.__version__", "1.0")
    assert name_of(checkout) != name


def test_what_json_does_not_know_is_refused(checkout: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        name_of(checkout, {"lr": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        name_of(checkout, {"path": checkout})
