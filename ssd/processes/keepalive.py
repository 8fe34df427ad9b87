"""TCP keepalive on the connections to other machines, so that one that is gone is noticed in a minute."""

import os
import socket
import sys
from pathlib import Path

LOST_SECONDS = 60
"""How long another machine may be out of reach: a shorter disturbance of the network ends no training."""

NUM_PROBES = 3
"""Keepalive probes that may stay without an answer."""


def keep_alive() -> int:
    """Let Linux end each open TCP connection of this process when its peer's machine is out of reach.

    A process that ends, however, closes its connections, and its peers see it at once. A machine that loses
    its power or its network closes nothing, and neither gloo nor torch's store asks: a peer that waits for
    data from there would wait for the whole timeout of the process group. With keepalive the kernel asks;
    with TCP_USER_TIMEOUT (RFC 5482) it does not repeat for a quarter of an hour what it has sent. It ends the
    connection after LOST_SECONDS, and the exchange fails. The other machine's kernel answers, so a process
    that computes for long, or hangs, is not lost.

    gloo has no such option, so it is set on the sockets that are open: call this when the process group has
    connected. Other systems than Linux are left as they are.

    Returns:
        The number of connections.
    """
    if sys.platform != "linux":
        return 0
    return sum(_keep_alive(int(path.name)) for path in Path("/proc/self/fd").iterdir())


def _keep_alive(descriptor: int) -> bool:
    """Set the options, if this is a TCP connection; returns whether it is one."""
    try:
        connection = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # a file, or the folder that was just listed
        return False
    with connection:
        if (
            connection.family not in (socket.AF_INET, socket.AF_INET6)
            or connection.type != socket.SOCK_STREAM
        ):
            return False
        try:
            connection.getpeername()
        except OSError:  # it listens
            return False
        interval = LOST_SECONDS // (NUM_PROBES + 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, NUM_PROBES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * LOST_SECONDS)
    return True
