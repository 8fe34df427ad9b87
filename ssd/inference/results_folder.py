"""A folder of results that lists the files written into it, so that a later run replaces these alone."""

from contextlib import suppress
from pathlib import Path

from ssd.files import write_bytes

LIST = ".ssd-predict"
"""The list: a relative path in each line, added before the file is written. Hidden, so no reader takes it."""


class ResultsFolder:
    """Where a run writes files; those of former runs that the folder lists are deleted at once.

    Other files stay: a user may keep own ones there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._list = folder / LIST
        self._delete_listed()

    def place(self, name: str) -> Path:
        """Where to write a file of this relative path, after it was listed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._list.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        return self._folder / name

    def write(self, name: str, content: bytes) -> None:
        """Write a file of this relative path, atomically."""
        write_bytes(self.place(name), content)

    def _delete_listed(self) -> None:
        if not self._list.is_file():
            return
        root = self._folder.resolve()
        files = [self._folder / line for line in self._list.read_text(encoding="utf-8").splitlines()]
        # A folder in it may since have become a link to another place, where the files are not results.
        former = [file for file in files if file.parent.resolve().is_relative_to(root) and not file.is_dir()]
        for file in former:
            file.unlink(missing_ok=True)
        for parent in sorted({parent for file in former for parent in file.parents}, reverse=True):
            if parent != self._folder and parent.is_relative_to(self._folder):
                with suppress(OSError):  # it is gone, or has other files
                    parent.rmdir()
        self._list.unlink()
