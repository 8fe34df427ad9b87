"""MLflow's store on disk: the database `mlflow/mlflow.db` and the files in `mlflow/artifacts`.

MLflow writes absolute paths of artifacts into its database. After a move of the repository, in a copy, or
where it is mounted elsewhere (in a container as /app), they name a folder that is gone or another one's. So
they are kept relative to the repository; MLflow resolves them against the folder that it is started in.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

FOLDER = "mlflow"
ARTIFACTS = f"{FOLDER}/artifacts"

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that name a folder of artifacts."""

ABSOLUTE = re.compile(rf"(?:file://)?/(?:.*/)?{ARTIFACTS}(?P<below>/.*)?")


def database(root: Path) -> Path:
    """The file of the database; `root` is the repository."""
    return root.resolve() / FOLDER / "mlflow.db"


@contextmanager
def locked_store(root: Path) -> Iterator[None]:
    """Keep other processes of this package from opening the store in the block. Its folder is created."""
    folder = root.resolve() / FOLDER
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def make_locations_relative(root: Path) -> None:
    """Rewrite the locations of artifacts of a repository, wherever it was when they were written.

    Locations of any other form stay. Call it while the store is locked.
    """
    with closing(sqlite3.connect(database(root))) as connection, connection:
        for table, column in LOCATIONS:
            query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ?"  # noqa: S608 (constants)
            found = [location for (location,) in connection.execute(query, [f"%/{ARTIFACTS}%"])]
            changes = [(relative_location(location), location) for location in found]
            update = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608 (constants)
            connection.executemany(update, [(new, old) for new, old in changes if new != old])


def relative_location(location: str) -> str:
    """From "file:///home/me/project/mlflow/artifacts/ID/artifacts" to "mlflow/artifacts/ID/artifacts".

    Any other location is returned as it is.
    """
    match = ABSOLUTE.fullmatch(location)
    return ARTIFACTS + (match["below"] or "") if match else location


def absolute_location(location: str, root: Path) -> str:
    """The reverse, below `root`. Any other location is returned as it is."""
    if location != ARTIFACTS and not location.startswith(f"{ARTIFACTS}/"):
        return location
    return (root.resolve() / location).as_uri()
