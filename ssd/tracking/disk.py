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

from ssd.errors import UserError

FOLDER = "mlflow"
ARTIFACTS = f"{FOLDER}/artifacts"

PATIENCE = 20.0
"""Seconds to wait for another process that uses the store; MLflow waits as long for SQLite."""

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
    """Keep other processes of this package from opening the store in the block. Its folder is created.

    Raises:
        OSError: the folder cannot be written, or another process does not let go.
    """
    folder = root.resolve() / FOLDER
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock", timeout=6 * PATIENCE):  # making a store takes a slow machine a minute
        yield


def check_database(root: Path) -> None:
    """Return if the database can be written, or is not there yet. MLflow would retry for minutes.

    Raises:
        UserError: it is damaged, read-only, no file, or locked for long.
    """
    path = database(root)
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT * FROM alembic_version")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise UserError(f"{path}: {error}", path=path) from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: {error}; move it away, and a new one is made", path=path) from None


def make_locations_relative(root: Path) -> None:
    """Rewrite the locations of artifacts of a repository, wherever it was when they were written.

    Locations of any other form stay. Call it while the store is locked.
    """
    with closing(sqlite3.connect(database(root), timeout=PATIENCE)) as connection, connection:
        for table, column in LOCATIONS:
            query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ?"  # noqa: S608 (constants)
            found = [location for (location,) in connection.execute(query, [f"%/{ARTIFACTS}%"])]
            changes = [(relative_location(location), location) for location in found]
            update = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608 (constants)
            connection.executemany(update, [(new, old) for new, old in changes if new != old])


def set_experiment_tag(root: Path, key: str, value: str) -> dict[str, str]:
    """Set a tag of all experiments but MLflow's own, which is empty; without the import of MLflow.

    Call it while the store is locked.

    Returns:
        ids of these experiments by their names, the newest first.
    """
    with closing(sqlite3.connect(database(root), timeout=PATIENCE)) as connection, connection:
        query = "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        found = connection.execute(f"{query} AND experiment_id <> 0 ORDER BY creation_time DESC").fetchall()
        insert = "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)"
        connection.executemany(insert, [(key, value, experiment_id) for _, experiment_id in found])
    return {name: str(experiment_id) for name, experiment_id in found}


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
