"""The image, built for real, and the pipeline in it: `make image-test`.

With Debian's podman and mmdebstrap, or with another engine or base: `make image-test ENGINE=docker BASE=...`.
"""

import io
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from allow_list import in_allow_list
from containers import Engine, choose_engine, debian_base
from default_params import REPOSITORY
from dvc_project import environment, make_project

from tests.torture.results import Results, results

pytestmark = pytest.mark.slow

IMAGE = "localhost/ssd-test"
STRANGER = 12345
"""A user and group that neither this machine nor the image has."""

ONE_THREAD = ("--env", "OMP_NUM_THREADS=1")
"""As outside; the number of threads is part of what decides the last bit."""


@dataclass(frozen=True)
class Built:
    """The image of a project with tiny params."""

    engine: Engine
    project: Path
    revision: str

    def make(self, target: str, *variables: str) -> str:
        """`make TARGET` in the project; what it printed."""
        command = ["make", target, f"ENGINE={self.engine.name}", f"IMAGE={IMAGE}", *variables]
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.engine.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, *command: str, user: str = "") -> bytes:
        """A command on the code inside the image, without a network."""
        as_user = ("--user", user) if user else ()
        return self.engine.call("run", "--rm", "--network", "none", *ONE_THREAD, *as_user, IMAGE, *command)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("image")
    engine = choose_engine(os.environ["ENGINE"], folder)
    base = os.environ["BASE"] or debian_base(engine, folder)
    project = make_project(folder / "project")
    revision = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    made, started = Built(engine, project, revision), time.monotonic()
    flags = [f"BUILD_FLAGS={' '.join(engine.build_flags)}"] if engine.build_flags else []
    made.make("image", f"BASE={base}", *flags)
    size = engine.inspect(IMAGE)["Size"]
    say(f"built in {time.monotonic() - started:.0f} s, but for layers that were there; {size / 1e9:.2f} GB")
    return made


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the same project gives in this Python."""
    project = make_project(tmp_path_factory.mktemp("outside"))
    subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=project, env=environment(), check=True)
    found = results(project)
    assert all(content for files in found.values() for content in files.values()), "a file is missing"
    return found


def say(text: str) -> None:
    """Shown by `make image-test`."""
    sys.stdout.write(f"{text}\n")


def differing(found: Results, expected: Results) -> list[str]:
    """The files in which two runs differ."""
    return [name for stage, files in expected.items() for name in files if found[stage][name] != files[name]]


def test_it_says_what_it_is_and_holds_no_secret(built: Built) -> None:
    config = built.engine.inspect(IMAGE)["Config"]
    assert config["User"] == "1000:0"
    assert config["Labels"]["org.opencontainers.image.revision"] == built.revision
    assert config["Labels"]["org.opencontainers.image.title"] == "ssd-pipeline"
    told = "\n".join([*config["Env"], built.engine.call("history", "--no-trunc", IMAGE).decode()]).lower()
    assert not [word for word in ("password", "token", "secret", "api_key", "credential") if word in told]


def test_the_code_inside_is_what_the_allow_list_names_and_compiled(built: Built) -> None:
    found = built.run("find", ".", "!", "-type", "d", "!", "-name", "*.pyc").decode().split()
    made = {"./.dvc/config.local"}
    listed = subprocess.check_output(["git", "ls-files"], cwd=built.project, text=True).split()
    assert set(found) - made == {f"./{name}" for name in listed if in_allow_list(name)}
    assert built.run("cat", ".dvc/config.local").decode().split() == ["[core]", "no_scm", "=", "true"]
    told = built.run(
        "sh", "-c", "python -v -c 'import mlflow, torch, ssd.models.ssd' 2>&1", user=f"{STRANGER}"
    )
    sources = [line for line in told.decode().splitlines() if line.startswith("# code object from '/")]
    assert not [line for line in sources if line.endswith(".py'") or line.endswith(".py")]


def test_each_stage_in_a_container_over_the_checkout_gives_the_bytes_of_a_run_outside(
    built: Built, outside: Results
) -> None:
    """As a user that the image does not know; files belong to that one, and only download had a network."""
    caller = f"{os.getuid()}:{os.getgid()}"
    if os.getuid() == 0:
        caller = f"{STRANGER}:{STRANGER}"
        subprocess.run(["chown", "-R", caller, str(built.project)], check=True)
    before = set(built.project.rglob("*"))
    told = built.make("image-repro", f"CALLER={caller}", f"RUN_FLAGS={' '.join(ONE_THREAD)}")
    say(told)
    commands = [line for line in told.splitlines() if line.startswith("+ ") and "--single-item" in line]
    stages = ["check_params", "download", "preprocess", "train", "evaluate", "export", "report"]
    assert [line.split()[-1] for line in commands] == stages
    assert [line.split()[-1] for line in commands if "--network none" not in line] == ["download"]

    owners = {
        f"{path.lstat().st_uid}:{path.lstat().st_gid}" for path in set(built.project.rglob("*")) - before
    }
    assert owners == {caller}
    assert differing(results(built.project), outside) == []


def test_a_second_time_nothing_is_run_again(built: Built) -> None:
    caller = f"{built.project.stat().st_uid}:{built.project.stat().st_gid}"
    told = built.make("image-repro", f"CALLER={caller}")
    assert told.count("didn't change, skipping") == 7


def test_the_code_inside_runs_as_any_user_and_gives_the_same_bytes(
    built: Built, outside: Results, tmp_path: Path
) -> None:
    archive = built.run(
        "sh", "-c", "dvc repro >&2 && tar -c data/raw data/tensors models reports", user=f"{STRANGER}"
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(tmp_path, filter="data")
    assert differing(results(tmp_path), outside) == []


def test_the_command_ssd_is_inside_in_any_folder(built: Built) -> None:
    assert "compare" in built.run("sh", "-c", "cd /tmp && ssd --help", user=f"{STRANGER}").decode()


def test_no_network_is_none(built: Built) -> None:
    assert built.run("ls", "/sys/class/net").decode().split() == ["lo"]


def test_the_health_check_passes_and_fails_where_the_code_is_broken(built: Built, tmp_path: Path) -> None:
    about = built.engine.inspect(IMAGE)
    kind, *check = (about.get("Healthcheck") or about["Config"]["Healthcheck"])["Test"]
    assert kind == "CMD"
    for user in ("1000:0", f"{STRANGER}:{STRANGER}"):
        built.run(*check, user=user)
    code = (REPOSITORY / "ssd/models/priors.py").read_text()
    (tmp_path / "priors.py").write_text(f"{code}\n\ndef make_priors(*_):\n    return []\n")
    broken = f"{tmp_path / 'priors.py'}:/app/ssd/models/priors.py"
    assert built.engine.fails("run", "--rm", "--volume", broken, IMAGE, *check)
