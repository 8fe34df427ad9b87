"""Runs a compiled pipeline through kfp's local runner, in the environment of kfp and the project's folder.

    python run_local.py PIPELINE FOLDER PARAMETERS [docker]

FOLDER gets the artifacts, and the workspace while it lives; PARAMETERS is JSON. The steps run as processes,
by the Python that PATH names, or in containers. Exits with an error when one fails.
"""

import json
import os
import sys
from pathlib import Path

from kfp import components, local
from kfp.local.io import IOStore
from kfp.local.subprocess_task_handler import SubprocessTaskHandler


def allow(self: object, full_command: list[str]) -> None:
    """In place of kfp's check, which refuses all steps that belong into a container."""


SubprocessTaskHandler.validate_not_container_component = allow

input_of_parent = IOStore.get_parent_input


def find_list(store: IOStore, name: str) -> object:
    """In place of kfp's look-up of a loop's list, which finds no output of a container: `download-shards`."""
    try:
        return input_of_parent(store, name)
    except ValueError:
        task, _, output = name.removeprefix("pipelinechannel--").rpartition("-")
        return store.get_task_output(task, output)


IOStore.get_parent_input = find_list


def main() -> None:
    pipeline, folder, parameters, *docker = sys.argv[1:]
    if docker:
        os.umask(0)  # the user of the image writes into folders that are made here
    workspace, artifacts = Path(folder, "workspace"), Path(folder, "artifacts")
    for path in (workspace, artifacts):  # kfp removes the workspace in the end
        path.mkdir(parents=True)
    local.init(
        local.DockerRunner(network_mode="none") if docker else local.SubprocessRunner(use_venv=False),
        pipeline_root=str(artifacts),
        workspace_root=str(workspace),
    )
    components.load_component_from_file(pipeline)(**json.loads(parameters))


if __name__ == "__main__":
    main()
