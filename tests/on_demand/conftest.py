"""The object store, one for all tests of a run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.on_demand.object_store import ObjectStore


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ObjectStore"]:
    """A running one, with the buckets of compose.yaml."""
    # Here, because tests without a store run without what `make s3` installs.
    from tests.on_demand.object_store import running_store

    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running
