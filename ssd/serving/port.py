"""Whether a server can listen on a port."""

import os
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
        # Python's own text repeats the address; a name that does not resolve has no number of the system.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(
            f"port {port} is not free on {host} ({reason}); end what uses it, or take another: {remedy}"
        ) from None
