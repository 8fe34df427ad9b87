"""`make verify`: does the current commit give the same bytes once more? No stage of dvc.yaml.

    python -m stages.verify

Clones the commit into a temporary folder, runs `dvc repro` there from nothing, in this environment, and
compares data, model, figures and exported files with those here. Exit code 1 if they differ. What the clock
decides (speed, latency), and the commit and machine that an exported file names, is not compared.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ssd.errors import UserError, storage_errors_explained
from ssd.params import load_params
from ssd.tracking.client import server_of
from ssd.tracking.model_files import is_mlflow_uri
from stages.command import parser_of, resolve_model
from stages.revision import revision
from stages.same_bytes import lasting_sha256

STAGES = ("download", "preprocess", "train", "evaluate", "export")
"""The report only shows what they write."""

FEW_FILES = 12
"""A folder of more is one row of the table."""

NOT_IN_GIT = (("data", "path"), ("data", "archives"), ("model", "weights"))
"""The params that, as evaluate.models, may name files here that git does not keep. Stages only read them."""


@dataclass(frozen=True)
class Row:
    """A file or folder that a stage writes; here, there: its SHA-256, "" where it is missing."""

    stage: str
    name: str
    here: str
    there: str

    @property
    def same(self) -> bool:
        """Whether both are there, with the same content."""
        return self.here == self.there != ""


def main(arguments: Sequence[str] = ()) -> None:
    parser_of(main).parse_args(arguments)
    try:
        with storage_errors_explained():
            rows = verify(Path.cwd())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    print_rows(rows)
    sys.exit(not all(row.same for row in rows))


def verify(root: Path) -> list[Row]:
    """Run the commit of `root` in a clone, and compare.

    Raises:
        UserError: `root` is no git repository, differs from its commit, or has no results; or the run fails.
    """
    found = revision(root)
    if found is None:
        raise UserError(f"{root} is not the root of a git repository; make verify runs a commit")
    if found.changed:
        names = ", ".join(found.changed[:5]) + (" ..." if len(found.changed) > 5 else "")
        raise UserError(f"{names}: not as in the commit {found.commit[:12]}; commit or stash it, then verify")
    outs = outputs(root)
    missing = [out for _, out in outs if not (root / out).exists()]
    if missing:
        raise UserError(
            f"{missing[0]} is not here, so there is nothing to compare with; run `dvc repro` first"
        )
    with temporary_folder() as folder:
        clone = Path(folder) / "clone"
        print(f"running {found.commit[:12]} from nothing in {clone}", flush=True)
        make_clone(root, found.commit, clone)
        run_pipeline(clone)
        return [row for stage, out in outs for row in compare(stage, out, root, clone)]


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """An empty one, with room.

    Raises:
        UserError: a file can be written nowhere.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="ssd-verify-")
    except FileNotFoundError:  # tempfile has tried all, and says it of a full disk, too
        raise UserError(
            "no folder for temporary files can be written; make room in /tmp, or name another in TMPDIR"
        ) from None


def outputs(root: Path) -> list[tuple[str, str]]:
    """What each of STAGES writes, by dvc.yaml: stage and path."""
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    return [
        (name, out) for name in STAGES for out in [*stages[name]["outs"], *stages[name].get("metrics", [])]
    ]


def make_clone(root: Path, commit: str, clone: Path) -> None:
    """The commit as a repository with an empty cache, no results, and no tracking.

    Raises:
        UserError: git fails, or the weights to start from cannot be lent.
    """
    for command in (
        ["git", "clone", "--quiet", "--no-checkout", str(root), str(clone)],
        ["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit],
    ):
        if subprocess.run(command).returncode != 0:
            raise UserError(f"the commit {commit[:12]} cannot be cloned into {clone}: git failed, see above")
    (clone / "dvc.lock").unlink(missing_ok=True)
    # Whatever cache the user's own configuration names.
    (clone / ".dvc/config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
    yaml = YAML()
    params: dict[str, Any] = yaml.load(clone / "params.yaml")
    models = params["evaluate"]["models"]
    for name in (*(params[section][key] for section, key in NOT_IN_GIT), *models):
        lend(root, clone, name)
    for key, name in (
        ("model.weights", params["model"]["weights"]),
        *(("evaluate.models", uri) for uri in models),
    ):
        if is_mlflow_uri(name):
            lend_from_mlflow(root, clone, key, name)
    params["tracking"]["enabled"] = False
    yaml.dump(params, clone / "params.yaml")


def lend(root: Path, clone: Path, name: str) -> None:
    """A link in the clone to a file or folder here that the clone lacks."""
    source, target = root / name, clone / name
    if source.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())


def lend_from_mlflow(root: Path, clone: Path, key: str, uri: str) -> None:
    """A model that the store here keeps, where the clone looks for a copy; a server answers it, too.

    The params stay as they are: exported files carry their digest.

    Args:
        key: of params.yaml, which names it; uri: its value.

    Raises:
        UserError: the store has no such file, or it is named by a model, which only the store knows.
    """
    settings = load_params(root / "params.yaml").tracking
    if server_of(settings):
        return
    if uri.startswith("models:/"):
        raise UserError(
            f"make verify cannot lend {uri}, which only the MLflow store here knows; name "
            "its run, runs:/ID, run `dvc repro` and commit, then verify",
            key=f"params.yaml: {key}",
        )
    lend(root, clone, str(resolve_model(uri, settings, root).relative_to(root)))


def run_pipeline(clone: Path) -> None:
    """`dvc repro` in the clone, of its own code: an editable installation comes after the current folder.

    Raises:
        UserError: a stage has failed, and has said why.
    """
    foreign = ("DVC_", "MLFLOW_", "GIT_", "PYTHONPATH", "PYTHONSAFEPATH")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    python = Path(sys.executable)
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    command = [str(python), "-m", "dvc", "repro", STAGES[-1]]
    if subprocess.run(command, cwd=clone, env=environment).returncode != 0:
        raise UserError("the commit does not run from nothing: `dvc repro` failed in its clone, see above")


def compare(stage: str, out: str, here: Path, there: Path) -> list[Row]:
    """The rows of one output: its files, or of a folder of many one row."""
    digests = [file_digests(place, out) for place in (here, there)]
    names = sorted(digests[0].keys() | digests[1].keys())
    if len(names) > FEW_FILES:
        one, other = (hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() for found in digests)
        return [Row(stage, f"{out} ({len(names)} files)", one, other)]
    return [Row(stage, name, digests[0].get(name, ""), digests[1].get(name, "")) for name in names]


def file_digests(root: Path, out: str) -> dict[str, str]:
    """SHA-256 of what lasts of a file, or of each file in a folder, by path in the repository."""
    place = root / out
    paths = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
    return {path.relative_to(root).as_posix(): lasting_sha256(path) for path in paths if path.is_file()}


def print_rows(rows: Sequence[Row]) -> None:
    """The table, and what it comes to."""
    width = max(len(row.name) for row in rows)
    print(f"{'stage':10s} {'file':{width}s} {'here':12s} {'there':12s} same")
    for row in rows:
        here, there = (digest[:12] or "missing" for digest in (row.here, row.there))
        print(f"{row.stage:10s} {row.name:{width}s} {here:12s} {there:12s} {'yes' if row.same else 'NO'}")
    different = sum(not row.same for row in rows)
    print(
        f"{different} of {len(rows)} differ"
        if different
        else f"all {len(rows)} have the same bytes (but for times, and the commit that exported files name)"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
