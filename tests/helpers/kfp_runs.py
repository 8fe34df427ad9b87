"""Compiled pipelines, run through kfp's local runner, and a project whose stages take no time."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from default_params import REPOSITORY, default_text
from dvc_project import environment
from waiting import finish, start


def kfp_python() -> str:
    """The Python beside kfp; `make test` has made it."""
    ready = REPOSITORY / ".venv-kfp/.ready"
    assert ready.is_file(), "kfp is not installed; `make kfp` installs it"
    return str(ready.with_name("bin") / "python")


@dataclass(frozen=True)
class LocalRun:
    """What is left of a run.

    code: 0 where all steps have succeeded; log: what kfp and the steps printed; folder: with the artifacts.
    """

    code: int
    log: str
    folder: Path

    def artifact(self, stage: str, name: str) -> Path:
        """The file of an artifact."""
        (path,) = self.folder.glob(f"artifacts/*/{stage.replace('_', '-')}/{name}")
        return path

    def outputs(self, stage: str) -> dict[str, dict[str, Any]]:
        """What kfp was told of a step's artifacts, by name."""
        (path,) = self.folder.glob(f"artifacts/*/{stage.replace('_', '-')}/executor_output.json")
        told = json.loads(path.read_text())["artifacts"]
        return {name: entry["artifacts"][0] for name, entry in told.items()}


def run_pipeline(
    project: Path, file: str, folder: Path, *, docker: bool = False, **parameters: object
) -> LocalRun:
    """Run kubeflow/FILE with these parameters, in a project; in containers, in that of their image."""
    script = REPOSITORY / "tests/kubeflow/run_local.py"
    command = [kfp_python(), str(script), f"kubeflow/{file}", str(folder), json.dumps(parameters)]
    command += ["docker"] if docker else []
    ended = finish(start(command, environment(), project))
    return LocalRun(ended.code, ended.stdout + ended.stderr, folder)


def ran(run: LocalRun) -> list[str]:
    """The stages that DVC has run, rather than taken from a former run."""
    return re.findall(r"Running stage '(\w+)'", run.log)


def quick_project(folder: Path) -> Path:
    """A project with the steps and the graph of this one, in which each stage writes samples at once."""
    for name in ("kubeflow", "ssd/__init__.py", "ssd/errors.py", "ssd/files.py", ".dvc/config", ".dvcignore"):
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (folder / "params.yaml").write_text(default_text())
    (folder / "stages").mkdir()
    (folder / "stages/__init__.py").touch()
    for target in ("quick_stage.py", "stages/pack.py"):
        shutil.copy(Path(__file__).with_name("quick_stage.py"), folder / target)
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        stage["cmd"] = f"{sys.executable} quick_stage.py {name}"
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith(("ssd/", "stages/"))]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return folder
