"""`ssd serve` and `ssd demo`: what is refused before a model is read, and how a server starts and ends."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.testclient import TestClient
from waiting import Ended

from ssd.serving.port import is_loopback, web_address

Run = Callable[..., Ended]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How a server was to be run, instead of running one."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "cli.listening.run_server",
        lambda app, listener: calls.append({"app": app, "address": listener.getsockname()[:2]}),
    )
    return calls


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_is_taken_is_told_with_the_way_to_another(
    run_ssd: Run, taken_port: int, command: str
) -> None:
    ended = run_ssd(command, "model.pt", "--port", taken_port, "--device", "cpu")
    assert (ended.code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"port {taken_port} is not free on 127.0.0.1 (Address already in use)")
    assert line.endswith(f"or take another: the same command with --port {taken_port + 1}")


def test_two_models_are_shown_on_this_machine_alone(
    run_ssd: Run, glyph_model: Path, tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    other = tmp_path / "other.pt"
    other.symlink_to(glyph_model)
    ended = run_ssd("demo", glyph_model, other, "--port", free_port(), "--device", "cpu")
    assert ended.code == 0, ended.stderr
    (call,) = started
    host, port = call["address"]
    assert host == "127.0.0.1"
    assert f"http://127.0.0.1:{port} " in ended.stdout
    with TestClient(call["app"], "http://localhost") as client:
        names = [model["name"] for model in client.get("/models").json()["models"]]
        assert names == [str(glyph_model), str(other)]
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_another_host_is_warned_of(run_ssd: Run, glyph_model: Path, started: list[dict[str, Any]]) -> None:
    ended = run_ssd("serve", glyph_model, "--host", "0.0.0.0", "--port", free_port(), "--device", "cpu")
    assert ended.code == 0
    assert "other machines can reach this server, which asks for no password" in ended.stderr
    with TestClient(started[0]["app"], "http://gpu.example") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code == 404


def test_one_model_twice_is_refused(run_ssd: Run) -> None:
    ended = run_ssd("demo", "model.pt", "model.pt")
    assert (ended.code, ended.stderr) == (2, "model.pt: given twice; name one model, or two\n")


def test_an_address_of_another_machine_is_refused(run_ssd: Run) -> None:
    ended = run_ssd("serve", "model.pt", "--host", "192.0.2.1")
    assert ended.code == 2
    assert ended.stderr.startswith(
        "--host 192.0.2.1: no address of this machine (Cannot assign requested address); 127.0.0.1 is "
    )


def test_a_host_that_is_not_known_is_refused(run_ssd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    ended = run_ssd("serve", "model.pt", "--host", "no.such.host")
    assert ended.code == 2
    assert ended.stderr == (
        "--host no.such.host: no address of it is known (Name or service not known); needed is one of this "
        "machine's, as 127.0.0.1 or 0.0.0.0\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
def test_every_loopback_address_is_of_this_machine_alone(
    run_ssd: Run, glyph_model: Path, started: list[dict[str, Any]], host: str
) -> None:
    port = free_port(host)
    ended = run_ssd("serve", glyph_model, "--host", host, "--port", port, "--device", "cpu")
    assert (ended.code, ended.stderr) == (0, "")
    address = f"http://{host}:{port}"
    assert f" answers POST {address}/detect now; " in ended.stdout
    with TestClient(started[0]["app"], address) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_ipv6_s_loopback_address_is_one_too_and_stands_in_brackets() -> None:
    """By what a socket would say, as a machine may have no IPv6."""
    names = {"::1": True, "::": False, "fe80::1": False, "127.0.0.2": True, "0.0.0.0": False}
    for name, expected in names.items():
        listener = Mock(getsockname=lambda name=name: (name, 8000))
        assert is_loopback(listener) == expected, name
    assert web_address("::1", 8000) == "http://[::1]:8000"
    assert web_address("localhost", 8000) == "http://localhost:8000"
