"""A server in place of the hosts of public files."""

from collections.abc import Iterator

import loopback as lb
import pytest
from loopback import Loopback


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with lb.serving() as running:
        yield running
