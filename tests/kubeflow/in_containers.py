"""The committed pipeline in containers of the image `ssd`, by docker: `make kfp-docker-test`."""

import json
from pathlib import Path

from dvc_project import TINY, make_project
from kfp_runs import ran, run_pipeline


def test_the_image_runs_all_steps_as_its_own_user_without_a_network(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    file = project / "kubeflow/in-containers.yaml"
    # The local runner does not fill in an image that is a parameter.
    given = "'{{$.inputs.parameters[''pipelinechannel--image'']}}'"
    committed = (project / "kubeflow/pipeline.yaml").read_text()
    file.write_text(committed.replace(f"image: {given}", "image: ssd:latest"))
    settings = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]
    run = run_pipeline(project, file.name, tmp_path / "run", docker=True, settings=settings)
    assert run.code == 0, run.log
    assert ran(run) == ["check_params", "download", "preprocess", "train", "evaluate", "export", "report"]
    assert run.artifact("export", "onnx").stat().st_uid == 1000
    figures = json.loads(run.artifact("evaluate", "metrics").read_text())
    assert run.outputs("evaluate")["metrics"]["metadata"]["coco_map50"] == figures["coco"]["map50"]
