"""The object store, one for all tests of a run."""

from collections.abc import Iterator

import pytest

from tests.on_demand.object_store import ObjectStore, running_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running one, with the buckets of compose.yaml."""
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running
