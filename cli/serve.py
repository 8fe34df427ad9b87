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
    from cli.listening import another_port, hosts_of, open_detectors, run_server
    from ssd.serving.app import create_app
    from ssd.serving.port import listen, web_address
    from ssd.serving.upload import Limits

    with listen(host, port, another_port(port)) as listener:
        hosts = hosts_of(host, listener)
        limits = Limits(max_bytes=max_bytes, max_requests=max_requests)
        app = create_app(open_detectors([model], device), limits, max_batch, hosts)
        print(f"{model} answers POST {web_address(host, port)}/detect now; Ctrl-C ends it.", flush=True)
        run_server(app, listener)
