"""The data that download will need: archives of public data sets, or the user's own folder."""

from collections.abc import Sequence
from pathlib import Path

from ssd.errors import UserError
from ssd.fetch import RemoteFile
from ssd.layouts import OWN_SOURCES
from ssd.params import DataParams
from ssd.preflight.finding import Finding, collected
from ssd.preflight.hosts import list_reasons, probe
from ssd.prepare.readers.folder_files import read_folder
from ssd.prepare.readers.recognise import recognise
from ssd.source.download import archive_path, with_mirrors
from ssd.source.own_folder import find_own
from ssd.source.public_sets import ARCHIVES


def check_source(data: DataParams, raw_folder: Path, root: Path) -> list[Finding]:
    """Look for the data set where download will look for it.

    Of a public data set that is complete in `raw_folder`, nothing more is needed; a folder of one's own that
    is gone then is a warning.

    Args:
        data: the `data` section; relative paths are resolved against `root`.
        raw_folder: holds what download has written, `raw_folder / data.source`.
        root: the main workspace.
    """
    present = (raw_folder / data.source).is_dir()
    findings: list[Finding] = []
    with collected(findings, fatal=not present):
        if data.source in OWN_SOURCES:
            _check_own(data, root)
        elif not present:
            findings += _check_archives(data, root)
    return findings


def _check_own(data: DataParams, root: Path) -> None:
    """Find the user's own data and, in a folder, the format of its annotations."""
    place = find_own(data.path, root)
    if place.is_dir():
        try:
            recognise(read_folder(place), data.source)
        except OSError as error:
            raise UserError(f"{place} cannot be read: {error}", key="data.path") from None


def _check_archives(data: DataParams, root: Path) -> list[Finding]:
    """Compare the sizes of the archives that are there, and ask the hosts of all others."""
    findings: list[Finding] = []
    missing: list[RemoteFile] = []
    for archive in ARCHIVES.get(data.source, ()):
        file, path = with_mirrors(archive.file, data.mirrors), archive_path(archive, data, root)
        if not path.exists():
            missing.append(file)
        elif path.is_file() and path.stat().st_size != file.num_bytes:
            text = (
                f"{path}: not the file that was published: {path.stat().st_size:,} bytes, "
                f"expected {file.num_bytes:,}; delete it and run again"
            )
            findings.append(Finding("data.archives", text))
    return findings + _unreachable(missing, data.archives)


def _unreachable(missing: Sequence[RemoteFile], folder: str) -> list[Finding]:
    """The archives that no host can give; `folder` is `data.archives`."""
    answers = probe({url: file.num_bytes for file in missing for url in file.urls})
    findings = []
    for file in missing:
        reasons = {url: answers[url] for url in file.urls}
        if all(reasons.values()):
            text = (
                f"{file.name} ({file.num_bytes / 1e9:.2f} GB) is not in {folder} and cannot be downloaded "
                f"({list_reasons(reasons)}); put it there, from {file.urls[-1]}"
            )
            findings.append(Finding("data.archives", text))
    return findings
