"""A link to a server that can be cut where it hurts."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"  # PostgreSQL's protocol: Query
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"  # CommandComplete


class Relay:
    """Carries bytes between clients at `port` and a server; a context manager."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.open = True  # new links are made
        self.swallow = b""  # the next data with these bytes never comes: the link is cut in its place
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._kept: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._listener)
        self._kept.clear()
        self.cut()

    def cut(self) -> None:
        """Cut every link."""
        for client, server in self._links:
            _end(client)
            _end(server)

    def forget(self) -> None:
        """Cut every link so that only the clients see it, as when a router has forgotten them."""
        self._kept = {server for _, server in self._links}
        for client, _ in self._links:
            _end(client)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                client, _ = self._listener.accept()
                if not self.open:
                    _end(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except ConnectionRefusedError:
                    _end(client)
                    continue
                self._links.append((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.swallow and self.swallow in data:
                    self.swallow = b""
                    break
                target.sendall(data)
        for one in {source, target} - self._kept:
            _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
