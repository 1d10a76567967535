"""What faults do to the bytes of an answer."""

from __future__ import annotations

import io
import select
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .exchange import READ_SIZE, Request
from .faults import Action, Cut, Drip

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Reset(Exception):
    """A fault ends the connection here."""


class Close(Exception):
    """A fault ends the connection here, in good order."""


class Writer(io.BufferedIOBase):
    """Writes answers to a connection, and misbehaves where it is about single bytes."""

    def __init__(
        self,
        out: io.BufferedIOBase,
        connection: socket.socket,
        action: Action | None,
        request: Request,
    ) -> None:
        self._out = out
        self._connection = connection
        self._action = action
        self._request = request

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it, or what the fault lets through.

        Raises:
            Reset, Close: the connection ends here.
        """
        view = memoryview(data)
        match self._action:
            case Cut(after, hang):
                view = view[: max(0, after - self._request.answered)]
                self._put(view)
                if self._request.answered == after:
                    if hang:
                        wait_for_end(self._connection)
                    raise Close
            case Drip(pause, after):
                fast = max(0, after - self._request.answered)
                self._put(view[:fast])
                for at in range(fast, len(view)):
                    self._put(view[at : at + 1])
                    if select.select([self._connection], [], [], pause)[0]:
                        raise Reset  # the client left, or the registry closes
            case _:
                self._put(view)
        return len(view)

    def _put(self, view: memoryview) -> None:
        self._out.write(view)
        self._request.answered += len(view)


def wait_for_end(connection: socket.socket) -> None:
    """Wait until the client leaves, or the registry closes."""
    while connection.recv(READ_SIZE):
        pass


def flipped(chunks: Iterable[bytes], at: int) -> Iterator[bytes]:
    """Yield chunks with the byte at an offset inverted."""
    for data in chunks:
        if 0 <= at < len(data):
            yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        else:
            yield data
        at -= len(data)


def beginning(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes, and ask for no more."""
    for data in chunks:
        yield data[:size]
        size -= min(size, len(data))
        if not size:
            return
