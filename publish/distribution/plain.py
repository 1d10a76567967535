"""HTTP without TLS and without a proxy, over the standard library.

To import requests takes longer than to publish an image that did not change.
"""

from __future__ import annotations

import http.client
import select
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from ...oci.errors import RegistryError, RegistryUnavailable
from ...oci.wording import plain
from ..deadline import limit
from ..words import clause, words_of
from .answer import PIECE
from .exchange import Body, Headers, Response, StrictResponse
from .urls import PORTS, redacted

_SAFE = "!#$%&'()*+,/:;=?@[]~"  # in a target, besides letters and digits
_INTERIM = b"HTTP/1.1 1"
_IDEMPOTENT = {"GET", "HEAD", "PUT"}


class Plain:
    """Connections without TLS. Thread-safe."""

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[_Connection]] = {}
        self._closed = False

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Response:
        """Send one request and return its response, which the caller closes.

        A connection that the server closed while nobody used it is no failure, if the
        request can be sent again.
        """
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or PORTS["http"])
        target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", _SAFE)
        with _translated(f"{method} {redacted(url)}"):
            if (connection := self._take(address)) is not None:
                try:
                    return self._exchange(connection, method, target, headers, body)
                except ConnectionError:
                    if method not in _IDEMPOTENT or (isinstance(body, Body) and body.touched):
                        raise
            connection = _Connection(address, self._timeout)
            return self._exchange(connection, method, target, headers, body)

    def keep(self, connection: _Connection) -> None:
        """Take back a connection on which another request can be sent."""
        with self._lock:
            if not self._closed:
                self._idle.setdefault(connection.address, []).append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _take(self, address: tuple[str, int]) -> _Connection | None:
        """Return a kept connection that is still open, as far as one can see."""
        while True:
            with self._lock:
                kept = self._idle.get(address)
                connection = kept.pop() if kept else None
            if connection is None or not connection.is_readable():
                return connection
            connection.close()  # its peer closed it, or sends what nobody asked for

    def _exchange(
        self,
        connection: _Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> Response:
        try:
            whole = connection.put(method, target, headers, body)
            return _Response(connection, self if whole else None)
        except BaseException:
            connection.close()
            raise


class _NoConnection(TimeoutError):
    """The time to connect is over."""


class _Connection(http.client.HTTPConnection):
    """One connection; not thread-safe."""

    response_class = StrictResponse

    def __init__(self, address: tuple[str, int], timeout: tuple[float, float]) -> None:
        super().__init__(*address, timeout=timeout[0])
        self.address = address
        self.seconds = timeout[1]

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError as error:
            raise _NoConnection from error
        self.sock.settimeout(self.seconds)

    def is_readable(self) -> bool:
        return _ready(self.sock, select.POLLIN, 0.0) != 0

    def put(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> bool:
        """Send a request; False means that the peer answered, or left, before its end."""
        self.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            self.putheader(name, value)
        if body is not None:
            self.putheader("Content-Length", str(len(body)))
        self.endheaders()
        if body is None:
            return True
        try:
            return _send(self.sock, body, self.seconds)
        except (BrokenPipeError, ConnectionResetError):
            return False

    def answer(self) -> http.client.HTTPResponse:
        """Return the response once its headers are here."""
        response = None
        try:
            with limit(self.sock, self.seconds):
                response = self.getresponse()
        except TimeoutError:
            if response is not None:
                response.close()
            raise
        return response


class _Response:
    def __init__(self, connection: _Connection, pool: Plain | None) -> None:
        self.connection = connection.sock
        self._response = connection.answer()
        self._http = connection
        self._pool = None if self._response.will_close else pool
        self.status = self._response.status
        self.reason = self._response.reason
        self.headers = Headers(self._response.getheaders())

    def read(self, size: int, /) -> bytes:
        response = self._response
        try:
            data = response.read(size)
        except http.client.HTTPException as error:
            raise ConnectionError(_words(error)) from error
        if not data and size and response.length:
            raise ConnectionError(f"{response.length} bytes are missing")
        return data

    def close(self) -> None:
        whole = self._response.isclosed()
        self._response.close()
        if whole and self._pool is not None:
            self._pool.keep(self._http)
        else:
            self._http.close()


def _send(connection: socket.socket, body: bytes | Body, seconds: float) -> bool:
    """Send a body; False means that there was something to read before its end.

    Raises:
        TimeoutError: a `PIECE` was not taken in time.
    """
    events = select.POLLIN | select.POLLOUT
    blocks = iter((body,) if isinstance(body, bytes) else body)
    data = memoryview(b"")
    end, left = time.monotonic() + seconds, PIECE
    while data or (data := memoryview(next(blocks, b""))):
        found = _ready(connection, events, end - time.monotonic())
        if found == 0:
            raise TimeoutError
        if found & ~select.POLLOUT:
            if not connection.recv(len(_INTERIM), socket.MSG_PEEK).startswith(_INTERIM):
                return False
            events = select.POLLOUT  # to be skipped with the answer
            continue
        sent = connection.send(data)
        data = data[sent:]
        left -= sent
        if left <= 0:
            end, left = time.monotonic() + seconds, PIECE
    return True


def _ready(connection: socket.socket, events: int, seconds: float) -> int:
    """Return which events a connection is ready for, at the latest after some time."""
    poll = select.poll()
    poll.register(connection, events)
    found = poll.poll(max(0.0, seconds) * 1000)
    return found[0][1] if found else 0


@contextmanager
def _translated(request: str) -> Generator[None]:
    """Turn what http.client and sockets raise into what the caller can act on."""
    try:
        yield
    except (UnicodeError, http.client.InvalidURL) as error:
        raise RegistryError(request, 0, (), "not a host name") from error
    except http.client.HTTPException as error:
        raise RegistryUnavailable(request, 0, (), _words(error)) from error
    except _NoConnection as error:
        raise RegistryUnavailable(request, 0, (), "no connection came in time") from error
    except TimeoutError as error:
        raise RegistryUnavailable(request, 0, (), "no answer came in time") from error
    except OSError as error:
        raise RegistryUnavailable(request, 0, (), words_of(error)) from error


def _words(error: http.client.HTTPException) -> str:
    return clause(plain(str(error))) or type(error).__name__
