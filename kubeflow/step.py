"""One step of the pipeline, in its container: DVC runs the stage, or finds its result in the run's state.

A step `pack`, which is no stage, decodes a part of the images for preprocess (see spread.py).

    python kubeflow/step.py STEP STATE EXECUTOR_INPUT

STATE is "workspace:FOLDER", a volume that all steps of a run share, or "remote", the DVC remote that the
run's parameter of this name says; "remote:FOLDER" has checkpoints in a folder that outlives the container.
EXECUTOR_INPUT is the JSON that Kubeflow Pipelines puts in place of its placeholder: the parameters of the
run, and where the artifacts go. kfp itself is not needed.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from dvc.config import Config
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from artifacts import ARTIFACTS, write_artifact
from spread import NOTHING, pull_packed, push_packed, shards_to_pack

CODE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CODE))  # a script's path holds its own folder only

from ssd.errors import UserError  # noqa: E402
from ssd.files import write_bytes, write_json  # noqa: E402

NOT_COPIED = {".git", ".venv", ".venv-kfp", "__pycache__"}
NOT_COPIED_FROM_ROOT = {"data", "models", "reports", "checkpoints", "dvc.lock", ".dvc/cache", ".dvc/tmp"}
"""Results, which belong to another state."""

REMOTE = "state"
"""Name of the DVC remote."""

PACK = "pack"
"""The step that is no stage."""


def run_step(step: str, state: str, executor_input: dict[str, Any]) -> None:
    """Run a step in the project that it gets, and write its outputs.

    Raises:
        UserError: a parameter of the run is wrong, or the workspace cannot be written.
        CalledProcessError: DVC or a stage has failed, and has said why.
    """
    values: dict[str, Any] = executor_input["inputs"]["parameterValues"]
    outputs = executor_input["outputs"]
    if step == PACK and values["shard"] == NOTHING:
        write_outputs(step, CODE, outputs, {"packed": NOTHING})
        return
    where, _, folder = state.partition(":")
    if where == "workspace":
        project = open_workspace(Path(folder))
        told = run_on_volume(step, project, values)
    else:
        project = Path(tempfile.mkdtemp(prefix="ssd-"))
        checkout(project)
        if folder:
            (project / "checkpoints").symlink_to(folder)
        told = run_with_remote(step, project, values)
    write_outputs(step, project, outputs, told)


def run_on_volume(step: str, project: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Run a step in the project that all steps of a run share; its output parameters."""
    if step == PACK:  # several at once; the settings are there since the first step
        run_module(project, values, "stages.pack", values["shard"])
        return {"packed": NOTHING}
    apply_settings(project / "params.yaml", values["settings"])
    run_module(project, values, "dvc", "repro", "--single-item", step)
    return {"shards": shards_to_pack(project, has_remote=False)} if step == "download" else {}


def run_with_remote(step: str, project: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Run a step in a project of its own, whose state is in the DVC remote; its output parameters."""
    dvc = partial(run_module, project, values, "dvc")
    add_remote(project, values["remote"])
    apply_settings(project / "params.yaml", values["settings"])
    if not values["mlflow_uri"]:
        print("mlflow_uri: empty; what goes to no server of tracking.uri ends with this container")
    dvc("fetch", "--run-cache")
    if step == PACK:
        dvc("repro", "--pull", "download")
        run_module(project, values, "stages.pack", values["shard"])
        return {"packed": push_packed(project, dvc)}
    pull_packed(project, values.get("packed", []), dvc)
    dvc("repro", "--pull", step)
    dvc("push", "--run-cache")
    return {"shards": shards_to_pack(project, has_remote=True)} if step == "download" else {}


def run_module(project: Path, values: dict[str, Any], *command: str) -> None:
    """`python -m COMMAND` in the project."""
    server = {"MLFLOW_TRACKING_URI": uri} if (uri := values["mlflow_uri"]) else {}
    subprocess.run([sys.executable, "-m", *command], cwd=project, env=os.environ | server, check=True)


def open_workspace(volume: Path) -> Path:
    """The project on the volume; the first step of a run puts it there.

    Raises:
        UserError: this user may not write there.
    """
    project = volume / "project"
    if project.is_dir():
        return project
    try:
        with tempfile.TemporaryDirectory(dir=volume) as folder:
            checkout(Path(folder) / "project")
            (Path(folder) / "project").rename(project)  # or a step that is killed would leave a part of it
    except PermissionError:
        raise UserError(
            f"{volume}: user {os.getuid()} may not write there; take a storage class whose volumes any user "
            "may write, or pipeline-remote.yaml, which needs no volume"
        ) from None
    return project


def checkout(target: Path) -> None:
    """Copy the code to a folder, for DVC without git. Its own folder may be read-only for this user."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(CODE)
        return {n for n in names if n in NOT_COPIED or (inside / n).as_posix() in NOT_COPIED_FROM_ROOT}

    shutil.copytree(CODE, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)
    with Config(str(target / ".dvc"), validate=False).edit("local") as local:
        local.setdefault("core", {})["no_scm"] = True


def add_remote(project: Path, url: str) -> None:
    """Make this the remote of the project's DVC.

    Raises:
        UserError: it is empty.
    """
    if not url:
        raise UserError("remote: empty; give the run the URL of a DVC remote, such as s3://bucket/ssd")
    with Config(str(project / ".dvc"), validate=False).edit("local") as local:
        local.setdefault("core", {})["remote"] = REMOTE
        local.setdefault("remote", {})[REMOTE] = {"url": url}


def apply_settings(path: Path, settings: list[str]) -> None:
    """Set values in params.yaml: ["train.lr=0.001"]. All steps of a run set the same ones.

    Raises:
        UserError: a setting is not section.key=value, or there is no such key.
    """
    if not settings:
        return
    yaml = YAML()
    params = yaml.load(path)
    for setting in settings:
        name, equals, text = str(setting).partition("=")
        section, _, key = name.strip().partition(".")
        if not equals:
            raise UserError(f"settings: found {setting!r}; allowed: section.key=value, as train.lr=0.001")
        if key not in params.get(section, {}):
            raise UserError(f"settings: {name.strip()}: params.yaml has no such key")
        try:
            params[section][key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise UserError(f"settings: {name.strip()}: {text!r} is not YAML") from None
    content = io.BytesIO()
    yaml.dump(params, content)
    write_bytes(path, content.getvalue())


def write_outputs(step: str, project: Path, outputs: dict[str, Any], told: dict[str, Any]) -> None:
    """Write the files of the step's artifacts; list them, and the parameters, for Kubeflow Pipelines.

    Args:
        outputs: that part of the executor input.
        told: the output parameters.
    """
    described = {}
    for artifact in ARTIFACTS.get(step, []):
        (given,) = outputs["artifacts"][artifact.name]["artifacts"]
        metadata = write_artifact(artifact, project, local_path(given["uri"]))
        entry = {"name": given["name"], "uri": given["uri"], "metadata": metadata}
        described[artifact.name] = {"artifacts": [entry]}
    write_json(Path(outputs["outputFile"]), {"parameterValues": told, "artifacts": described})


def local_path(uri: str) -> Path:
    """The file that Kubeflow Pipelines uploads to this place: for s3://bucket/key it is /s3/bucket/key."""
    scheme, separator, rest = uri.partition("://")
    return Path({"gs": "/gcs", "minio": "/minio", "s3": "/s3"}[scheme], rest) if separator else Path(uri)


def main(arguments: list[str]) -> None:
    step, state, executor_input = arguments
    try:
        run_step(step, state, json.loads(executor_input))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
