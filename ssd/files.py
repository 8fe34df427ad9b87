"""Writes files and folders atomically, and computes SHA-256 digests of files."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def expand_home(text: str | Path) -> Path:
    """The path, with `~` for the home folder; as it is where `~` begins a name, as of an editor's backup."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


@contextmanager
def naming(path: str | Path, temporary: str | Path | None = None) -> Iterator[None]:
    """Let an OSError of the block name `path`, if it names no file, as one of a write, or a temporary one."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if name is None or (temporary and isinstance(name, str) and Path(name).is_relative_to(temporary)):
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and replaces `path`.

    If the process is killed inside the block, `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with naming(path, temporary):
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path`.

    If the process is killed inside the block, `path` is unchanged or absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}.{end}") for end in ("part", "old"))
    for left in (temporary, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with naming(path, temporary):
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON to `path` atomically. NaN raises ValueError: JSON has none."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's content, or of a folder's: of its only file, else of the digests of its files.

    The files of a folder count in the order of their names, which do not count themselves; hidden ones, as a
    file manager leaves them, do not count.
    """
    path = Path(path)
    if path.is_dir():
        digests = [sha256(file) for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
