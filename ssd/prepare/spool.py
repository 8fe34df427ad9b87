"""Bytes that are too many for memory, kept in a file without a name until they are wanted."""

import mmap
from pathlib import Path
from tempfile import TemporaryFile


class Spool:
    """Takes pieces of bytes one after the other; gives views of them once all are there.

    The file lies in `folder` (not in the system's temporary folder, which may be memory itself) and is gone
    with the last view of it, or with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the spool)
        self._size = 0

    def add(self, content: bytes) -> slice:
        """Append `content`; returns its place in `view`."""
        self._file.write(content)
        place = slice(self._size, self._size + len(content))
        self._size = place.stop
        return place

    def view(self) -> memoryview:
        """All bytes so far, mapped from the file: the system loads and drops them as they are used."""
        if not self._size:
            return memoryview(b"")
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ))
