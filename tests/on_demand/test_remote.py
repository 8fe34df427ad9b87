"""Two checkouts without a shared disk: stages alternate, and what they hand on goes through git and S3."""

import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

from dvc_project import environment, make_project
from waiting import Ended, finish, start, wait_until

from ssd.files import sha256
from tests.on_demand.object_store import KEYS, ObjectStore
from tests.on_demand.stalling_gate import stalling_gate

STAGES = ("check_params", "download", "preprocess", "train", "evaluate", "export", "report")
ME = ("-c", "user.name=t", "-c", "user.email=t@example.org")


def test_alternating_stages_end_with_one_lock_though_pushes_are_killed(
    tmp_path: Path, store: ObjectStore
) -> None:
    project = make_project(tmp_path / "first", **{"tracking.enabled": False})
    first = Checkout(project, store, ran=[])
    second = first.clone(tmp_path / "second")
    first.stage("check_params")

    second.receive(first)
    second.run("download")
    kill_push(second, limit=100_000)
    assert "Running stage" not in second.stage("download"), "its disk was kept: only the push is repeated"

    first.receive(second)
    first.stage("preprocess")

    second.receive(first)
    second.run("train")
    kill_push(second, limit=5_000_000)
    lost = second.digests()["models/model.pt"]
    shutil.rmtree(second.folder)  # a machine taken back, with the lock that it has not handed on
    first.stage("train")
    assert first.digests()["models/model.pt"] == lost, "the same bytes again"

    third = first.clone(tmp_path / "third")
    third.stage("evaluate")
    first.receive(third)
    first.stage("export")
    third.receive(first)
    third.stage("report")
    first.receive(third)

    assert Counter(first.ran) == dict.fromkeys(STAGES, 1) | {"train": 2}
    for checkout in (first, third):
        assert checkout.dvc("pull", "--run-cache").code == 0, "nothing is missing"
        assert "Running stage" not in checkout.dvc("repro", "--pull").stdout
    assert first.lock() == third.lock()
    assert first.digests() == third.digests()


def kill_push(checkout: "Checkout", limit: int) -> None:
    """`dvc push` that gets SIGKILL when this many bytes have reached the store, and not one more will."""
    store = checkout.store
    before = store.sizes("dvc")
    with stalling_gate(store.port, limit) as gate:
        checkout.use(f"http://127.0.0.1:{gate.port}")
        pushing = start(["dvc", "push", "--run-cache"], checkout.variables, checkout.folder)
        wait_until(gate.stalled.is_set, pushing)
        os.killpg(pushing.pid, signal.SIGKILL)
        assert finish(pushing).code == -signal.SIGKILL
        assert gate.passed == limit
    checkout.use(store.endpoint)
    arrived = store.sizes("dvc").keys() - before.keys()
    print(f"killed: {limit} bytes had passed, {len(arrived)} objects had arrived")  # noqa: T201 (figures to see)


class Checkout:
    """A clone with a cache of its own; it shares nothing with another but git and the remote."""

    def __init__(self, folder: Path, store: ObjectStore, ran: list[str]) -> None:
        self.folder = folder
        self.store = store
        self.ran = ran
        self.variables = environment() | KEYS
        self.use(store.endpoint)

    def clone(self, folder: Path) -> "Checkout":
        """Another one."""
        done = finish(start(["git", "clone", "--quiet", str(self.folder), str(folder)]))
        assert done.code == 0, done.stderr
        return Checkout(folder, self.store, self.ran)

    def use(self, endpoint: str) -> None:
        """Reach the remote by this address."""
        remote = f"['remote \"store\"']\n    url = s3://dvc/ssd\n    endpointurl = {endpoint}\n"
        (self.folder / ".dvc/config.local").write_text(f"[core]\n    remote = store\n{remote}")

    def stage(self, name: str) -> str:
        """README's line for a stage on a machine of its own; its lock is committed. What `repro` printed."""
        printed = self.run(name)
        pushed = self.dvc("push", "--run-cache")
        assert pushed.code == 0, pushed
        self.git("add", "dvc.lock")
        self.git(*ME, "commit", "--quiet", "--message", name)
        return printed

    def run(self, name: str) -> str:
        """All of it but the push."""
        fetched = self.dvc("fetch", "--run-cache")
        assert fetched.code == 0, fetched
        ended = self.dvc("repro", "--pull", name)
        assert ended.code == 0, ended
        self.ran += re.findall(r"Running stage '(\w+)'", ended.stdout)
        return ended.stdout

    def receive(self, other: "Checkout") -> None:
        """The other's commits."""
        self.git("pull", "--quiet", "--ff-only", str(other.folder), "HEAD")

    def dvc(self, *arguments: str) -> Ended:
        return finish(start(["dvc", *arguments], self.variables, self.folder))

    def git(self, *arguments: str) -> None:
        ended = finish(start(["git", *arguments], self.variables, self.folder))
        assert ended.code == 0, ended

    def lock(self) -> bytes:
        return (self.folder / "dvc.lock").read_bytes()

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file that a stage wrote."""
        files = [path for name in ("data", "models", "reports") for path in (self.folder / name).rglob("*")]
        return {str(path.relative_to(self.folder)): sha256(path) for path in files if path.is_file()}
