"""An experiment of DVC that runs in processes of its own, in a copy of the workspace: `dvc exp run --temp`.

It is told by files and git alone, so that whoever started it may end, even by SIGKILL, and another process
take it over: all its processes hold a lock on its log, whose first line is the id of their group; and what
has ended well is a reference of git's.
"""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from ssd.files import write_bytes
from ssd.params import Params
from ssd.params_space import Value
from ssd.tracking.run import flat_params
from stages.dvc_files import read_output
from stages.fused_best import FUSED
from stages.report import read_table
from stages.train import NOT_IN_FINGERPRINT
from stages.train_log import HISTORY, HISTORY_COPY

BEGUN = "Reproducing experiment"
"""What DVC says when the experiment's copy of the workspace is there; before, it works in the workspace."""

SECTIONS = {"model", "augment", "train"}
"""Of params.yaml, those that decide a training."""

REFERENCE = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/([^/]+)")
INFO = ".dvc/tmp/exps/run/*/*.run"
"""Where DVC notes the name and the folder of each copy."""


@dataclass(frozen=True)
class Experiment:
    """What DVC runs.

    name: unique; changes: of params.yaml, by key; target: the stage up to which it runs; folder: for its log
    and the history of its training while that runs.
    """

    name: str
    changes: Mapping[str, Value]
    target: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def history(self) -> Path:
        return self.folder / f"{self.name}.tsv"


def dvc_command(experiment: Experiment) -> list[str]:
    """What runs it."""
    start = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", experiment.name]
    return [*start, *settings(experiment.changes), experiment.target]


def command_for_workspace(experiment: Experiment) -> str:
    """What runs all stages by its params in the workspace; those that it ran are taken from DVC's cache.

    `dvc exp apply` fails where no stage beyond its target has ever run.
    """
    return shlex.join(["dvc", "exp", "run", *settings(experiment.changes)])


def settings(changes: Mapping[str, Value]) -> list[str]:
    """Options of `dvc exp run`. DVC reads them by Hydra's grammar, which quotes texts as JSON does."""
    pairs = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    return [word for pair in pairs for word in ("-S", pair)]


def find_revision(name: str) -> str | None:
    """The git commit of an experiment that has ended well; None where there is none."""
    command = ["git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in listed:
        revision, _, reference = line.partition(" ")
        found = REFERENCE.fullmatch(reference)
        if found and found[1] == name:
            return revision
    return None


def read_params(revision: str) -> dict[str, Value]:
    """params.yaml of a commit, flat, by keys as "train.lr"."""
    command = ["git", "show", f"{revision}:./params.yaml"]
    content = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    sections = YAML(typ="safe", pure=True).load(content)
    return {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}


@dataclass(frozen=True)
class Ways:
    """How experiments are run and their results read: by DVC and git, which tests replace."""

    command: Callable[[Experiment], list[str]] = dvc_command
    find: Callable[[str], str | None] = find_revision
    params: Callable[[str], Mapping[str, Value]] = read_params
    read: Callable[[str, str], str] = read_output


def other_params(experiment: Experiment, params: Params, ways: Ways, revision: str) -> str:
    """Which params had other values than they were to have when it ran, in words; "" for none.

    DVC takes them from params.yaml when it prepares an experiment: a change of that file, or another
    experiment that is started at this moment, gets in. Those that change no weights do not count.
    """
    wanted = {**flat_params(params.model_dump(include=SECTIONS)), **experiment.changes}
    found = ways.params(revision)
    others = sorted(
        key
        for key, value in wanted.items()
        if key.partition(".")[2] not in NOT_IN_FINGERPRINT and found.get(key, value) != value
    )
    reason = "params.yaml was changed, or another experiment was started, meanwhile"
    return f"ran with other params ({', '.join(others)}): {reason}" if others else ""


def start(
    experiment: Experiment, command: list[str], variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start it as the leader of a process group, which goes on whatever becomes of this process."""
    experiment.folder.mkdir(parents=True, exist_ok=True)
    experiment.history.unlink(missing_ok=True)
    told = {"PYTHONUNBUFFERED": "1", HISTORY_COPY: str(experiment.history.resolve()), **variables}
    with experiment.log.open("wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # of all that have the open file, until the last of them ends
        return subprocess.Popen(
            ["sh", "-c", 'echo $$; exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **told},
            start_new_session=True,
        )


def is_alive(experiment: Experiment) -> bool:
    """Whether one of its processes is."""
    try:
        with experiment.log.open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def has_begun(experiment: Experiment) -> bool:
    """Whether DVC has left the workspace alone; only then may it be interrupted, and another one started."""
    return BEGUN in experiment.log.read_text(errors="replace")


def wait_until_begun(folders: Path, pause: float) -> bool:
    """Wait for experiments that DVC still prepares: params.yaml may have their values now.

    Args:
        folders: where each search has a folder; pause: seconds between two looks.

    Returns:
        Whether there was one.
    """
    found = [Experiment(log.stem, {}, "", log.parent) for log in folders.glob("*/*.log")]
    preparing = [item for item in found if is_alive(item) and not has_begun(item)]
    for experiment in preparing:
        while is_alive(experiment) and not has_begun(experiment):
            time.sleep(pause)
    return bool(preparing)


def send(experiment: Experiment, signum: signal.Signals) -> None:
    """A signal to all its processes, if one is alive."""
    group = experiment.log.read_text(errors="replace").partition("\n")[0]
    if group.isdigit() and is_alive(experiment):
        with suppress(ProcessLookupError):
            os.killpg(int(group), signum)


def remove_copy(name: str) -> None:
    """Delete the copy of the workspace that a DVC which was killed has left."""
    for info in Path().glob(INFO):
        with suppress(OSError, ValueError):
            content = json.loads(info.read_bytes())
            copy = Path(content["root_dir"])
            if content["name"] == name and copy.is_relative_to(Path(".dvc/tmp/exps").resolve()):
                shutil.rmtree(copy, ignore_errors=True)


def remove_checkpoints(experiment: Experiment, root: Path) -> None:
    """Delete those of a training that will not go on; `make clean` takes only those of one that has ended.

    Args:
        experiment: its log says where they are.
        root: the main workspace.
    """
    said = experiment.log.read_text(errors="replace")
    for found in re.findall(r"^checkpoints in (.+)$", said, re.MULTILINE):
        if Path(found).parent == root / "checkpoints":
            shutil.rmtree(found, ignore_errors=True)


def live_history(experiment: Experiment) -> list[dict[str, float | None]]:
    """The epochs so far of its training; none before the first one, or where DVC had the result."""
    return read_table(experiment.history) if experiment.history.is_file() else []


def final_history(experiment: Experiment, ways: Ways, revision: str) -> list[dict[str, float | None]]:
    """The epochs of its training, from what it left; they replace those that were written while it ran."""
    write_bytes(experiment.history, ways.read(revision, HISTORY.as_posix()).encode())
    return read_table(experiment.history)


def fused_scores(ways: Ways, revision: str) -> dict[str, float | None]:
    """Those of the best models of its training on val, fused; None where val has no images, or no objects."""
    found: dict[str, float | None] = json.loads(ways.read(revision, FUSED.as_posix()))
    return found


def failure_reason(experiment: Experiment) -> str:
    """Why it failed: the last line of its log that is not DVC's about that line."""
    if not experiment.log.is_file():
        return "it was not started"
    lines = [line.strip() for line in experiment.log.read_text(errors="replace").splitlines()[1:]]
    told = [line for line in lines if line and "failed to reproduce" not in line]
    return told[-1][:200] if told else "it printed nothing"
