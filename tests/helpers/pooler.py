"""A pooler in transaction mode, in front of PostgreSQL: many clients, one session of the server.

It does what PgBouncer does with ``pool_mode = transaction`` and one connection: a client has the
session for a transaction, and then the next one has it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: First words of a client that asks for TLS, and of one that cancels.
_TLS, _CANCEL = 80877103, 80877102


class _Pooler:
    def __init__(self, port: int) -> None:
        self._port = port
        self._session: socket.socket | None = None
        self._greeting = b""
        self._turn = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                startup = self._startup(client)
                if startup is None:
                    return
                with self._turn:
                    if self._session is None:
                        self._session = socket.create_connection(("127.0.0.1", self._port))
                        self._session.sendall(startup)
                        self._greeting, _ = self._until_ready(None)
                client.sendall(self._greeting)
                while self._transaction(client):
                    pass
            except OSError:
                return

    def _startup(self, client: socket.socket) -> bytes | None:
        while True:
            head = _exactly(client, 8)
            size, code = struct.unpack("!II", head)
            if code == _CANCEL:
                return None
            if code != _TLS:
                return head + _exactly(client, size - 8)
            client.sendall(b"N")

    def _transaction(self, client: socket.socket) -> bool:
        """One transaction of a client; False when it has left."""
        kind, message = _message(client)
        if kind == b"X":
            return False
        with self._turn:
            while True:
                assert self._session is not None
                self._session.sendall(message)
                if kind in (b"Q", b"S"):  # a query, or the end of a batch of messages
                    _, status = self._until_ready(client)
                    if status == b"I":
                        return True
                kind, message = _message(client)
                if kind == b"X":
                    return False

    def _until_ready(self, client: socket.socket | None) -> tuple[bytes, bytes]:
        assert self._session is not None
        everything = b""
        while True:
            kind, message = _message(self._session)
            everything += message
            if client is not None:
                client.sendall(message)
            if kind == b"Z":
                return everything, message[-1:]


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    (size,) = struct.unpack("!I", head[1:])
    return head[:1], head + _exactly(source, size - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise OSError("it has left")
        data += part
    return data


@contextmanager
def transaction_pooler(port: int) -> Iterator[int]:
    """A pooler in front of the server at a port of this machine.

    Yields:
        The pooler's own port.
    """
    pooler = _Pooler(port)
    threading.Thread(target=pooler.serve, daemon=True).start()
    try:
        yield pooler.listener.getsockname()[1]
    finally:
        pooler.listener.close()
