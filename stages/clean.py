"""`python -m stages.clean`: what takes disk space and nothing refers to any more; no stage of dvc.yaml.

It lists, and with --yes deletes: checkpoints of trainings that have ended; files in DVC's cache that neither
the workspace nor a commit nor an experiment has; runs and models that were deleted in MLflow; files that
killed processes left half written. Nothing is deleted while a stage runs here.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ssd.errors import UserError, storage_errors_explained
from ssd.tracking.disk import absolute_location, check_database, database
from ssd.training.checkpoints import CheckpointFolder
from stages.command import parser_of
from stages.only_one import only_one

STAGES = ("download", "preprocess", "train", "evaluate", "export", "report")
CHECKPOINTS = Path("checkpoints")
HALF_WRITTEN = re.compile(r"\..+\.(part|old)")
DVC_GC = ("dvc", "gc", "--workspace", "--all-commits", "--all-experiments", "--force")
STORE = "sqlite:///mlflow/mlflow.db"  # below the folder that MLflow is started in, as are the artifacts
MLFLOW_GC = ("mlflow", "gc", "--backend-store-uri", STORE, "--tracking-uri", STORE)
DELETED = """
SELECT artifact_uri FROM runs WHERE lifecycle_stage = 'deleted' UNION
SELECT artifact_location FROM logged_models WHERE lifecycle_stage = 'deleted'
"""
VERSIONS_OF_DELETED = """
SELECT name, version FROM model_versions WHERE current_stage <> 'Deleted_Internal' AND (
    run_id IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted') OR
    source IN (SELECT 'models:/' || model_id FROM logged_models WHERE lifecycle_stage = 'deleted'))
"""
DVC_LINE = re.compile(r"^Removing (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Waste:
    """What can be freed.

    what: for the list; paths: files and folders; delete: takes them away.
    """

    what: str
    paths: list[Path]
    delete: Callable[[], object]

    def num_bytes(self) -> int:
        """Of all files."""
        files = [file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.lstat().st_size for file in files if not file.is_dir())


def main(arguments: Sequence[str] = ()) -> None:
    """List, and delete if told so."""
    parser = parser_of(main)
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    delete = parser.parse_args(arguments).yes
    try:
        with storage_errors_explained(), ExitStack() as stack:
            for stage in STAGES:
                stack.enter_context(only_one(stage))
            clean(Path.cwd(), delete)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def clean(root: Path, delete: bool) -> None:
    """Print a line for each kind of waste below `root`, the repository; with `delete`, take it away.

    Raises:
        UserError: DVC or MLflow cannot say what is referred to.
    """
    found = [waste for find in (checkpoints, half_written, dvc_cache, mlflow_runs) for waste in find(root)]
    total = 0
    for waste in found:
        total += (size := waste.num_bytes())
        print(f"{size / 1e6:10.1f} MB  {waste.what}", flush=True)
        if delete:
            waste.delete()
    told = "freed" if delete else "can be freed: make clean YES=1" if found else "nothing to free"
    print(f"{total / 1e6:10.1f} MB  {told}")


def checkpoints(root: Path) -> Iterator[Waste]:
    """Of trainings that have ended. Their models are in DVC's cache, their figures in MLflow."""
    for folder in sorted((root / CHECKPOINTS).glob("*/")):
        if has_ended(folder):
            yield Waste(
                f"checkpoints of an ended training: {folder.relative_to(root)}", [folder], remove(folder)
            )


def has_ended(folder: Path) -> bool:
    """Whether the training of these checkpoints has; no if they are damaged, or another process has them."""
    try:
        with CheckpointFolder(folder, keep_best=1) as opened:
            state = opened.load()
    except UserError:
        return False
    return bool(state and state["progress"]["finished"])


def half_written(root: Path) -> Iterator[Waste]:
    """Files and folders that were to replace others; see `ssd.files.replacing`."""
    folders = [root / name for name in ("data", "models", "reports")]
    for path in sorted(path for folder in folders for path in folder.rglob(".*")):
        if HALF_WRITTEN.fullmatch(path.name) and not HALF_WRITTEN.fullmatch(path.parent.name):
            yield Waste(f"half written: {path.relative_to(root)}", [path], remove(path))


def remove(path: Path) -> Callable[[], object]:
    """A function that deletes a file or a folder."""
    return lambda: path.unlink() if path.is_file() else shutil.rmtree(path)


def dvc_cache(root: Path) -> Iterator[Waste]:
    """Objects that neither the workspace nor a commit nor an experiment has."""
    listed = run_module([*DVC_GC, "--dry"], root)
    paths = [Path(line) for line in DVC_LINE.findall(listed)]
    if paths:
        what = f"DVC's cache: {len(paths)} objects that no commit, experiment or workspace has"
        yield Waste(what, paths, lambda: run_module(DVC_GC, root))


def mlflow_runs(root: Path) -> Iterator[Waste]:
    """Runs and models that were deleted in MLflow's pages; nothing while one has a version of a model."""
    if not database(root).exists():
        return
    check_database(root)
    with closing(sqlite3.connect(database(root))) as connection:
        locations, versions = (
            connection.execute(query).fetchall() for query in (DELETED, VERSIONS_OF_DELETED)
        )
    if versions:
        named = ", ".join(f"{name} {number}" for name, number in versions)
        print(
            f"kept: what was deleted in MLflow, as versions of models need it ({named}); delete these first"
        )
    elif locations:
        folders = [
            Path(absolute_location(location, root).removeprefix("file://")) for (location,) in locations
        ]
        what = f"runs and models that were deleted in MLflow: {len(folders)}"
        yield Waste(what, folders, lambda: run_module(MLFLOW_GC, root))


def run_module(command: Sequence[str], root: Path) -> str:
    """What `python -m COMMAND` printed.

    Raises:
        UserError: it failed; with its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        raise UserError(f"`{' '.join(command[:2])}` failed: {lines[-1]}; run from the repository's root")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main(sys.argv[1:])
