"""`ssd serve`: a model as an HTTP API."""

from typing import Annotated

import typer

from cli.listening import HOST, Host, MaxBytes, Port
from cli.options import Device, ModelFile


def serve(
    model: ModelFile,
    host: Host = HOST,
    port: Port = 8000,
    max_batch: Annotated[int, typer.Option(help="Images that the network takes at once", min=1)] = 8,
    max_requests: Annotated[
        int, typer.Option(help="Requests at once; further ones are answered 503", min=1)
    ] = 32,
    max_bytes: MaxBytes = 20_000_000,
    device: Device = "auto",
) -> None:
    """Serve a model over HTTP: POST /detect, GET /models, /health and /metrics.

    Requests that arrive together are one batch. SIGTERM and Ctrl-C answer those in progress, and end.
    """
    # They take seconds, and --help none.
    from cli.listening import hosts_of, open_detectors, run_server
    from ssd.serving.app import create_app
    from ssd.serving.port import check_port
    from ssd.serving.upload import Limits

    check_port(host, port, f"ssd serve {model} --port {port % 65535 + 1}")
    hosts = hosts_of(host)
    limits = Limits(max_bytes=max_bytes, max_requests=max_requests)
    app = create_app(open_detectors([model], device), limits, max_batch, hosts)
    print(f"{model} answers POST http://{host}:{port}/detect now; Ctrl-C ends it.", flush=True)
    run_server(app, host, port)
