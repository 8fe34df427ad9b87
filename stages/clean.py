"""`python -m stages.clean`: what takes disk space and nothing refers to any more; no stage of dvc.yaml.

It lists, and with --yes deletes: checkpoints of trainings that have ended; files in DVC's cache that neither
the workspace nor a commit nor an experiment has; runs and models that were deleted in MLflow; images that
`stages.pack` packed and preprocess has read; models that `stages.folds` fetched and `evaluate.models` does
not name; files that killed processes left half written. Nothing is deleted while a stage runs here or in an
experiment's copy.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ruamel.yaml import YAML

from ssd.errors import UserError, storage_errors_explained
from ssd.models.published import hub_folder
from ssd.params import load_params
from ssd.tracking.disk import absolute_location, check_database, database
from ssd.training.checkpoints import CheckpointFolder
from stages.command import parser_of
from stages.fold_models import FETCHED, FOLDER
from stages.only_one import LOCKS, only_one
from stages.revision import place_in_git

STAGES = ("download", "preprocess", "train", "evaluate", "export", "report")
CHECKPOINTS, RAW = Path("checkpoints"), Path("data/raw")
PACKED, TENSORS = Path("data/packed"), Path("data/tensors")
COPIES = (".dvc/tmp/exps/*", ".dvc/tmp/exps/standalone/*")
"""Of git's whole repository, in which DVC runs `dvc queue start` and `dvc exp run --temp`."""

HALF_WRITTEN = re.compile(r"\..+\.(part|old)")
STILL_WRITTEN = 3600.0
"""Seconds since the last change, within which a file may still be one that a process writes."""

DVC_GC = ("dvc", "gc", "--workspace", "--all-commits", "--all-experiments", "--force")
DVC_CACHE = ("dvc", "cache", "dir")
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
            for stage in (*STAGES, "tune", "folds"):
                stack.enter_context(only_one(stage))
            check_copies(Path.cwd())
            clean(Path.cwd(), delete)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what is listed as freed is, run again for the rest", file=sys.stderr)
        sys.exit(130)


def clean(root: Path, delete: bool) -> None:
    """Print a line for each kind of waste below `root`, the repository; with `delete`, take it away.

    Raises:
        UserError: DVC or MLflow cannot say what is referred to.
    """
    kinds = (checkpoints, packed_images, fold_models, half_written, dvc_cache, mlflow_runs)
    found = [waste for find in kinds for waste in find(root)]
    total = 0
    for waste in found:
        total += (size := waste.num_bytes())
        print(f"{size / 1e6:10.1f} MB  {waste.what}", flush=True)
        if delete:
            waste.delete()
    told = "freed" if delete else "can be freed: make clean YES=1" if found else "nothing to free"
    print(f"{total / 1e6:10.1f} MB  {told}")


def copies(root: Path) -> list[Path]:
    """The project in the copy of each experiment that runs or was killed; DVC deletes those that end."""
    place = place_in_git(root)
    projects = (copy / place for pattern in COPIES for copy in root.glob(pattern))
    return sorted(project for project in projects if (project / ".dvc").is_dir())


def check_copies(root: Path) -> None:
    """Raise UserError if a stage runs in the copy of an experiment: it shares cache and checkpoints."""
    for copy in copies(root):
        for lock in sorted((copy / LOCKS).glob("*.lock")):
            with only_one(lock.stem, copy):
                pass


def checkpoints(root: Path) -> Iterator[Waste]:
    """Of trainings that have ended. Their models are in DVC's cache, their figures in MLflow."""
    for folder in sorted((root / CHECKPOINTS).glob("[!.]*/")):
        with ended(folder) as has_ended:
            pass
        if has_ended:
            what = f"checkpoints of an ended training: {folder.relative_to(root)}"
            yield Waste(what, [folder], partial(delete_checkpoints, folder))


@contextmanager
def ended(folder: Path) -> Iterator[bool]:
    """Whether the training of these checkpoints has; no other process has them in the block if so.

    No if they are damaged, or another process has them.
    """
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(CheckpointFolder(folder, keep_best=1))
            state = opened.load()
        except UserError:
            state = None
        yield bool(state and state["progress"]["finished"])


def delete_checkpoints(folder: Path) -> None:
    """Unless a training has begun there since they were listed."""
    with ended(folder) as has_ended:
        if has_ended:
            # At once out of the way: a training that begins now makes a folder of its own.
            shutil.rmtree(folder.replace(folder.with_name(f".{folder.name}.old")))


def packed_images(root: Path) -> Iterator[Waste]:
    """What `stages.pack` has written, once preprocess has run after it."""
    packed, tensors = root / PACKED, root / TENSORS
    if packed.is_dir() and tensors.is_dir() and last_change(packed) < last_change(tensors):
        yield Waste(f"packed images, which preprocess has read: {PACKED}", [packed], partial(remove, packed))


def fold_models(root: Path) -> Iterator[Waste]:
    """What `stages.folds` has fetched, and would again, unless params.yaml names it.

    No other file there: it may be all that a user has of a model.
    """
    models = load_params(root / "params.yaml").evaluate.models
    named = {(root / Path(name).expanduser()).resolve() for name in models}
    unnamed = [
        path
        for path in sorted((root / FOLDER).glob("*"))
        if FETCHED.fullmatch(path.name) and path.resolve() not in named and is_old(path)
    ]
    if unnamed:
        what = f"models of folds that evaluate.models does not name: {FOLDER}"
        yield Waste(what, unnamed, partial(remove_all, unnamed))


def half_written(root: Path) -> Iterator[Waste]:
    """What was to replace an output of a stage (see `ssd.files.replacing`), or a file in its folder."""
    kept = kept_folders(root)
    outs = [root / out for out in outputs(root)]
    beside = [out.with_name(f".{out.name}.{end}") for out in outs for end in ("part", "old")]
    within = [path for out in outs if out.is_dir() for path in out.glob(".*.*")]
    checkpoints_left = (root / CHECKPOINTS).glob(".*.old")  # by `delete_checkpoints`
    for path in sorted({*beside, *within, *checkpoints_left}):
        is_kept = any(path.resolve().is_relative_to(folder) for folder in kept)
        if HALF_WRITTEN.fullmatch(path.name) and path.exists() and not is_kept and is_old(path):
            yield Waste(f"half written: {path.relative_to(root)}", [path], partial(remove, path))


def outputs(root: Path) -> list[str]:
    """The files and folders that the stages write, by dvc.yaml."""
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"].values()
    return [out for stage in stages for out in [*stage["outs"], *stage.get("metrics", [])]]


def kept_folders(root: Path) -> list[Path]:
    """A user's own data, and downloads, which the next attempt resumes."""
    data = load_params(root / "params.yaml").data
    named = (root / Path(name).expanduser() for name in (data.path, data.archives))
    return [path.resolve() for path in (*named, hub_folder(), root / RAW)]


def is_old(path: Path) -> bool:
    """Whether nothing in it has changed for so long that no process writes it."""
    return time.time() - last_change(path) > STILL_WRITTEN


def last_change(path: Path) -> float:
    """Of a file, or of anything in a folder, in seconds since 1970."""
    return max(file.lstat().st_mtime for file in (path, *path.rglob("*")))


def remove(path: Path) -> None:
    """Delete a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_all(paths: Sequence[Path]) -> None:
    """Delete each of them."""
    for path in paths:
        remove(path)


def dvc_cache(root: Path) -> Iterator[Waste]:
    """Objects that neither the workspace nor a commit nor an experiment has, unless others may need them."""
    if reason := needed_otherwise(root):
        print(f"kept: DVC's cache, as {reason}")
        return
    listed = run_module([*DVC_GC, "--dry"], root)
    paths = [Path(line) for line in DVC_LINE.findall(listed)]
    if paths:
        what = f"DVC's cache: {len(paths)} objects that no commit, experiment or workspace has"
        yield Waste(what, paths, lambda: run_module(DVC_GC, root))


def needed_otherwise(root: Path) -> str:
    """Why objects of DVC's cache may be needed that `dvc gc` would delete, and what to do; "" if none are."""
    if running := copies(root):
        place = running[0].relative_to(root)
        return f"an experiment runs in {place}, or was killed; delete that folder if none runs"
    if has_stash(root):
        return "git's stash may need it; `git stash pop` or `git stash drop` all of it first"
    cache = Path(run_module(DVC_CACHE, root).splitlines()[0])
    if not (root / cache).resolve().is_relative_to(root.resolve() / ".dvc"):
        command = " ".join(DVC_GC[:-1])
        return f"other projects may share {cache}; `{command} --projects ...` with all of them cleans it"
    return ""


def has_stash(root: Path) -> bool:
    """Whether `git stash` holds something, as changes of dvc.lock. DVC does not look there."""
    command = ["git", "rev-parse", "--quiet", "--verify", "refs/stash"]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0


def mlflow_runs(root: Path) -> Iterator[Waste]:
    """Runs and models that were deleted in MLflow's pages; nothing while one has a version of a model.

    Raises:
        UserError: the database cannot be read, or lacks a table.
    """
    if not database(root).exists():
        return
    check_database(root)
    try:
        with closing(sqlite3.connect(database(root))) as connection:
            locations, versions = (
                connection.execute(query).fetchall() for query in (DELETED, VERSIONS_OF_DELETED)
            )
    except sqlite3.Error as error:
        raise UserError(
            f"{database(root)}: {error}; if an older MLflow made it, `mlflow db upgrade {STORE}` mends it"
        ) from None
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
        [sys.executable, "-m", *command],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        raise UserError(f"`{' '.join(command[:2])}` failed: {lines[-1]}; run from the repository's root")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main(sys.argv[1:])
