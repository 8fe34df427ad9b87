"""kubeflow/pipeline.yaml and pipeline-remote.yaml against dvc.yaml and the code that makes them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from default_params import REPOSITORY
from kfp_runs import kfp_python

from artifacts import ARTIFACTS
from graph import default_gpus, read_graph

FILES = {"workspace": "pipeline.yaml", "remote": "pipeline-remote.yaml"}
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
LOOP = "for-loop-1"
MEND = "kubeflow/ is not what dvc.yaml gives; `make kfp` writes it again"


def documents(state: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline, and what of it is for Kubernetes only."""
    pipeline, platforms = yaml.safe_load_all((REPOSITORY / "kubeflow" / FILES[state]).read_text())
    return pipeline, platforms["platforms"]["kubernetes"]


def steps(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks, with those of the loop and without the loop itself."""
    tasks = {**pipeline["root"]["dag"]["tasks"], **pipeline["components"][f"comp-{LOOP}"]["dag"]["tasks"]}
    return {name: task for name, task in tasks.items() if name != LOOP}


@pytest.fixture(scope="module")
def graph() -> dict[str, list[str]]:
    """DVC's own: each stage with those it comes after."""
    return {node["stage"]: node["after"] for node in read_graph(REPOSITORY)}


def test_the_order_is_one_in_which_the_stages_can_run(graph: dict[str, list[str]]) -> None:
    names = list(graph)
    assert set(names) == set(STAGES)
    assert all(names.index(former) < names.index(name) for name in names for former in graph[name])


@pytest.mark.parametrize("state", FILES)
def test_there_is_a_step_for_each_stage_in_dvc_s_order(state: str, graph: dict[str, list[str]]) -> None:
    pipeline, _ = documents(state)
    found = {
        task["taskInfo"]["name"]: [former for former in task.get("dependentTasks", []) if former != LOOP]
        for task in steps(pipeline).values()
    }
    assert found.pop("pack") == []
    names = list(graph)
    on_one_volume = {name: names[:place][-1:] for place, name in enumerate(names)}
    expected = on_one_volume if state == "workspace" else graph
    named = {name: sorted(former.replace("_", "-") for former in after) for name, after in expected.items()}
    assert found == named, MEND


@pytest.mark.parametrize("state", FILES)
def test_each_shard_is_packed_after_download_and_all_of_them_before_preprocess(state: str) -> None:
    pipeline, _ = documents(state)
    tasks = pipeline["root"]["dag"]["tasks"]
    items = tasks[LOOP]["parameterIterator"]["items"]["inputParameter"]
    assert tasks[LOOP]["inputs"]["parameters"][items]["taskOutputParameter"] == {
        "outputParameterKey": "shards",
        "producerTask": "download",
    }
    assert list(pipeline["components"][f"comp-{LOOP}"]["dag"]["tasks"]) == ["pack"]
    shard = steps(pipeline)["pack"]["inputs"]["parameters"]["shard"]["componentInputParameter"]
    assert shard == tasks[LOOP]["parameterIterator"]["itemInput"]
    packed = tasks["preprocess"]["inputs"]["parameters"]["packed"]["taskOutputParameter"]
    assert packed == {"outputParameterKey": "pipelinechannel--pack-packed", "producerTask": LOOP}


@pytest.mark.parametrize("state", FILES)
def test_each_step_runs_its_stage_and_has_its_artifacts(state: str) -> None:
    pipeline, _ = documents(state)
    for stage in (*STAGES, "pack"):
        name = stage.replace("_", "-")
        container = pipeline["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        assert container["command"] == ["python", "kubeflow/step.py"]
        place = "workspace:{{$.workspace_path}}" if state == "workspace" else "remote"
        assert container["args"] == [stage, place, "{{$}}"], MEND
        outputs = pipeline["components"][f"comp-{name}"].get("outputDefinitions", {}).get("artifacts", {})
        kinds = {output: entry["artifactType"]["schemaTitle"] for output, entry in outputs.items()}
        assert kinds == {item.name: f"system.{item.kind}" for item in ARTIFACTS.get(stage, [])}, MEND


def test_every_artifact_is_an_output_of_its_stage() -> None:
    assert set(ARTIFACTS) == set(STAGES) - {"check_params"}
    for stage, artifacts in ARTIFACTS.items():
        outs = [*STAGES[stage]["outs"], *STAGES[stage].get("metrics", [])]
        for artifact in artifacts:
            source = Path(artifact.source)
            inside = any(source.is_relative_to(out) for out in outs)
            assert inside or all(Path(out).is_relative_to(source) for out in outs), artifact


@pytest.mark.parametrize("state", FILES)
def test_retries_are_on_and_caching_which_is_dvc_s_is_off(state: str) -> None:
    pipeline, _ = documents(state)
    for task in steps(pipeline).values():
        assert task["retryPolicy"]["maxRetryCount"] == 2
        assert not task["cachingOptions"].get("enableCache")


@pytest.mark.parametrize("state", FILES)
def test_a_run_chooses_settings_image_gpus_and_memory(state: str) -> None:
    pipeline, kubernetes = documents(state)
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    expected = {"settings", "mlflow_uri", "gpus", "memory", "image"}
    assert set(parameters) == expected | ({"remote"} if state == "remote" else set())
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    assert parameters["gpus"]["defaultValue"] == default_gpus(params["train"]), MEND
    containers = {k: v["container"] for k, v in pipeline["deploymentSpec"]["executors"].items()}
    assert all("pipelinechannel--image" in container["image"] for container in containers.values())
    resources = containers["exec-train"]["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert "pipelinechannel--gpus" in resources["accelerator"]["resourceCount"]
    assert "pipelinechannel--memory" in resources["resourceMemoryRequest"]
    (shm,) = kubernetes["deploymentSpec"]["executors"]["exec-train"]["emptyDirMounts"]
    assert (shm["mountPath"], shm["medium"]) == ("/dev/shm", "Memory")


def test_the_state_is_one_volume_per_run_or_a_remote_with_credentials_from_a_secret() -> None:
    _, on_volume = documents("workspace")
    assert on_volume["pipelineConfig"]["workspace"]["size"]
    _, on_remote = documents("remote")
    assert "pipelineConfig" not in on_remote
    for executor in on_remote["deploymentSpec"]["executors"].values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == "ssd-remote"
        assert secret["optional"]


@pytest.mark.parametrize(
    ("device", "devices", "gpus"),
    [("auto", "auto", 0), ("auto", 4, 4), ("cuda", "auto", 1), ("cuda", 2, 2), ("cpu", 2, 0)],
)
def test_gpus_follow_from_the_params_of_train(device: str, devices: object, gpus: int) -> None:
    assert default_gpus({"device": device, "devices": devices}) == gpus


@pytest.mark.slow
@pytest.mark.parametrize("state", FILES)
def test_kfp_compiles_dvc_s_graph_to_the_committed_file(state: str, tmp_path: Path) -> None:
    graph = subprocess.run(
        [sys.executable, "kubeflow/graph.py"], cwd=REPOSITORY, capture_output=True, check=True
    )
    assert json.loads(graph.stdout)["stages"]
    command = [kfp_python(), "kubeflow/pipeline.py", "--state", state, str(tmp_path / "made.yaml")]
    subprocess.run(command, cwd=REPOSITORY, input=graph.stdout, check=True)
    assert (tmp_path / "made.yaml").read_text() == (REPOSITORY / "kubeflow" / FILES[state]).read_text(), MEND
