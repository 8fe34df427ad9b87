"""What the commands have in common that become an HTTP server."""

import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ssd.inference.detector_file import DetectorFile

HOST = "127.0.0.1"

GRACE_SECONDS = 30
"""For the requests in progress when the server is told to end."""

CONNECTIONS = 256
"""At once; the server refuses further ones."""

Host = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets every machine of the network in")
]
Port = Annotated[int, typer.Option("--port", help="Port to listen on", min=1, max=65535)]
MaxBytes = Annotated[int, typer.Option("--max-bytes", help="Of an uploaded image file", min=1)]


def another_port(port: int) -> str:
    """How to take the next one, for whom this one is taken."""
    return f"the same command with --port {port + 1 if port < 65535 else 8000}"


def hosts_of(host: str, listener: socket.socket) -> list[str]:
    """By which names a request may call this server. Say so when other machines may, too."""
    from ssd.serving.known_host import ANY, LOOPBACK_NAMES
    from ssd.serving.port import is_loopback

    if is_loopback(listener):
        return [*LOOPBACK_NAMES, *{host.lower(), listener.getsockname()[0]}.difference(LOOPBACK_NAMES)]
    print(f"--host {host}: other machines can reach this server, which asks for no password", file=sys.stderr)
    return [ANY]


def open_detectors(models: list[str], device: str) -> "Mapping[str, DetectorFile]":
    """The detectors, by what the command line calls them."""
    from cli.model import model_file
    from ssd.inference.detector_file import open_detector

    detectors = {}
    for text in models:
        with model_file(text) as path:
            detectors[text] = open_detector(path, device)
    return detectors


def run_server(app: "FastAPI", listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are answered first."""
    import uvicorn

    from ssd.interrupt import StopSignal

    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    # The server sends itself the signal again when it has ended.
    stop = StopSignal()
    stop.install()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])
    stop.uninstall()
