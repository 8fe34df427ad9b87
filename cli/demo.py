"""`ssd demo`: a web page that shows what one model, or two, see in a picture."""

from typing import Annotated

import typer

from cli.listening import HOST, Host, MaxBytes, Port
from cli.options import Device, ModelFile
from ssd.errors import UserError


def demo(
    model: ModelFile,
    second: Annotated[
        str | None, typer.Argument(metavar="[MODEL2]", help="A model to show beside it")
    ] = None,
    host: Host = HOST,
    port: Port = 8000,
    max_bytes: MaxBytes = 20_000_000,
    device: Device = "auto",
) -> None:
    """Show what a model sees, in a browser: drop a picture, or take one by camera.

    Two models are shown side by side. The page loads nothing from elsewhere, and pictures stay here.
    """
    # They take seconds, and --help none.
    from cli.listening import another_port, hosts_of, open_detectors, run_server
    from ssd.serving.app import create_app
    from ssd.serving.page import add_page
    from ssd.serving.port import listen, web_address
    from ssd.serving.upload import Limits

    models = [model, second] if second else [model]
    if second == model:
        raise UserError(f"{model}: given twice; name one model, or two")
    with listen(host, port, another_port(port)) as listener:
        hosts = hosts_of(host, listener)
        app = create_app(open_detectors(models, device), Limits(max_bytes=max_bytes), hosts=hosts)
        add_page(app)
        print(f"Open {web_address(host, port)} in a browser; Ctrl-C ends it.", flush=True)
        run_server(app, listener)
