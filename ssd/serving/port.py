"""The address that a server listens on."""

import errno
import ipaddress
import os
import socket

from ssd.errors import UserError


def check_port(host: str, port: int, remedy: str) -> None:
    """Return if a server can listen there; see `listen`."""
    listen(host, port, remedy).close()


def listen(host: str, port: int, remedy: str) -> socket.socket:
    """Take a port: from now on clients connect, and wait until a server accepts them.

    Args:
        host: an address or a name of this machine; of a name, the IPv4 address where it has one.
        remedy: how to take another port.

    Raises:
        UserError: the host is none of this machine, or the port cannot be taken, most often because another
            server has it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host {host}: no address of it is known ({_reason(error)}); needed is one of this machine's, "
            "as 127.0.0.1 or 0.0.0.0"
        ) from None
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        return socket.create_server(address, family=family)
    except OSError as error:
        raise UserError(_explained(error, host, port, remedy)) from None


def _explained(error: OSError, host: str, port: int, remedy: str) -> str:
    reason = _reason(error)
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        own = "127.0.0.1 is this machine alone, 0.0.0.0 every address of it"
        return f"--host {host}: no address of this machine ({reason}); {own}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host}: {reason}; this user may take ports from 1024 on: {remedy}"
    return f"port {port} is not free on {host} ({reason}); end what uses it, or take another: {remedy}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def web_address(host: str, port: int) -> str:
    """The URL of a server; an IPv6 address is put into brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reason(error: Exception) -> str:
    """Python's own text repeats the address; a name that does not resolve has no number of the system."""
    if not isinstance(error, OSError):
        return "no host name"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
