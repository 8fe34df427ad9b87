"""Several processes: who they are, what they exchange, how they part. As a script, this is one of them."""

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import free_port, run_ranks, start_rank
from waiting import finish, wait_until

from ssd.errors import LostProcessError, UserError
from ssd.processes import world as distributed
from ssd.processes.world import World, exit_now, joined_world, launched, read_world

COMPLETE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
VARIABLES = [*COMPLETE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PET_NNODES"]
RESUMES = "the next run resumes from the last checkpoint"
NO_ANSWER = (
    "process 0 of 2, epoch 2, validating: no answer from another process for 30 min; it hangs, or its "
    f"machine is out of reach; {RESUMES}"
)
ENDED = (
    "process 0 of 2, epoch 2, validating: another process has ended, or cannot be reached (Connection closed "
    f"by peer [::1]:47); {RESUMES}"
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever started the tests, they start from no world."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_variables_the_world_is_this_process() -> None:
    tensor = torch.tensor([3.0])
    with joined_world("cpu") as world:
        assert world == World(rank=0, size=1, local_rank=0)
        assert world.is_main
        assert world.sum_(tensor) is tensor
        assert tensor.tolist() == [3.0]
        assert world.gather("x") == ["x"]
        assert world.broadcast("x") == "x"
        world.barrier()
        assert not dist.is_initialized()
    assert not launched()


def test_a_job_of_one_needs_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched()
    with joined_world("cpu") as world:
        assert world == World()
        assert not dist.is_initialized()


@pytest.mark.parametrize("machines", ["2", "1:4"])
def test_one_of_several_machines_does_not_train_alone(monkeypatch: pytest.MonkeyPatch, machines: str) -> None:
    """A Kubeflow TrainJob sets the variables of torchrun alone."""
    monkeypatch.setenv("PET_NNODES", machines)
    with pytest.raises(UserError, match=f"PET_NNODES: found '{machines}', .* `torchrun -m stages.train`$"):
        launched()
    monkeypatch.setenv("PET_NNODES", "1")
    assert not launched()


def test_the_launcher_s_numbers_are_read() -> None:
    assert read_world(COMPLETE) == World(rank=1, size=2, local_rank=0)
    assert read_world({**COMPLETE, "RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}) == World(6, 8, 2)
    assert not read_world(COMPLETE).is_main


@pytest.mark.parametrize("name", COMPLETE)
def test_a_missing_variable_is_named(name: str) -> None:
    environment = {key: value for key, value in COMPLETE.items() if key != name}
    with pytest.raises(UserError, match=f"^environment: {name}: missing; .*$"):
        read_world(environment)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RANK", "2", "from 0 to 1"),
        ("RANK", "-1", "from 0 to 1"),
        ("RANK", "first", "from 0 to 1"),
        ("RANK", "", "from 0 to 1"),
        ("WORLD_SIZE", "0", "from 1"),
        ("WORLD_SIZE", "two", "from 1"),
        ("LOCAL_RANK", "2", "from 0 to 1"),
        ("LOCAL_RANK", "1.0", "from 0 to 1"),
        ("MASTER_PORT", "0", "from 1 to 65535"),
        ("MASTER_PORT", "http", "from 1 to 65535"),
    ],
)
def test_a_variable_out_of_range_is_one_line(name: str, value: str, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        read_world({**COMPLETE, name: value})
    assert str(caught.value) == f"environment: {name}: found {value!r}; allowed: a number {allowed}"


def test_a_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with joined_world("auto"):
        assert chosen == [0]
    for name, value in {**COMPLETE, "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="LOCAL_RANK: found 1, but torch sees 1 GPUs"), joined_world("cuda"):
        pass


def test_partners_that_do_not_come_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=1))
    for name, value in {**COMPLETE, "RANK": "0", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    message = r"^environment: MASTER_ADDR: process 0 of 2 cannot connect to the others at 127.0.0.1:\d+.*$"
    with pytest.raises(UserError, match=message), joined_world("cpu"):
        pass
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("remote", "on_this_machine", "hint"),
    [
        ("127.0.1.1", "1", "reach that address, and set GLOO_SOCKET_IFNAME to the network's interface, .*$"),
        ("127.0.1.1", "2", "reach that address$"),
        ("10.0.0.2", "1", "reach that address$"),
    ],
)
def test_a_machine_whose_name_is_a_loopback_address_is_a_hint(
    monkeypatch: pytest.MonkeyPatch, remote: str, on_this_machine: str, hint: str
) -> None:
    """As Debian's installer names it: gloo listens where the other machines cannot reach it."""

    def refused(*arguments: object, **others: object) -> None:
        raise RuntimeError(f"timed out connecting: SO_ERROR: Connection refused, remote=[{remote}]:21933$0")

    monkeypatch.setattr(dist, "init_process_group", refused)
    for name, value in {**COMPLETE, "LOCAL_WORLD_SIZE": on_this_machine}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=hint), joined_world("cpu"):
        pass


@pytest.mark.slow
def test_all_processes_exchange_the_same(tmp_path: Path) -> None:
    outputs = run_ranks(__file__, "exchange", tmp_path)
    assert [output.code for output in outputs] == [0, 0], outputs
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [
        "sum [11.0, 22.0]; gathered [0, 100]; broadcast {'from': 0}; after the barrier: late"
    ] * 2
    assert [output.stdout for output in outputs] == ["not flushed by the script"] * 2


@pytest.mark.slow
def test_an_exception_leaves_nobody_waiting() -> None:
    """The time-out of the test is far below that of the exchange."""
    waiting, failing = run_ranks(__file__, "fail")
    assert "ZeroDivisionError" in failing.stderr
    assert waiting.stderr.splitlines()[-1].startswith(
        "[rank0]: ssd.errors.LostProcessError: process 0 of 2, starting: another process has ended"
    )
    assert [waiting.code, failing.code] == [1, 1]


@pytest.mark.slow
def test_an_exchange_that_gets_no_answer_ends_with_one_line() -> None:
    """The other is there, and does nothing, for as long as the test."""
    port = free_port()
    idle = start_rank(1, port, __file__, "be_idle")
    try:
        waiting = finish(start_rank(0, port, __file__, "exchange_gradients"))
    finally:
        idle.kill()
        idle.communicate()
    assert waiting.code == 1
    assert waiting.stderr.splitlines()[-1] == f"[rank0]: ssd.errors.LostProcessError: {NO_ANSWER}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[/x/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv", NO_ANSWER),
        ("[/x/gloo/transport/tcp/unbound_buffer.cc:129] Timed out waiting 1800000ms for send", NO_ANSWER),
        ("[/x/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:47. This is typical", ENDED),
        ("[/x/gloo/transport/tcp/pair.cc:545] Connection closed by peer [::1]:47. Check the logs", ENDED),
    ],
)
def test_what_gloo_says_is_one_line_with_the_place(text: str, message: str) -> None:
    with pytest.raises(LostProcessError) as caught, World(0, 2).exchanging(lambda: "epoch 2, validating"):
        raise RuntimeError(text)
    assert str(caught.value) == message


def test_what_nccl_says_is_one_line_too() -> None:
    message = "cannot be reached .NCCL error: remote process exited.; "
    with pytest.raises(LostProcessError, match=message), World(0, 2).exchanging(lambda: "epoch 2"):
        raise dist.DistBackendError("NCCL error: remote process exited\nLast error: ...")


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), LostProcessError("one line")])
def test_other_errors_pass_as_they_are(error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as caught, World(0, 2).exchanging(lambda: "epoch 1"):
        raise error
    assert caught.value is error


@pytest.mark.slow
def test_a_signal_ends_a_process_that_waits_for_the_others_to_come() -> None:
    port = free_port()
    process = start_rank(0, port, __file__, "exchange")
    with contextlib.closing(socket.socket()) as client:
        wait_until(lambda: client.connect_ex(("127.0.0.1", int(port))) == 0, process)
    process.terminate()
    assert finish(process).code == -signal.SIGTERM


def exchange(world: World, folder: str) -> None:
    total = world.sum_(torch.tensor([[1.0, 2.0], [10.0, 20.0]][world.rank]))
    gathered = world.gather(100 * world.rank)
    told = world.broadcast({"from": world.rank})
    if not world.is_main:
        time.sleep(0.5)
        Path(folder, "late").touch()
    world.barrier()
    late = [path.name for path in Path(folder).glob("late")]
    text = (
        f"sum {total.tolist()}; gathered {gathered}; broadcast {told}; after the barrier: {', '.join(late)}"
    )
    Path(folder, f"{world.rank}.txt").write_text(text)


def fail(world: World) -> None:
    if not world.is_main:
        raise ZeroDivisionError
    world.gather("for ever")


def be_idle(world: World) -> None:
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    time.sleep(100_000)


def exchange_gradients(world: World) -> None:
    """The 30 minutes are a moment, once both processes have come, however slow the machine is."""
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.2))
    with world.exchanging(lambda: "epoch 2, validating"):
        model(torch.ones(1, 1)).sum().backward()


if __name__ == "__main__":
    actions: dict[str, Callable[..., None]] = {
        "exchange": exchange,
        "fail": fail,
        "be_idle": be_idle,
        "exchange_gradients": exchange_gradients,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("as an exception"))
    with joined_world("cpu") as this:
        actions[sys.argv[1]](this, *sys.argv[2:])
    sys.stdout.write("not flushed by the script")
    exit_now(0)
