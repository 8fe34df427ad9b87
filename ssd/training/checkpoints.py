"""The checkpoints of one training: the state that a killed process resumes from, and the best weights so far.

A file is a header line, `ssd-checkpoint-1 <SHA-256 of the rest>`, and the output of `torch.save`. It gets
its final name only when it is complete and synced to disk, and it is read without pickle; truncation, a
flipped bit or a foreign file is detected. The folder contains

    step-00000200.pt  the last state and the one before it
    best-0003.pt      the best weights (of epoch 3), `keep_best` of them
    .lock, .holder    the lock, and the process that holds it

Best weights are written before the state that refers to them, and deleted after the last state that does: a
process may be killed at any moment and leaves a state with all its weights.
"""

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from ssd.errors import UserError, first_line, is_out_of_memory
from ssd.files import replacing, sha256
from ssd.lock import LockedError, ProcessLock

log = logging.getLogger(__name__)

State = dict[str, Any]  # nested dicts, lists, tensors and plain values: what torch.load reads without pickle

CHECKPOINT_FORMAT = "ssd-checkpoint-1"
HEADER_LENGTH = len(CHECKPOINT_FORMAT) + 66  # a space, 64 hex digits, a line end

STATE_NAME = re.compile(r"step-(\d{8,})\.pt")
OUR_NAMES = re.compile(r"(step-\d{8,}|best-\d{4,})\.pt")
TEMPORARY_NAMES = re.compile(r"\.(step-\d{8,}|best-\d{4,})\.pt\.part")


@dataclass(frozen=True)
class Best:
    """One of the best weights: their epoch (from 1), score, and file with its digest.

    score: higher is better; None where nothing was measured yet. sha256: of the file's payload, as in its
    header.
    """

    epoch: int
    score: float | None
    file: str
    sha256: str


@dataclass(frozen=True)
class _Saved:
    """A state that is known to be valid, and the names of all files that it needs, its own included."""

    step: int
    files: frozenset[str]


class CheckpointFolder:
    """A folder of checkpoints, locked by this process between `__enter__` and `__exit__`.

    Args:
        folder: created if it does not exist. It must belong to one training: every file in it with the name
            of a checkpoint is treated as one of this training, and deleted when it is no longer needed.
        keep_best: number of best weights kept.

    Attributes:
        best: the best weights, best first; after `load`, those of the loaded state.

    Raises (on entering):
        UserError: the folder cannot be created or written, or another process has locked it.
    """

    def __init__(self, folder: Path, keep_best: int) -> None:
        self.folder, self.keep_best = folder, keep_best
        self.best: tuple[Best, ...] = ()
        self._saved: list[_Saved] = []  # oldest first, two at most
        self._lock = ProcessLock(folder)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
            for path in self._files(TEMPORARY_NAMES):  # of a process that was killed
                path.unlink()
        except LockedError as error:
            raise UserError(
                f"{self.folder}: another training writes its checkpoints here (process {error.holder}); "
                "wait until it ends, or end it, and start again"
            ) from None
        except OSError as error:
            self._lock.release()
            raise UserError(
                f"{self.folder}: checkpoints cannot be written here: {error.strerror or error}; "
                "it must be a folder that this user can write, on a disk with free space"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def load(self) -> State | None:
        """Load the newest valid state, on the CPU, and set `best` to its weights; None without one.

        A state is valid if it can be read and all its best weights exist unchanged. Each newer one that is
        not is logged as a warning, and kept until a valid one is saved.

        Raises:
            UserError: this user may not read a file.
        """
        damaged: list[str] = []
        content: State | None = None
        for path in sorted(self._files(STATE_NAME), key=_step, reverse=True):
            try:
                content = _read_state(path)
                break
            except _DamagedError as error:
                damaged.append(f"{path}: {error}")
        for line in damaged:
            log.warning("%s; %s", line, _outlook(content["step"] if content else None))
        if content is None:
            return None
        self.best = tuple(Best(**item) for item in content["best"])
        self._saved = [_saved(content["step"], self.best)]
        state: State = content["state"]
        return state

    def save(self, state: State, step: int, *, final: bool = False) -> None:
        """Write the state after `step` steps, with the list of the best weights; then delete old files.

        The last two states are kept, with the weights that either refers to; of a training that has ended
        (`final`) only the last.

        Raises:
            UserError: it cannot be written; earlier checkpoints are kept.
            pickle.UnpicklingError: it contains an object that could not be read back.
        """
        content = {"step": step, "best": [asdict(item) for item in self.best], "state": state}
        self._write(_state_name(step), content)
        before = [] if final else [saved for saved in self._saved if saved.step != step][-1:]
        self._saved = [*before, _saved(step, self.best)]
        needed = frozenset[str]().union(*(saved.files for saved in self._saved))
        for path in self._files(OUR_NAMES):
            if path.name not in needed:
                path.unlink()

    def save_weights(self, weights: dict[str, Tensor], epoch: int, score: float | None) -> Best | None:
        """Keep the weights after `epoch` if they are among the best; None if they are not.

        Of equal scores the earlier epoch is better. Until there is a score, the latest weights count as the
        best. The choice becomes persistent with the next `save`.

        Raises:
            UserError: they cannot be written; earlier checkpoints are kept.
        """
        offered = Best(epoch, score, f"best-{epoch:04d}.pt", sha256="")
        chosen = _best_of([*self.best, offered], self.keep_best)
        if offered not in chosen:
            return None
        digest = self._write(offered.file, {name: value.detach() for name, value in weights.items()})
        kept = replace(offered, sha256=digest)
        self.best = tuple(kept if item is offered else item for item in chosen)
        return kept

    def read_weights(self, best: Best) -> dict[str, Tensor]:
        """The weights of one of `best`, on the CPU.

        Raises:
            UserError: the file was damaged after it was written.
        """
        path = self.folder / best.file
        try:
            return _read(path, best.sha256)
        except _DamagedError as error:
            raise UserError(
                f"{path}: {error}; start again: training resumes from the last state whose files are intact"
            ) from None

    def _files(self, names: re.Pattern[str]) -> list[Path]:
        return [path for path in self.folder.iterdir() if names.fullmatch(path.name) and path.is_file()]

    def _write(self, name: str, content: State) -> str:
        """Write a file durably; returns the SHA-256 of its payload."""
        payload = io.BytesIO()
        torch.save(content, payload)
        payload.seek(0)
        # Raises now if an object cannot be read back. On "meta", the data of tensors are not read.
        torch.load(payload, map_location="meta", weights_only=True)
        digest = hashlib.sha256(payload.getbuffer()).hexdigest()
        path = self.folder / name
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                file.write(_header(digest))
                file.write(payload.getbuffer())
            _sync_folder(self.folder)
        except OSError as error:
            outlook = _outlook(self._saved[-1].step if self._saved else None)
            raise UserError(
                f"{path}: cannot be written: {error.strerror or error} "
                f"({payload.getbuffer().nbytes / 1e6:.1f} MB needed); fix that and start again: {outlook}"
            ) from None
        return digest


def fingerprint(settings: Mapping[str, object], data: Sequence[Path], code: Mapping[str, Path]) -> str:
    """The identifier of a training: 16 hex digits of a SHA-256 over everything that determines its result.

    It does not depend on the names of data files, the order of keys or the path of the checkout.

    Args:
        settings: JSON values.
        data: files, in a fixed order: the training images first, for example.
        code: the files whose code determines the result, by name: a training must not resume with code other
            than it began with.

    Raises:
        ValueError, TypeError: a setting is not finite or no JSON value.
        OSError: a file cannot be read.
    """
    content = {
        "settings": settings,
        "files": [sha256(path) for path in data],
        "code": {name: sha256(path) for name, path in code.items()},
        "torch": torch.__version__,
    }
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _DamagedError(Exception):
    """A file differs from what was written; the message gives the reason."""


def _header(digest: str) -> bytes:
    return f"{CHECKPOINT_FORMAT} {digest}\n".encode()


def _state_name(step: int) -> str:
    return f"step-{step:08d}.pt"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _saved(step: int, best: Sequence[Best]) -> _Saved:
    return _Saved(step, frozenset([_state_name(step), *(item.file for item in best)]))


def _best_of(items: Sequence[Best], keep_best: int) -> list[Best]:
    """The best `keep_best` of those with a score, best first; the latest where none has one."""
    scored = sorted((-item.score, item.epoch, item) for item in items if item.score is not None)
    return [item for _, _, item in scored[:keep_best]] or [max(items, key=lambda item: item.epoch)]


def _outlook(step: int | None) -> str:
    return f"training resumes from step {step}" if step is not None else "training starts from the beginning"


def _read_state(path: Path) -> State:
    """Content of a state file; raises _DamagedError if it or a weights file that it refers to is damaged."""
    content = _read(path)
    if not isinstance(content, dict) or content.keys() != {"step", "best", "state"}:
        raise _DamagedError("not a state of a training")
    for item in content["best"]:
        try:
            _check(path.with_name(item["file"]), item["sha256"])
        except _DamagedError as error:
            raise _DamagedError(f"it needs {item['file']}, which is {error}") from None
    return content


def _read(path: Path, sha256: str | None = None) -> State:
    _check(path, sha256)
    try:
        with path.open("rb") as file:
            file.seek(HEADER_LENGTH)
            content: State = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises a dozen types)
        if is_out_of_memory(error):
            # Not reported as damage, as below.
            raise UserError(f"{path}: not enough memory to read it: {first_line(error)}") from None
        raise _DamagedError(f"not readable without pickle ({first_line(error)})") from None
    return content


def _check(path: Path, sha256: str | None = None) -> None:
    """Raise _DamagedError unless the payload has the digest of the header, and `sha256` where it is given."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_LENGTH)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _DamagedError("missing") from None
    except PermissionError:
        # Not reported as damage: a damaged file would be deleted later.
        raise UserError(f"{path}: not readable by this user; make it so, or delete its folder") from None
    except OSError as error:
        raise _DamagedError(f"unreadable ({error.strerror or error})") from None
    if header != _header(digest):
        raise _DamagedError("damaged, or no checkpoint: its content does not match the SHA-256 of its header")
    if sha256 is not None and digest != sha256:
        raise _DamagedError("not the file that was written at that time")


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk: without this, a power failure may undo a renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
