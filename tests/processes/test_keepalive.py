"""Keepalive on the connections of a process."""

import socket

from ssd.processes.keepalive import LOST_SECONDS, keep_alive


def options(connection: socket.socket) -> tuple[bool, int, int]:
    """Whether keepalive is on; seconds until it ends a silent connection; the same for one that sends."""
    idle, interval, probes, sending = (
        connection.getsockopt(socket.IPPROTO_TCP, option)
        for option in (
            socket.TCP_KEEPIDLE,
            socket.TCP_KEEPINTVL,
            socket.TCP_KEEPCNT,
            socket.TCP_USER_TIMEOUT,
        )
    )
    is_on = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    return is_on, idle + interval * probes, sending // 1000


def test_open_connections_end_when_the_other_machine_is_out_of_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        assert keep_alive() >= 2
        for connection in (client, accepted):
            assert options(connection) == (True, LOST_SECONDS, LOST_SECONDS)
        client.sendall(b"x")
        assert accepted.recv(1) == b"x", "they are still open"


def test_other_files_and_sockets_are_left_alone() -> None:
    before = keep_alive()
    first, second = socket.socketpair()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect(("127.0.0.1", 9))
    with first, second, udp, socket.create_server(("127.0.0.1", 0)) as listening:
        assert keep_alive() == before
        assert not options(listening)[0]
