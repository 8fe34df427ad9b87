"""torchrun on two machines without a shared disk: one is lost, comes back, and the bits are the same."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dvc_project import environment, make_project, run_python
from waiting import wait_until

from ssd.files import sha256
from ssd.processes.keepalive import LOST_SECONDS
from tests.on_demand.machines import Machine, two_machines

STEPS_PER_EPOCH = 24
SMALL = {
    "tracking.enabled": False,
    "data.shapes_train": 4 * STEPS_PER_EPOCH,
    "train.batch_size": 4,
    "train.epochs": 4,
    "train.checkpoint_minutes": 10.0,  # so only at the end of an epoch
}
LOST = "another process has ended, or cannot be reached"
LIMIT = 240.0  # seconds, for whatever is awaited

OPTIONS = "--nnodes 2 --node-rank {rank} --nproc-per-node 1 --master-addr node1 --rdzv-conf timeout=60"
COMMAND = f"until torchrun {OPTIONS} -m stages.train; do sleep 10; done"
"""README's."""

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Undisturbed:
    """digest: of the model; seconds: from the start of both machines to their end."""

    digest: str
    seconds: float


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    """Each with a copy of the project and its tensors."""
    folder = tmp_path_factory.mktemp("machines")
    first = make_project(folder / "first", **SMALL)
    for stage in ("download", "preprocess"):
        run_python(first, f"stages.{stage}")
    second = shutil.copytree(first, folder / "second", symlinks=True)
    with two_machines((first, second)) as both:
        yield both


@pytest.fixture(scope="module")
def undisturbed(machines: tuple[Machine, Machine]) -> Undisturbed:
    seconds = -start_over(machines) + finish(machines)
    return Undisturbed(digest(machines), seconds)


@pytest.mark.parametrize("way", ["killed", "out of reach"])
@pytest.mark.parametrize("rank", [1, 0])
def test_a_lost_machine_comes_back_and_nobody_touches_the_other(
    machines: tuple[Machine, Machine], undisturbed: Undisturbed, rank: int, way: str
) -> None:
    """Of rank 0, too: it has the checkpoints, and is where processes meet."""
    begin = start_over(machines)
    victim, other = machines[rank], machines[1 - rank]
    wait_until(lambda: any(machines[0].folder.glob(f"checkpoints/*/step-{2 * STEPS_PER_EPOCH:08d}.pt")))
    time.sleep(1)
    lost = time.monotonic()
    if way == "out of reach":
        victim.cut_off()
    victim.kill()
    noticed = await_line(other, f"process {1 - rank} of 2, epoch 3, step .*{LOST}", lost)
    victim.connect()
    start(victim)
    back = time.monotonic()
    resumed = await_line(machines[0], "training resumes after epoch 2", lost)
    longer = finish(machines) - begin - undisturbed.seconds
    print(  # noqa: T201 (figures to see)
        f"\nrank {rank} {way}: noticed after {noticed - lost:.1f} s; back {back - noticed:.1f} s later; "
        f"training {resumed - back:.1f} s after that; in all {longer:.1f} s more than the "
        f"{undisturbed.seconds:.1f} s of an undisturbed run"
    )
    assert noticed - lost < (LOST_SECONDS + 30 if way == "out of reach" else 30)
    assert digest(machines) == undisturbed.digest
    assert not list(machines[1].folder.glob("checkpoints/*/*.pt")), "rank 0 keeps them"


def start_over(machines: tuple[Machine, Machine]) -> float:
    """Start a training from the beginning; when it was."""
    for machine in machines:
        for name in ("checkpoints", "models", "reports/train"):
            shutil.rmtree(machine.folder / name, ignore_errors=True)
        machine.printed.clear()
        start(machine)
    return time.monotonic()


def start(machine: Machine) -> None:
    """README's command."""
    machine.start(["sh", "-c", COMMAND.format(rank=machine.number - 1)], environment())


def await_line(machine: Machine, pattern: str, after: float) -> float:
    """Wait until a machine prints a line with this pattern; when it was."""
    deadline = time.monotonic() + LIMIT

    def printed() -> bool:
        assert time.monotonic() < deadline, f"no {pattern!r}: {machine.printed[-20:]}"
        return machine.when(pattern, after) is not None

    wait_until(printed)
    found = machine.when(pattern, after)
    assert found is not None, "it has been printed"
    return found


def finish(machines: tuple[Machine, Machine]) -> float:
    """Wait for the end of the training; when it was."""
    codes = [machine.wait(LIMIT) for machine in machines]
    assert codes == [0, 0], [machine.printed[-20:] for machine in machines]
    return time.monotonic()


def digest(machines: tuple[Machine, Machine]) -> str:
    return sha256(machines[0].folder / "models/model.pt")
