"""Compiles the pipeline of Kubeflow Pipelines from the stages that `graph.py` prints; `make kfp` calls both.

    python kubeflow/graph.py | .venv-kfp/bin/python kubeflow/pipeline.py --state remote pipeline.yaml

Runs where kfp is installed, without DVC and the package.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from kfp import compiler, dsl, kubernetes

from artifacts import ARTIFACTS

NAMES = {"workspace": "ssd", "remote": "ssd-remote"}
"""Of the pipeline, by where its state is."""

IMAGE = "ssd:latest"
WORKSPACE_SIZE = "20Gi"
MEMORY = "8Gi"
GPU = "nvidia.com/gpu"

CHECKPOINTS = "/checkpoints"
"""Where train with a remote has the volume of its checkpoints, if it gets one."""

LOADING = ("train", "evaluate")
"""Stages with loading workers."""

INPUTS: dict[str, dict[str, type]] = {"pack": {"shard": str}, "preprocess": {"packed": list}}
OUTPUTS: dict[str, dict[str, type]] = {"download": {"shards": list}, "pack": {"packed": str}}
"""Parameters that steps hand to others, by step (see spread.py)."""

SECRET, SECRET_KEYS = "ssd-remote", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
"""A Secret of Kubernetes, which may be missing; its keys become variables of steps with a remote."""


def make_pipeline(graph: dict[str, Any], state: str, claim: str = "") -> Any:
    """The pipeline of all stages.

    Args:
        graph: what `graph.py` prints.
        state: workspace or remote.
        claim: with a remote, the PersistentVolumeClaim that keeps the checkpoints of train; may be empty.
    """
    parameters = [
        *([parameter("remote", str)] if state == "remote" else []),
        parameter("settings", list, []),
        parameter("mlflow_uri", str, ""),
        parameter("gpus", int, graph["gpus"]),
        parameter("memory", str, MEMORY),
        parameter("image", str, IMAGE),
    ]
    names = [item.name for item in parameters]

    def build(*channels: Any) -> None:
        values = dict(zip(names, channels, strict=True))
        tasks: dict[str, dsl.PipelineTask] = {}
        for node in graph["stages"]:
            stage = node["stage"]
            task = add_step(stage, state, values, claim if stage == "train" else "")
            # On one volume, which may be on one machine only, the stages run one by one.
            former = list(tasks)[-1:] if state == "workspace" else node["after"]
            task.after(*(tasks[name] for name in former))
            if stage == "train":
                ask_for_devices(task, values["gpus"], values["memory"])
            if stage in LOADING:
                # Loading workers hand over images in it; a container has 64 MB of its own.
                kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory")  # noqa: S108
            tasks[stage] = task
            if stage == "download":
                # As many at once as the cluster has room for: those that wait cost nothing.
                with dsl.ParallelFor(task.outputs["shards"]) as shard:
                    pack = add_step("pack", state, values | {"shard": shard}, "")
                values["packed"] = dsl.Collected(pack.outputs["packed"])

    volume = dsl.WorkspaceConfig(size=WORKSPACE_SIZE)
    config = dsl.PipelineConfig(workspace=volume if state == "workspace" else None)
    return dsl.pipeline(with_signature(build, parameters), name=NAMES[state], pipeline_config=config)


def add_step(step: str, state: str, values: dict[str, Any], claim: str) -> dsl.PipelineTask:
    """Add a step to the pipeline that is being defined.

    Args:
        step: name of its stage, or pack.
        values: the parameters of the pipeline, and those that other steps hand on.
        claim: of the volume that the step gets for checkpoints; may be empty.
    """
    make_task = make_component(step, state, CHECKPOINTS if claim else "")
    task = make_task(**{name: values[name] for name in make_task.component_spec.inputs or {}})
    task.set_display_name(step)
    task.set_container_image(values["image"])
    # DVC knows what has changed. Kubeflow's caching sees parameters only, and would skip what has to run.
    task.set_caching_options(False)
    task.set_retry(2, backoff_duration="30s", backoff_factor=2)
    if state == "remote":
        kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS}, optional=True)
    if claim:
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=CHECKPOINTS)
    return task


def make_component(step: str, state: str, checkpoints: str) -> Any:
    """A container component that runs a step, with its typed artifacts and its parameters as outputs.

    Args:
        checkpoints: with a remote, the folder that keeps them; may be empty.
    """
    remote = {"remote": str} if state == "remote" else {}
    inputs = {"settings": list, "mlflow_uri": str, **remote, **INPUTS.get(step, {})}
    outputs = {artifact.name: dsl.Output[getattr(dsl, artifact.kind)] for artifact in ARTIFACTS.get(step, [])}
    outputs |= {name: dsl.OutputPath(kind) for name, kind in OUTPUTS.get(step, {}).items()}
    folder = dsl.WORKSPACE_PATH_PLACEHOLDER if state == "workspace" else checkpoints
    place = f"{state}:{folder}" if folder else state

    def run(*_: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=IMAGE,
            command=["python", "kubeflow/step.py"],
            args=[step, place, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER],
        )

    run.__name__ = step
    return dsl.container_component(
        with_signature(run, [parameter(name, kind) for name, kind in (inputs | outputs).items()])
    )


def ask_for_devices(task: dsl.PipelineTask, gpus: Any, memory: Any) -> None:
    """What training gets of a machine."""
    task.set_accelerator_type(GPU).set_accelerator_limit(gpus)
    task.set_memory_request(memory).set_memory_limit(memory)


def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


def with_signature(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """The function, after which kfp finds these inputs and outputs in its signature."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--state", choices=NAMES, default="workspace", help="where the steps keep what they share"
    )
    parser.add_argument(
        "--checkpoints",
        metavar="CLAIM",
        default="",
        help="with a remote: the PersistentVolumeClaim that keeps the checkpoints of train",
    )
    parser.add_argument("target", help="the file to write")
    options = parser.parse_args(arguments)
    if options.checkpoints and options.state == "workspace":
        parser.error("--checkpoints is for --state remote: the workspace keeps them already")
    pipeline = make_pipeline(json.load(sys.stdin), options.state, options.checkpoints)
    compiler.Compiler().compile(pipeline, options.target)


if __name__ == "__main__":
    main(sys.argv[1:])
