"""Whether a server can listen on a port."""

import socket

from ssd.errors import UserError


def check_port(host: str, port: int, remedy: str) -> None:
    """Return if a server can listen there.

    Args:
        host: an address or a name of this machine.
        remedy: how to take another port, as a command.

    Raises:
        UserError: it cannot, most often because another one does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise UserError(
            f"port {port} is not free on {host} ({error.strerror}); end what uses it, or take another: "
            f"{remedy}"
        ) from None
