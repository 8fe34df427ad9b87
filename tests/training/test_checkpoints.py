"""Checkpoints survive kills, damage and full disks, and say so in one line."""

import hashlib
import io
import json
import logging
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from malicious import Malicious, check_it_works
from torch import Tensor, nn

from ssd.errors import UserError
from ssd.training.checkpoints import Best, CheckpointFolder

REPOSITORY = Path(__file__).parent.parent.parent


def weights(epoch: int) -> dict[str, Tensor]:
    """Weights that tell their epoch."""
    return {"layer.weight": torch.full((3, 2), float(epoch)), "layer.steps": torch.tensor(epoch)}


def names(folder: Path) -> set[str]:
    """The files of a folder without those of the lock."""
    return {path.name for path in folder.iterdir()} - {".lock", ".holder"}


def save_epochs(folder: Path, scores: list[float | None], keep_best: int = 1) -> None:
    """A training with one state after every epoch of 100 steps."""
    with CheckpointFolder(folder, keep_best) as checkpoints:
        for epoch, score in enumerate(scores, start=1):
            checkpoints.save_weights(weights(epoch), epoch, score)
            checkpoints.save({"epoch": epoch}, 100 * epoch)


def load(folder: Path) -> dict[str, Any] | None:
    with CheckpointFolder(folder, keep_best=1) as checkpoints:
        return checkpoints.load()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings since the last call."""
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return lines


def assert_same(found: object, expected: object) -> None:
    """Equal in types, values and bits; tensors in dtype and memory layout as well."""
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor)
        assert (found.dtype, found.shape, found.stride()) == (
            expected.dtype,
            expected.shape,
            expected.stride(),
        )
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs)
    else:
        assert found == expected


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": {"torch": torch.get_rng_state(), "python": random.Random(7).getstate()},
        "half": torch.rand(5).to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "plain": [1, 2**70, -0.1, float("inf"), True, None, "höhe", ("a", 2)],
        "history": [{"epoch": 1, "val_map50": None}, {"epoch": 2, "val_map50": 0.25}],
    }
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        assert checkpoints.load() is None
        checkpoints.save(state, 12)
    assert state["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert_same(load(tmp_path), state)


def test_what_would_not_read_back_is_refused_before_it_replaces_anything(tmp_path: Path) -> None:
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        checkpoints.save({"score": 0.5}, 1)
        with pytest.raises(Exception, match="Weights only load failed"):
            checkpoints.save({"score": np.float64(0.5)}, 2)
        with pytest.raises(Exception, match="Weights only load failed"):
            checkpoints.save({"file": tmp_path}, 1)
    assert names(tmp_path) == {"step-00000001.pt"}
    assert load(tmp_path) == {"score": 0.5}


def test_the_last_two_states_stay_with_the_weights_that_either_names(tmp_path: Path) -> None:
    save_epochs(tmp_path, [0.1, 0.2])
    assert names(tmp_path) == {"step-00000100.pt", "step-00000200.pt", "best-0001.pt", "best-0002.pt"}
    save_epochs(tmp_path / "more", [0.1, 0.5, 0.2, 0.6, 0.3, 0.4])
    assert names(tmp_path / "more") == {"step-00000500.pt", "step-00000600.pt", "best-0004.pt"}


def test_a_resumed_training_goes_on_with_the_list_of_the_best(tmp_path: Path) -> None:
    save_epochs(tmp_path, [0.1, 0.5, 0.3], keep_best=2)
    with CheckpointFolder(tmp_path, keep_best=2) as checkpoints:
        assert checkpoints.load() == {"epoch": 3}
        assert [(best.epoch, best.score) for best in checkpoints.best] == [(2, 0.5), (3, 0.3)]
        assert checkpoints.save_weights(weights(4), 4, 0.2) is None
        kept = checkpoints.save_weights(weights(5), 5, 0.4)
        assert kept in checkpoints.best
        checkpoints.save({"epoch": 5}, 500)
        assert [best.epoch for best in checkpoints.best] == [2, 5]
        for best in checkpoints.best:
            assert_same(checkpoints.read_weights(best), weights(best.epoch))
    assert names(tmp_path) == {
        "step-00000300.pt",
        "step-00000500.pt",
        "best-0002.pt",
        "best-0003.pt",
        "best-0005.pt",
    }


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), min_size=1, max_size=6), st.integers(1, 3))
def test_the_best_are_the_highest_scores_and_of_equal_ones_the_earliest(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], keep_best: int
) -> None:
    with CheckpointFolder(tmp_path_factory.mktemp("best"), keep_best) as checkpoints:
        for epoch, score in enumerate(scores, start=1):
            kept = checkpoints.save_weights(weights(epoch), epoch, score)
            assert (kept is not None) == (epoch in [best.epoch for best in checkpoints.best])
            known = {number: s for number, s in enumerate(scores[:epoch], start=1) if s is not None}
            expected = sorted(known, key=lambda number: -known[number])[:keep_best]  # stable
            assert [best.epoch for best in checkpoints.best] == (expected or [epoch])


def test_foreign_files_stay_and_left_over_temporary_files_go(tmp_path: Path) -> None:
    foreign = {"notes.txt", "step-1.pt", "step-00000001.pt.bak", "best-0001.txt", ".other.part", "best-x.pt"}
    left_over = {".step-00000300.pt.part", ".best-0003.pt.part"}
    for name in foreign | left_over:
        (tmp_path / name).write_text("something")
    (tmp_path / "step-00000900.pt").mkdir()
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        assert names(tmp_path) == foreign | {"step-00000900.pt"}
        assert checkpoints.load() is None
    save_epochs(tmp_path, [0.3, 0.2, 0.1])
    ours = {"step-00000200.pt", "step-00000300.pt", "best-0001.pt"}
    assert names(tmp_path) == foreign | ours | {"step-00000900.pt"}


def cuts(content: bytes) -> list[bytes]:
    lengths = [0, 1, 81, 82, 83, len(content) - 1, *random.Random(0).sample(range(len(content)), 40)]
    return [content[:length] for length in lengths]


def flips(content: bytes) -> list[bytes]:
    """One bit differs: in the header, at both ends of the payload, and anywhere."""
    places = [0, 40, 81, 82, len(content) - 1, *random.Random(0).sample(range(len(content)), 40)]
    damaged = []
    for number, place in enumerate(places):
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        damaged.append(bytes(changed))
    return damaged


def others(content: bytes) -> list[bytes]:
    """A foreign file, a file of a later format, something appended, and a gap of zeros."""
    return [
        b"PK\x03\x04 no checkpoint at all",
        content.replace(b"checkpoint-1", b"checkpoint-2", 1),
        content + b"\0",
        content[:200] + bytes(50) + content[250:],
    ]


def sealed(payload: bytes) -> bytes:
    """A file with the right digest of whatever it holds."""
    return f"ssd-checkpoint-1 {hashlib.sha256(payload).hexdigest()}\n".encode() + payload


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_what_another_program_sealed_is_passed_over_and_no_pickle_is_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_it_works(tmp_path)
    folder, trace = tmp_path / "run", tmp_path / "was_run"
    save_epochs(folder, [0.1, 0.2])
    state = {"step": 200, "best": [], "state": Malicious(trace)}
    payloads = [
        b"",
        b"hello",
        pickle.dumps(state, 2),
        saved(state),
        saved([1]),
        saved({}),
        saved({"step": 200}),
    ]
    for payload in payloads:
        (folder / "step-00000200.pt").write_bytes(sealed(payload))
        assert load(folder) == {"epoch": 1}
        (line,) = [line for line in warnings(caplog) if "step-00000200.pt" in line]
        assert line.endswith("training resumes from step 100")
        assert "\n" not in line
        assert not trace.exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_an_error_and_not_damage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of damage the state before would be used, and this one deleted later."""

    def load_fails(*_: object, **__: object) -> None:
        raise error

    save_epochs(tmp_path, [0.1, 0.2])
    monkeypatch.setattr(torch, "load", load_fails)
    with pytest.raises(UserError, match=r"step-00000200.pt: not enough memory to read it"):
        load(tmp_path)


@pytest.mark.parametrize("damage", [cuts, flips, others])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save_epochs(tmp_path, [0.1, 0.2])
    newest = tmp_path / "step-00000200.pt"
    whole = newest.read_bytes()
    for content in damage(whole):
        newest.write_bytes(content)
        assert load(tmp_path) == {"epoch": 1}
        (line,) = warnings(caplog)
        assert str(newest) in line
        assert "damaged" in line
        assert line.endswith("training resumes from step 100")
        assert newest.read_bytes() == content
    newest.write_bytes(whole)
    assert load(tmp_path) == {"epoch": 2}
    assert warnings(caplog) == []


@pytest.mark.parametrize("damage", [cuts, flips, others])
def test_a_state_whose_best_weights_are_damaged_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save_epochs(tmp_path, [0.1, 0.2])
    best = tmp_path / "best-0002.pt"
    whole = best.read_bytes()
    for content in [*damage(whole), (tmp_path / "best-0001.pt").read_bytes()]:
        best.write_bytes(content)
        with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
            assert checkpoints.load() == {"epoch": 1}
            assert_same(checkpoints.read_weights(checkpoints.best[0]), weights(1))
        (line,) = warnings(caplog)
        assert "step-00000200.pt" in line
        assert "best-0002.pt" in line
        assert line.endswith("training resumes from step 100")
    best.unlink()
    assert load(tmp_path) == {"epoch": 1}
    assert "best-0002.pt, which is missing" in warnings(caplog)[0]


def test_with_both_states_damaged_training_starts_from_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_epochs(tmp_path, [0.1, 0.2])
    before = names(tmp_path)
    (tmp_path / "step-00000200.pt").write_bytes(b"")
    (tmp_path / "best-0001.pt").write_bytes(b"x")
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        assert checkpoints.load() is None
        assert checkpoints.best == ()
        first, second = warnings(caplog)
        assert "step-00000200.pt" in first
        assert "step-00000100.pt" in second
        assert all(line.endswith("training starts from the beginning") for line in (first, second))
        assert names(tmp_path) == before
        checkpoints.save_weights(weights(1), 1, None)
        assert names(tmp_path) == before
        checkpoints.save({"epoch": 1}, 50)
    assert names(tmp_path) == {"step-00000050.pt", "best-0001.pt"}
    assert load(tmp_path) == {"epoch": 1}


def test_after_a_damaged_one_the_states_that_follow_count_although_their_steps_are_lower(
    tmp_path: Path,
) -> None:
    save_epochs(tmp_path, [0.1, 0.2, 0.3])
    (tmp_path / "step-00000300.pt").write_bytes(b"damaged")
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        checkpoints.load()
        checkpoints.save({"part": 1}, 250)
    assert names(tmp_path) == {"step-00000200.pt", "step-00000250.pt", "best-0002.pt"}
    assert load(tmp_path) == {"part": 1}


def test_of_a_final_state_it_alone_stays_with_its_weights(tmp_path: Path) -> None:
    save_epochs(tmp_path, [0.1, 0.2])
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        checkpoints.load()
        checkpoints.save_weights(weights(3), 3, 0.3)
        checkpoints.save({"finished": True}, 300, final=True)
        assert_same(checkpoints.read_weights(checkpoints.best[0]), weights(3))
    assert names(tmp_path) == {"step-00000300.pt", "best-0003.pt"}
    assert load(tmp_path) == {"finished": True}


def test_a_state_saved_again_at_its_step_leaves_the_one_before(tmp_path: Path) -> None:
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        for step, content in ((100, "a"), (200, "b"), (200, "c")):
            checkpoints.save({"content": content}, step)
    assert names(tmp_path) == {"step-00000100.pt", "step-00000200.pt"}
    assert load(tmp_path) == {"content": "c"}


def test_best_weights_that_were_damaged_since_are_an_error(tmp_path: Path) -> None:
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        best = checkpoints.save_weights(weights(1), 1, 0.5)
        assert isinstance(best, Best)
        (tmp_path / best.file).write_bytes(b"damaged")
        with pytest.raises(UserError, match="best-0001.pt: damaged"):
            checkpoints.read_weights(best)


def test_a_file_of_another_user_is_an_error_and_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_epochs(tmp_path, [0.1])

    def refuse(path: Path, *_: object) -> None:  # the permission bits do not stop root
        raise PermissionError(13, "Permission denied", str(path))

    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        monkeypatch.setattr("ssd.training.checkpoints.Path.open", refuse)
        with pytest.raises(UserError, match="step-00000100.pt: not readable by this user"):
            checkpoints.load()


@pytest.mark.parametrize("way", ["file", "file/folder"])
def test_a_file_in_the_way_is_an_error_at_once(tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"{way}: checkpoints cannot be written here: (File|Not)"):
        CheckpointFolder(tmp_path / way, keep_best=1).__enter__()
    assert (tmp_path / "file").read_text() == "in the way"


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `num_bytes`: writing more fails half-way."""
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))


def test_a_folder_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep_best=1)
    with largest_file(0), pytest.raises(UserError, match="cannot be written here: File too large"):
        checkpoints.__enter__()
    assert load(tmp_path) is None


def test_a_write_that_fails_half_way_is_an_error_that_says_what_remains(tmp_path: Path) -> None:
    large = {"large": torch.zeros(500_000)}
    with CheckpointFolder(tmp_path, keep_best=1) as checkpoints:
        with largest_file(1_000_000), pytest.raises(UserError) as error:
            checkpoints.save(large, 100)
        assert "step-00000100.pt: cannot be written: File too large (2.0 MB needed)" in str(error.value)
        assert str(error.value).endswith("training starts from the beginning")
        assert names(tmp_path) == set()

        checkpoints.save({"small": 1}, 100)
        with largest_file(1_000_000), pytest.raises(UserError, match="resumes from step 100"):
            checkpoints.save_weights(large, 1, 0.5)
        assert checkpoints.best == ()
        with largest_file(1_000_000), pytest.raises(UserError, match="resumes from step 100"):
            checkpoints.save(large, 200)
        assert names(tmp_path) == {"step-00000100.pt"}
        checkpoints.save(large, 200)
    assert_same(load(tmp_path), large)


def run_script(script: str, *arguments: object, namespace: str = "") -> list[Any]:
    """Run Python, in a mount namespace of its own after the command `namespace`; its lines, read as JSON."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    if namespace:
        shell = f'{namespace} && exec "$@"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh", *command]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


FULL_DISK = """
import json, os, sys, torch
from pathlib import Path
from ssd.errors import UserError
from ssd.training.checkpoints import CheckpointFolder

disk = Path(sys.argv[1])
large = torch.zeros(250_000)  # 1 MB

def names():
    return sorted(path.name for path in (disk / "run").glob("*.pt*")) + [p.name for p in disk.rglob("*.part")]

def attempt(action):
    try:
        action()
    except UserError as error:
        print(json.dumps([str(error), names(), os.statvfs(disk).f_bavail * 4096]))

with CheckpointFolder(disk / "run", keep_best=1) as checkpoints:
    checkpoints.save_weights({"w": large}, 1, 0.5)
    checkpoints.save({"w": large + 1}, 100)
    (disk / "ballast").write_bytes(bytes(1_600_000))
    free = os.statvfs(disk).f_bavail * 4096
    attempt(lambda: checkpoints.save_weights({"w": large}, 2, 0.6))
    attempt(lambda: checkpoints.save({"w": large + 2}, 200))
    print(json.dumps(free))
with (disk / "filler").open("wb") as file:
    file.write(bytes(os.statvfs(disk).f_bavail * 4096))
attempt(lambda: CheckpointFolder(disk / "run", keep_best=1).__enter__())
(disk / "filler").unlink()
with CheckpointFolder(disk / "run", keep_best=1) as checkpoints:
    state = checkpoints.load()
    print(json.dumps([float(state["w"][0]), float(checkpoints.read_weights(checkpoints.best[0])["w"].sum())]))
    (disk / "ballast").unlink()
    checkpoints.save({"w": large + 2}, 200)
    print(json.dumps([float(checkpoints.load()["w"][0]), names()]))
"""


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_after_making_room_training_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    results = run_script(FULL_DISK, disk, namespace=f"mount -t tmpfs -o size=4m tmpfs '{disk}'")
    weights_failed, state_failed, free, opening_failed, loaded, after = results
    kept = ["best-0001.pt", "step-00000100.pt"]
    for (message, files, free_after), name in (
        (weights_failed, "best-0002.pt"),
        (state_failed, "step-00000200.pt"),
    ):
        assert f"run/{name}: cannot be written: No space left on device (1.0 MB needed)" in message
        assert message.endswith("training resumes from step 100")
        assert files == kept
        assert free_after == free
    assert "run: checkpoints cannot be written here: No space left on device" in opening_failed[0]
    assert opening_failed[1] == kept
    assert loaded == [1.0, 0.0]
    assert after == [2.0, ["best-0001.pt", "step-00000100.pt", "step-00000200.pt"]]


READ_ONLY = """
import json, subprocess, sys, torch
from pathlib import Path
from ssd.errors import UserError
from ssd.training.checkpoints import CheckpointFolder

disk = Path(sys.argv[1])

def attempt(action):
    try:
        action()
    except UserError as error:
        print(json.dumps(str(error)))

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

def turns_read_only():
    with CheckpointFolder(disk / "run", keep_best=1) as checkpoints:
        checkpoints.save({"step": 100}, 100)
        # The disk itself is busy while the lock is held; a read-only view of it on top is not.
        mount("--bind", str(disk), str(disk))
        mount("-o", "remount,bind,ro", str(disk))
        checkpoints.save({"step": 200}, 200)

attempt(turns_read_only)
attempt(lambda: CheckpointFolder(disk / "run", keep_best=1).__enter__())
attempt(lambda: CheckpointFolder(disk / "new", keep_best=1).__enter__())
mount("-o", "remount,bind,rw", str(disk))
with CheckpointFolder(disk / "run", keep_best=1) as checkpoints:
    print(json.dumps(checkpoints.load()))
"""


@pytest.mark.slow
def test_a_read_only_disk_is_an_error_at_the_start_and_at_a_later_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    results = run_script(READ_ONLY, disk, namespace=f"mount -t tmpfs -o size=4m tmpfs '{disk}'")
    later, again, new, loaded = results
    assert "step-00000200.pt: cannot be written: Read-only file system" in later
    assert later.endswith("training resumes from step 100")
    assert f"{disk}/run: checkpoints cannot be written here: Read-only file system" in again
    assert f"{disk}/new: checkpoints cannot be written here: Read-only file system" in new
    assert loaded == {"step": 100}


# Each child saves as fast as it can until it is killed at a random moment, and tells the parent the step of
# each state as soon as `save` has returned.
KILLED_WRITERS = """
import json, logging, os, random, signal, sys, time, torch
from pathlib import Path
from ssd.training.checkpoints import CheckpointFolder

logging.disable()
folder = Path(sys.argv[1])
chance = random.Random(0)

def write_until_killed(told):
    with CheckpointFolder(folder, keep_best=2) as checkpoints:
        state = checkpoints.load() or {"step": 0}
        step = state["step"]
        while True:
            step += 1
            checkpoints.save_weights({"w": torch.full((50_000,), float(step))}, step, float(step // 2))
            checkpoints.save({"step": step, "w": torch.full((50_000,), float(step))}, step)
            os.write(told, step.to_bytes(8, "little"))

for _ in range(30):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        write_until_killed(writing)
    os.close(writing)
    first = os.read(reading, 8)  # it has begun
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    rest = b""
    while more := os.read(reading, 65536):
        rest += more
    os.close(reading)
    last = int.from_bytes((first + rest)[-8:], "little")
    left_over = [path.name for path in folder.glob(".*.part")]
    with CheckpointFolder(folder, keep_best=2) as checkpoints:
        state = checkpoints.load()
        values = [checkpoints.read_weights(best)["w"].unique().tolist() for best in checkpoints.best]
        found = {"step": state["step"], "w": state["w"].unique().tolist()}
        best = [best.epoch for best in checkpoints.best]
    print(json.dumps({"told": last, **found, "best": best, "values": values, "left_over": left_over}))
"""


@pytest.mark.slow
def test_after_kill_9_at_any_moment_the_last_state_is_there_with_its_weights(tmp_path: Path) -> None:
    rounds = run_script(KILLED_WRITERS, tmp_path / "run")
    assert len(rounds) == 30
    for found in rounds:
        # The child may have died between the end of `save` and telling so.
        assert found["step"] in (found["told"], found["told"] + 1)
        assert found["w"] == [found["step"]]
        scores = {step: step // 2 for step in range(1, found["step"] + 1)}
        assert found["best"] == sorted(scores, key=lambda step: -scores[step])[:2]
        assert found["values"] == [[epoch] for epoch in found["best"]]
    # Some died in the middle of writing a file.
    assert any(found["left_over"] for found in rounds)
    assert len(names(tmp_path / "run")) <= 2 + 2 * 2 + 2


HOLDER = """
import os, sys, time
from pathlib import Path
from ssd.training.checkpoints import CheckpointFolder

with CheckpointFolder(Path(sys.argv[1]), keep_best=1) as checkpoints:
    checkpoints.save({"of": "the first"}, 1)
    child = os.fork()  # as a data loader does
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_two_trainings_never_share_a_folder_and_a_killed_one_lets_go_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError, match=rf"{tmp_path}: another training .* \(process {holder.pid} on "):
            CheckpointFolder(tmp_path, keep_best=1).__enter__()
        assert names(tmp_path) == {"step-00000001.pt"}
        holder.kill()
        holder.wait()
        assert load(tmp_path) == {"of": "the first"}  # though the child still lives
        os.kill(child, 0)
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)


def test_a_folder_is_free_again_after_its_block_and_after_a_failure_in_it(tmp_path: Path) -> None:
    with CheckpointFolder(tmp_path, keep_best=1):
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {os.getpid()} on"):
                CheckpointFolder(tmp_path, keep_best=1).__enter__()
    with pytest.raises(RuntimeError), CheckpointFolder(tmp_path, keep_best=1):
        raise RuntimeError
    assert load(tmp_path) is None
