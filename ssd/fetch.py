"""Downloads large public files: with mirrors, resume, retries, timeouts and SHA-256 verification.

A file gets its final name only once its SHA-256 has been verified. An interrupted download stays as a
hidden `.NAME.part`, from which the next attempt resumes.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from ssd.errors import UserError

log = logging.getLogger(__name__)

BLOCK = 64 * 1024  # bytes per read; at most this much is lost when a connection breaks
MAX_REDIRECTS = 10
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
NO_HEAD_STATUS = {401, 403, 405, 501}  # the server has the file, perhaps, but does not answer HEAD requests


@dataclass(frozen=True)
class RemoteFile:
    """A file that never changes, and its http(s) URLs (mirrors) in order of preference.

    num_bytes: 0 if it is not known; then each mirror must tell it. sha256: 64 hex digits, or the first of
    them where its publisher states no more.
    """

    name: str
    num_bytes: int
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class RetryPolicy:
    """Retry and timeout settings per mirror; times in seconds."""

    attempts: int = 4  # consecutive ones without progress, before the mirror is given up
    wait: float = 1.0  # before the second attempt; doubles with each further one (back-off)
    connect: float = 10.0  # timeout
    read: float = 30.0  # timeout: time without a single byte


class _MirrorError(Exception):
    """A failed request; the message is the reason in a few words.

    `transient`: a retry on the same mirror may succeed; `drop_part`: the partial download must be discarded.
    """

    def __init__(self, reason: str, *, transient: bool, drop_part: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient
        self.drop_part = drop_part


def fetch(file: RemoteFile, folder: Path, retries: RetryPolicy | None = None, *, key: str = "") -> Path:
    """Return `folder / file.name`, downloaded if it is missing; its SHA-256 is verified in both cases.

    Several processes may request the same file: one downloads it, the others wait.

    Args:
        file: to fetch.
        folder: created if it is missing.
        retries: None takes the defaults.
        key: the parameter that asks for the file, for messages.

    Raises:
        UserError: the existing file has another digest (it is left unchanged), every mirror failed (with
            the reason for each), or the folder cannot be written.
    """
    path = folder / file.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f".{file.name}.lock", file.name):
                if not path.exists():
                    _download(file, folder, retries or RetryPolicy(), key)
                    return path
        check_in_place(path, file, key=key)
    except OSError as error:
        raise UserError(f"{path}: cannot be read or written: {error.strerror or error}") from None
    return path


def unavailable_reason(url: str, num_bytes: int | None, seconds: float) -> str:
    """Why a file cannot be fetched from `url`, in a few words; "" if it can be. Nothing is downloaded.

    A host that is slow or overloaded counts as available, because `fetch` waits for it and retries.

    Args:
        num_bytes: the file's size; None if it is not known.
        seconds: timeout of the connection and of the answer to the HEAD request.
    """
    try:
        with _short_reasons():
            try:
                response = requests.head(
                    url, allow_redirects=True, timeout=seconds, headers={"Accept-Encoding": "identity"}
                )
            except requests.exceptions.ReadTimeout:
                return ""
        if response.status_code in TRANSIENT_STATUS | NO_HEAD_STATUS:
            return ""
        length = response.headers.get("Content-Length", "0")
        _first_byte(response, 0, num_bytes or (int(length) if length.isdecimal() else 0))
    except _MirrorError as failure:
        return str(failure)
    return ""


def fetch_bytes(url: str, max_bytes: int, seconds: float) -> bytes:
    """What `url` answers, in memory, without retries; a web page is refused.

    Args:
        max_bytes: the answer may have.
        seconds: it may take.

    Raises:
        ConnectionError: there is no such answer; its message is the reason in a few words.
    """
    deadline = time.monotonic() + seconds
    body = bytearray()
    try:
        with _short_reasons(), requests.Session() as session:
            session.max_redirects = MAX_REDIRECTS
            with session.get(url, stream=True, timeout=seconds) as response:
                _first_byte(response, 0, int(response.headers.get("Content-Length") or 0))
                for block in response.iter_content(BLOCK):
                    body += block
                    if len(body) > max_bytes:
                        raise _MirrorError(f"sends more than {max_bytes:,} bytes", transient=False)
                    if time.monotonic() > deadline:
                        raise _MirrorError(f"takes more than {seconds:g} s", transient=True)
    except _MirrorError as failure:
        raise ConnectionError(str(failure)) from None
    return bytes(body)


def check_in_place(path: Path, file: RemoteFile, *, key: str = "") -> None:
    """Raise UserError unless the file at `path`, which exists, has the digest of `file`."""
    found = _sha256(path)
    if not found.startswith(file.sha256):
        expected = file.sha256 + ("" if len(file.sha256) == 64 else "...")
        if file.num_bytes:
            expected += f" ({file.num_bytes:,} bytes)"
        raise UserError(
            f"{path}: not the file that was published: sha256 is {found} ({path.stat().st_size:,} bytes), "
            f"expected {expected}; delete it and run again",
            key=key,
        )


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file `path`; the operating system releases it if the process dies."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("%s: another process is downloading it; waiting", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(file: RemoteFile, folder: Path, retries: RetryPolicy, key: str) -> None:
    """Try the mirrors in order; on success the verified part is renamed to its final name."""
    part = folder / f".{file.name}.part"
    reasons = []
    with requests.Session() as session:
        session.max_redirects = MAX_REDIRECTS
        session.headers["Accept-Encoding"] = "identity"  # no compression: ranges count the file's bytes
        for url in file.urls:
            try:
                _download_from(session, url, file, part, retries)
            except _MirrorError as failure:
                reasons.append(f"{_without_credentials(url)}: {failure}")
                log.warning("%s", reasons[-1])
                continue
            _publish(part, folder / file.name)
            return
    raise UserError(
        f"{file.name}: download failed from every mirror ({'; '.join(reasons)}); try again later, or without "
        f"a network put {file.name} into {folder}",
        key=key,
    )


def _download_from(
    session: requests.Session, url: str, file: RemoteFile, part: Path, retries: RetryPolicy
) -> None:
    """Complete and verify `part` from one mirror, with retries, or raise the last _MirrorError.

    An attempt that gets more than one percent of the file beyond the furthest byte so far resets the count
    of failures, so a large file completes over an unstable connection, with a bounded number of attempts.
    """
    inherited = _size(part) > 0  # begun by another mirror or an earlier run, which may have corrupted it
    reached = _size(part)
    failures = 0
    while True:
        try:
            if not file.num_bytes:
                file = replace(file, num_bytes=_announced_length(session, url, retries))
            _receive(session, url, file, part, retries)
            if _sha256(part).startswith(file.sha256):
                return
            transient, inherited = inherited, False
            raise _MirrorError("wrong sha256", transient=transient, drop_part=True)
        except _MirrorError as failure:
            if failure.drop_part:
                part.unlink(missing_ok=True)
            failures = 0 if _size(part) - reached > file.num_bytes // 100 else failures + 1
            reached = max(reached, _size(part))
            if not failure.transient or failures == retries.attempts:
                raise
            time.sleep(retries.wait * 2**failures / 2)


def _announced_length(session: requests.Session, url: str, retries: RetryPolicy) -> int:
    """The length of the file in bytes as a mirror tells it; the body of its answer is not read."""
    timeout = (retries.connect, retries.read)
    with _short_reasons(), session.get(url, stream=True, timeout=timeout) as response:
        length = response.headers.get("Content-Length", "")
        num_bytes = int(length) if length.isdecimal() else 0
        _first_byte(response, 0, num_bytes)
    if num_bytes == 0:
        raise _MirrorError("does not tell the length of the file", transient=False)
    return num_bytes


def _receive(session: requests.Session, url: str, file: RemoteFile, part: Path, retries: RetryPolicy) -> None:
    """Send one request and append the response body to `part`; return once it has its full length."""
    offset = _size(part)
    if offset == file.num_bytes:
        return
    log.info("%s: from %s, byte %d of %d", file.name, _without_credentials(url), offset, file.num_bytes)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    timeout = (retries.connect, retries.read)
    with (
        _short_reasons(),
        session.get(url, headers=headers, stream=True, timeout=timeout) as response,
    ):
        offset = _first_byte(response, offset, file.num_bytes)
        with part.open("ab") as sink, _byte_bar(file.name, file.num_bytes, offset) as bar:
            sink.truncate(offset)
            for block in response.iter_content(BLOCK):
                offset += len(block)
                if offset > file.num_bytes:
                    raise _MirrorError("sends more bytes than expected", transient=False, drop_part=True)
                sink.write(block)
                bar.update(len(block))
    if offset < file.num_bytes:
        raise _MirrorError(f"ended at byte {offset:,} of {file.num_bytes:,}", transient=True)


def _first_byte(response: requests.Response, offset: int, num_bytes: int) -> int:
    """The byte at which the body of `response` begins: `offset` as requested, or 0 if ranges are ignored.

    A body that cannot be this file (another length, a web page) is rejected before `part` is changed.
    """
    status = response.status_code
    if status in (206, 416) and offset:
        given = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""), re.IGNORECASE
        )
        if given and given[2] not in ("*", str(num_bytes)):
            raise _MirrorError(f"holds {int(given[2]):,} bytes, expected {num_bytes:,}", transient=False)
        if status == 206 and given and given[1] == str(offset):
            return offset
        raise _MirrorError("cannot resume", transient=True, drop_part=True)
    if status != 200:
        raise _MirrorError(f"HTTP {status}", transient=status in TRANSIENT_STATUS)
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _MirrorError("sends a web page", transient=False)
    length = response.headers.get("Content-Length", str(num_bytes))
    if length != str(num_bytes):
        raise _MirrorError(f"holds {length} bytes, expected {num_bytes}", transient=False)
    return 0


@contextmanager
def _short_reasons() -> Iterator[None]:
    """Convert exceptions of `requests` into a _MirrorError with a short reason."""
    try:
        yield
    except ValueError:  # InvalidURL, InvalidSchema; urllib raises it for some malformed redirects
        raise _MirrorError("not an http or https address", transient=False) from None
    except requests.exceptions.TooManyRedirects:
        raise _MirrorError(f"more than {MAX_REDIRECTS} redirects", transient=False) from None
    except requests.exceptions.SSLError:
        raise _MirrorError("TLS failed", transient=True) from None
    except requests.exceptions.ProxyError:
        raise _MirrorError("the proxy failed", transient=True) from None
    except requests.exceptions.ConnectTimeout:
        raise _MirrorError("connect timeout", transient=True) from None
    except requests.exceptions.ReadTimeout:
        raise _MirrorError("read timeout", transient=True) from None
    except requests.exceptions.ChunkedEncodingError:
        raise _MirrorError("the connection broke", transient=True) from None
    except requests.exceptions.ConnectionError:
        raise _MirrorError("no connection, or it was lost", transient=True) from None
    except requests.RequestException as error:
        raise _MirrorError(type(error).__name__, transient=True) from None


def _publish(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file, _byte_bar(f"checking {path.name}", path.stat().st_size) as bar:
        while block := file.read(16 * BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _byte_bar(label: str, num_bytes: int, initial: int = 0) -> "tqdm[NoReturn]":
    """A progress bar; disabled where stderr is not a terminal."""
    return tqdm(
        desc=label, total=num_bytes, initial=initial, unit="B", unit_scale=True, leave=False, disable=None
    )


def _without_credentials(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)
