"""Downloads from a server that misbehaves on purpose: whatever it does, a file in place is the right one."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import loopback as lb
import pytest
from loopback import Loopback

import ssd
from ssd.errors import UserError
from ssd.fetch import MAX_REDIRECTS, RemoteFile, RetryPolicy, fetch, unavailable_reason

CONTENT = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(attempts=3, wait=0.002, connect=20.0, read=20.0)
SHORT = RetryPolicy(attempts=3, wait=0.002, connect=20.0, read=0.5)
HALF = 200_000


def a_file(*urls: str) -> RemoteFile:
    return RemoteFile("a.tar", len(CONTENT), SHA256, urls)


def part_of(folder: Path) -> Path:
    return folder / ".a.tar.part"


def message_of(file: RemoteFile, folder: Path) -> str:
    """The error of a fetch that must fail; it is one line and leaves no file in place."""
    with pytest.raises(UserError) as error:
        fetch(file, folder, QUICK, key="data.archives")
    assert "\n" not in str(error.value)
    assert not (folder / file.name).exists()
    return str(error.value)


def test_a_file_is_downloaded_once_and_then_used(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT)
    folder = tmp_path / "new" / "archives"
    for _ in range(2):
        assert fetch(a_file(url), folder, QUICK).read_bytes() == CONTENT
    assert server.requests == [("/a.tar", None)]
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == ["a.tar"]


def test_a_file_that_the_user_put_there_needs_no_network(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    assert fetch(a_file(server.base + "/a.tar"), tmp_path, QUICK) == tmp_path / "a.tar"
    assert server.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_wrong_file_in_place_is_reported_and_left_alone(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT)
    wrong = CONTENT[:-1]
    (tmp_path / "a.tar").write_bytes(wrong)
    with pytest.raises(UserError) as error:
        fetch(a_file(url), tmp_path, QUICK)
    message = str(error.value)
    for told in (str(tmp_path / "a.tar"), hashlib.sha256(wrong).hexdigest(), SHA256, "399,999", "delete it"):
        assert told in message
    assert (tmp_path / "a.tar").read_bytes() == wrong
    assert server.requests == []


@pytest.fixture(params=[8, 10, 64])
def published(request: pytest.FixtureRequest) -> Callable[..., RemoteFile]:
    """The file as torchvision states it: without its length, and of its digest the first digits or all."""
    return lambda *urls: RemoteFile("a.tar", 0, SHA256[: request.param], urls)


def test_a_file_of_unknown_length_is_downloaded_and_resumed(
    server: Loopback, tmp_path: Path, published: Callable[..., RemoteFile]
) -> None:
    """The first request asks for its length."""
    url = server.serve("/a.tar", CONTENT, lb.ok, lb.dies_after(HALF), lb.ok)
    for _ in range(2):
        assert fetch(published(url), tmp_path, QUICK).read_bytes() == CONTENT
    first, second, resumed = server.ranges("/a.tar")
    assert (first, second) == (None, None)
    assert 0 < int((resumed or "")[len("bytes=") : -1]) <= HALF


def test_of_a_digest_that_is_known_in_part_this_part_is_checked(
    server: Loopback, tmp_path: Path, published: Callable[..., RemoteFile]
) -> None:
    url = server.serve("/a.tar", CONTENT, lb.corrupt)
    assert f"{url}: wrong sha256" in message_of(published(url), tmp_path)
    (tmp_path / "a.tar").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="not the file that was published") as error:
        fetch(published(url), tmp_path, QUICK)
    assert f"expected {published(url).sha256}" in str(error.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lb.truncates(HALF), "does not tell the length of the file"),
        (lb.status(404), "HTTP 404"),
        (lb.web_page, "sends a web page"),
        (lb.resets, "no connection, or it was lost"),
    ],
    ids=["no length", "404", "web page", "reset"],
)
def test_a_mirror_that_does_not_tell_the_length_is_left(
    server: Loopback, tmp_path: Path, answer: lb.Answer, reason: str
) -> None:
    url = server.serve("/a.tar", CONTENT, answer)
    assert f"{url}: {reason}" in message_of(RemoteFile("a.tar", 0, SHA256, (url,)), tmp_path)


def test_a_dying_connection_is_resumed_where_it_broke(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, lb.dies_after(HALF), lb.dies_after(65536), lb.ok)
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    first, *resumed = server.ranges("/a.tar")
    assert first is None
    offsets = [int((asked or "")[len("bytes=") : -1]) for asked in resumed]
    assert len(offsets) == 2
    assert 0 < offsets[0] <= HALF
    assert offsets[0] < offsets[1] <= offsets[0] + 65536


def test_a_silently_truncated_answer_is_resumed(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, lb.truncates(HALF), lb.ok)
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/a.tar") == [None, f"bytes={HALF}-"]


def test_a_stalled_connection_is_resumed(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, server.waiting(HALF), lb.ok)
    assert fetch(a_file(url), tmp_path, SHORT).read_bytes() == CONTENT
    assert len(server.requests) >= 2


def test_a_former_runs_part_is_resumed(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT)
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/a.tar") == [f"bytes={HALF}-"]
    assert not part_of(tmp_path).exists()


def test_a_complete_part_is_verified_without_a_request(server: Loopback, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT)
    assert fetch(a_file(server.base + "/a.tar"), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize(
    "part",
    [CONTENT[:HALF][::-1], CONTENT[::-1], CONTENT + b"x"],
    ids=["wrong", "wrong, complete", "too long"],
)
def test_a_bad_part_costs_a_fresh_start_at_the_same_mirror(
    server: Loopback, tmp_path: Path, part: bytes
) -> None:
    url = server.serve("/a.tar", CONTENT)
    part_of(tmp_path).write_bytes(part)
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/a.tar")[-1] is None


@pytest.mark.parametrize(
    "answer",
    [
        lb.ignores_range,
        lb.another_range,
        lb.status(416),
        lb.status(416, Content_Range=f"bytes */{len(CONTENT)}"),
    ],
    ids=["200", "206 of another range", "416", "416 with the length"],
)
def test_a_server_that_cannot_resume_is_asked_for_all(
    server: Loopback, tmp_path: Path, answer: lb.Answer
) -> None:
    url = server.serve("/a.tar", CONTENT, answer, lb.ok)
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/a.tar") in ([f"bytes={HALF}-"], [f"bytes={HALF}-", None])


def test_a_mirror_with_a_shorter_file_does_not_cost_the_part(server: Loopback, tmp_path: Path) -> None:
    other = server.serve("/other/a.tar", CONTENT[:1000])
    good = server.serve("/a.tar", CONTENT)
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert fetch(a_file(other, good), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/other/a.tar") == [f"bytes={HALF}-"]
    assert server.ranges("/a.tar") == [f"bytes={HALF}-"]


@pytest.mark.parametrize("answer", [lb.status(503), lb.status(429), lb.resets], ids=["503", "429", "reset"])
def test_a_passing_failure_is_tried_again(server: Loopback, tmp_path: Path, answer: lb.Answer) -> None:
    url = server.serve("/a.tar", CONTENT, answer, answer, lb.ok)
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_redirects_are_followed_and_keep_the_range(server: Loopback, tmp_path: Path) -> None:
    server.serve("/moved/a.tar", CONTENT)
    url = server.serve("/a.tar", b"", lb.redirect("/moved/a.tar"))
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/moved/a.tar") == [f"bytes={HALF}-"]


LASTING = {
    "404": (lb.status(404), "HTTP 404"),
    "403": (lb.status(403), "HTTP 403"),
    "redirect loop": (lb.redirect("/bad"), f"more than {MAX_REDIRECTS} redirects"),
    "redirect to a local file": (lb.redirect("file:///etc/passwd"), "not an http or https address"),
    "redirect to nonsense": (lb.redirect("http://[1"), "not an http or https address"),
    "too short": (lambda handler, content: lb.ok(handler, content[:-1]), "holds 399999 bytes"),
    "too long": (lambda handler, content: lb.ok(handler, content + b"x"), "holds 400001 bytes"),
    "sends too much": (lb.sends_too_much, "sends more bytes than expected"),
    "corrupt": (lb.corrupt, "wrong sha256"),
    "web page": (lb.web_page, "sends a web page"),
}


@pytest.mark.parametrize(("answer", "reason"), LASTING.values(), ids=LASTING.keys())
def test_a_mirror_that_has_not_the_file_is_left_for_the_next(
    server: Loopback, tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: lb.Answer, reason: str
) -> None:
    bad = server.serve("/bad", CONTENT, answer)
    good = server.serve("/good/a.tar", CONTENT)
    assert fetch(a_file(bad, good), tmp_path, QUICK).read_bytes() == CONTENT
    assert reason in caplog.text
    assert server.ranges("/good/a.tar") == [None]
    assert len(server.ranges("/bad")) == (MAX_REDIRECTS + 1 if "redirects" in reason else 1)


def test_what_a_corrupt_mirror_began_is_not_blamed_on_the_next(server: Loopback, tmp_path: Path) -> None:
    corrupt_half = bytes(HALF) + CONTENT[HALF:]
    bad = server.serve("/bad/a.tar", corrupt_half, lb.truncates(HALF), lb.status(404))
    good = server.serve("/good/a.tar", CONTENT)
    assert fetch(a_file(bad, good), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/good/a.tar") == [f"bytes={HALF}-", None]


def test_when_all_mirrors_fail_each_is_named_with_its_reason(server: Loopback, tmp_path: Path) -> None:
    gone = server.serve("/gone/a.tar", b"", lb.status(404))
    busy = server.serve("/busy/a.tar", b"", lb.status(503))
    wrong = server.serve("/wrong/a.tar", CONTENT, lb.corrupt)
    with socket.socket() as bound:  # but not listening
        bound.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{bound.getsockname()[1]}/a.tar"
        message = message_of(a_file(gone, busy, wrong, closed), tmp_path)
    for told in (
        f"{gone}: HTTP 404",
        f"{busy}: HTTP 503",
        f"{wrong}: wrong sha256",
        f"{closed}: no connection",
        f"put a.tar into {tmp_path}",
    ):
        assert told in message
    assert message.startswith("data.archives: a.tar: ")
    assert len(server.ranges("/busy/a.tar")) == QUICK.attempts
    assert not part_of(tmp_path).exists()


def test_a_mirror_that_never_gets_further_is_given_up(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, lb.truncates(HALF))
    assert f"ended at byte {HALF:,} of {len(CONTENT):,}" in message_of(a_file(url), tmp_path)
    assert len(server.requests) == 1 + QUICK.attempts


def test_a_mirror_that_breaks_and_cannot_resume_is_given_up(server: Loopback, tmp_path: Path) -> None:
    def breaks(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        answer = lb.status(416) if handler.headers["Range"] else lb.truncates(HALF)
        answer(handler, content)

    assert "cannot resume" in message_of(a_file(server.serve("/a.tar", CONTENT, breaks)), tmp_path)
    assert len(server.requests) == 1 + QUICK.attempts


def test_more_breaks_than_attempts_are_borne_while_bytes_arrive(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, lb.dies_after(70_000))
    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert len(server.requests) > QUICK.attempts


def test_messages_hold_no_password(server: Loopback, tmp_path: Path) -> None:
    url = server.base.replace("http://", "http://user:secret@") + "/a.tar"
    message = message_of(a_file(url), tmp_path)
    assert "secret" not in message
    assert f"{server.base}/a.tar: HTTP 404" in message


def test_a_folder_that_cannot_be_written_is_named(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in message_of(
        a_file(server.base + "/a.tar"), tmp_path / "file" / "archives"
    )


def test_two_that_ask_at_once_share_one_download(server: Loopback, tmp_path: Path) -> None:
    url = server.serve("/a.tar", CONTENT, server.waiting(HALF))
    retries = RetryPolicy(attempts=1, wait=0, connect=2.0, read=20.0)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(a_file(url), tmp_path, retries).read_bytes()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: part_of(tmp_path).exists())
    time.sleep(0.1)
    server.gate.set()
    for thread in threads:
        thread.join(20)
    assert found == [CONTENT, CONTENT]
    assert len(server.requests) == 1


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def test_a_killed_download_leaves_a_part_that_the_next_run_completes(
    server: Loopback, tmp_path: Path
) -> None:
    url = server.serve("/a.tar", CONTENT, server.waiting(HALF), lb.ok)
    script = (
        "import sys; from pathlib import Path; from ssd.fetch import RemoteFile, fetch;"
        "fetch(RemoteFile('a.tar', int(sys.argv[1]), sys.argv[2], (sys.argv[3],)), Path(sys.argv[4]))"
    )
    command = [sys.executable, "-c", script, str(len(CONTENT)), SHA256, url, str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(ssd.__file__).parents[1])})
    try:
        wait_until(lambda: part_of(tmp_path).exists() and part_of(tmp_path).stat().st_size >= HALF // 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert not (tmp_path / "a.tar").exists()
    kept = part_of(tmp_path).stat().st_size
    assert 0 < kept <= HALF

    assert fetch(a_file(url), tmp_path, QUICK).read_bytes() == CONTENT
    assert server.ranges("/a.tar") == [None, f"bytes={kept}-"]


def test_a_log_gets_no_progress_bar(
    server: Loopback, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(a_file(server.serve("/a.tar", CONTENT)), tmp_path, QUICK)
    assert capfd.readouterr() == ("", "")


def test_a_host_is_asked_without_a_download(server: Loopback) -> None:
    """It holds the file, or not; one that is slow to answer counts as holding it."""

    def stalls(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        server.gate.wait(30)

    url, slow = server.serve("/a.tar", CONTENT), server.serve("/slow.tar", CONTENT, stalls)
    moved = server.serve("/moved.tar", b"", lb.redirect(url))
    assert [unavailable_reason(place, len(CONTENT), 20.0) for place in (url, moved)] == ["", ""]
    assert unavailable_reason(slow, len(CONTENT), 0.05) == ""
    assert unavailable_reason(url, 5, 20.0) == "holds 400000 bytes, expected 5"
    assert unavailable_reason(f"{server.base}/b.tar", None, 20.0) == "HTTP 404"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert (
            unavailable_reason(f"http://127.0.0.1:{port}/a.tar", None, 20.0)
            == "no connection, or it was lost"
        )
    assert server.requests == []
