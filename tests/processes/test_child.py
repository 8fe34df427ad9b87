"""An error in one of several processes reaches the launcher as what it is."""

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd.processes.child import ERRORS, first_error, report_errors


@pytest.fixture
def under_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for error reports, as a launcher sets it."""
    monkeypatch.setenv(ERRORS, str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def test_a_full_disk_is_for_the_user_to_mend(under_launcher: Path) -> None:
    """So the launcher prints its line, and starts the processes not again."""
    with pytest.raises(SystemExit) as ended, report_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "models/model.pt")
    assert ended.value.code == 2
    error = first_error(under_launcher)
    assert error is not None and error.kind == "user"
    assert str(error.as_user_error()).startswith("models/model.pt: No space left on device (")
