"""A way to the object store that stops in the middle of an upload, so that a process can be killed there."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Gate:
    """Lets `limit` bytes pass to the server, over all connections, then nothing more; answers always pass.

    stalled: set when the limit was reached.
    """

    port: int
    limit: int
    stalled: threading.Event = field(default_factory=threading.Event)
    passed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, content: bytes) -> bytes:
        """The part that may pass."""
        with self.lock:
            admitted = content[: self.limit - self.passed]
            self.passed += len(admitted)
            if len(admitted) < len(content):
                self.stalled.set()
        return admitted


@contextmanager
def stalling_gate(target: int, limit: int) -> Iterator[Gate]:
    """A gate on a port of its own to the port `target` of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    gate = Gate(listener.getsockname()[1], limit)
    open_sockets = [listener]

    def up(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while content := client.recv(1 << 14):
                server.sendall(gate.admit(content))
            server.shutdown(socket.SHUT_WR)

    def down(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while content := server.recv(1 << 16):
                client.sendall(content)
            client.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", target))
                open_sockets.extend([client, server])
                for way in (up, down):
                    threading.Thread(target=way, args=(client, server), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield gate
    finally:
        for each in open_sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
