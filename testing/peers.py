"""Peers on loopback that do what a test wrote down, connection by connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

LIMIT = 60.0  # seconds after which a peer gives up, so that a failure is no hang

Script = Callable[[socket.socket], object]


@contextmanager
def scripted(*scripts: Script) -> Generator[str]:
    """Run the first script on the first connection, and so on; yield `127.0.0.1:PORT`.

    A connection is closed after its script, with a reset if there is something it did
    not read. After the last one nobody listens any more. What a script raises is raised
    when the block is left, but for a client that went.
    """
    failures: list[BaseException] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for script in scripts:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # the block was left
                with connection, suppress(ConnectionError):
                    connection.settimeout(LIMIT)
                    try:
                        script(connection)
                    except AssertionError as error:
                        failures.append(error)
                        return

    thread = threading.Thread(target=serve, name="peer")
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    thread.start()
    try:
        yield host
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for failure in failures:
        raise failure


def head_of(connection: socket.socket) -> bytes:
    """Read the head of a request, and nothing of its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = connection.recv(1)
        assert data, "the client left in the middle of a head"
        head += data
    return head


def answering(*answers: bytes) -> Script:
    """Return a script that gives these answers to as many requests without a body."""

    def script(connection: socket.socket) -> None:
        for answer in answers:
            head_of(connection)
            connection.sendall(answer)

    return script
