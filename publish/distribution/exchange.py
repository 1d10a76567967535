"""A request and its response, whatever carries them."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from ...store.reading import READ_SIZE
from ..source import Blob


class Body:
    """The next bytes of a blob as the body of a request, whose length is known thereby.

    Attributes:
        touched: whether some of it was read, so that it cannot be sent again.
        failure: what the system said when it could not be read.
    """

    def __init__(self, blob: Blob, size: int) -> None:
        self._blob = blob
        self._size = self._left = size
        self.touched = False
        self.failure: OSError | None = None

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Return at most `size` bytes."""
        self.touched = True
        try:
            data = self._blob.read(min(size, self._left)) if self._left else b""
        except OSError as error:
            self.failure = error
            raise
        self._left -= len(data)
        return data


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; those of one name are one list (RFC 9110, 5.3)."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._fields[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def each(self, name: str) -> tuple[str, ...]:
        """Return the fields of one name, as they came."""
        return tuple(self._fields.get(name.lower(), ()))


class Response(Protocol):
    """A response whose headers are here and whose body is still to be read.

    Attributes:
        status: its code.
        reason: the words after that.
        headers: its header fields.
        connection: shutting it down ends a read; it is not used otherwise.
    """

    status: int
    reason: str
    headers: Headers
    connection: socket.socket

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes of the body, and none only at its end.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection was lost, or this is no HTTP.
        """
        ...

    def close(self) -> None:
        """End the exchange; the connection is used again when the body was read whole."""
        ...


class Carrier(Protocol):
    """Takes requests to any host, and keeps connections for further ones. Thread-safe."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Response:
        """Send one request and return its response, which the caller closes.

        A response that comes before the whole body went out is returned like any other.

        Raises:
            RegistryUnavailable: there is no response.
            RegistryError: there is none, and there will be none later.
        """
        ...

    def close(self) -> None:
        """Close every connection that is not in use."""
        ...


class StrictResponse(http.client.HTTPResponse):
    """Takes neither headers that are cut off for whole, nor a negative size for a chunk's.

    To its parent, the end of a connection ends headers, and a chunk of size -1 is all
    that ever comes.
    """

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str = ""
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._lines = _Lines(self.fp.detach())
        self.fp = self._lines

    def begin(self) -> None:
        """Read the headers.

        Raises:
            RemoteDisconnected: they have no end.
        """
        super().begin()
        if self._lines.last not in {b"\r\n", b"\n"}:
            self.close()
            raise http.client.RemoteDisconnected("remote end closed connection in its headers")

    def read(self, amt: int | None = None) -> bytes:
        """Return at most `amt` bytes."""
        if amt is None or not self.chunked:
            return super().read(amt)
        buffer = bytearray(amt)
        count = self.readinto(buffer)
        return bytes(memoryview(buffer)[:count])


class _Lines(io.BufferedReader):
    """Remembers the last line that was read."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last
