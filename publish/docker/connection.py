"""HTTP over a Unix socket, TCP or TLS, and the errors of all three in words."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ...oci.errors import RegistryError, RegistryUnavailable
from ...store.reading import READ_SIZE
from ..deadline import limit
from ..words import words_of
from .host import Host


@dataclass(frozen=True, slots=True)
class _Asked:
    connection: http.client.HTTPConnection
    socket: socket.socket
    answer: http.client.HTTPResponse


class Connections:
    """Connections to one host, of which one is kept between requests. Not thread-safe.

    What fails to answer raises RegistryUnavailable, and what cannot be reached whoever
    tries again RegistryError.
    """

    def __init__(self, host: Host, timeout: tuple[float, float]) -> None:
        self._host = host
        self._timeout = timeout
        self._tls = host.certificates.context() if host.certificates else None
        self._idle: http.client.HTTPConnection | None = None
        self._reserve: list[socket.socket] = []

    def reserve(self, count: int) -> None:
        """Connect `count` times ahead, for when this process may not any more."""
        with self._translated():
            while len(self._reserve) < count:
                self._reserve.append(self._connect().sock)

    def close(self) -> None:
        """Close the connection that was kept, and what was not needed of the reserve."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None
        while self._reserve:
            self._reserve.pop().close()

    @contextmanager
    def answer(self, method: str, path: str) -> Generator[http.client.HTTPResponse]:
        """Ask without a body; all of the answer has to be read in the block, and in time."""
        with self._translated():
            asked = self._ask(method, path)
            try:
                with limit(asked.socket, self._timeout[1]), asked.answer as answer:
                    yield answer
                    reusable = answer.isclosed() and not answer.will_close
            except BaseException:
                asked.connection.close()
                raise
            if reusable:
                self._idle = asked.connection
            else:
                asked.connection.close()

    @contextmanager
    def opened(self) -> Generator[http.client.HTTPConnection]:
        """Connect anew for the block."""
        with self._translated():
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _ask(self, method: str, path: str) -> _Asked:
        """Ask over the connection that was kept, unless the host closed it meanwhile."""
        if self._idle is not None:
            connection, self._idle = self._idle, None
            try:
                return self._request(connection, method, path)
            except ConnectionError:  # also http.client's RemoteDisconnected
                pass
        return self._request(self._connect(), method, path)

    def _request(self, connection: http.client.HTTPConnection, method: str, path: str) -> _Asked:
        used = connection.sock  # which the connection forgets when the answer will end it
        try:
            with limit(used, self._timeout[1]):
                connection.request(method, path)
                return _Asked(connection, used, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("docker")
        try:
            connection.sock = self._socket()
        except UnicodeError as error:  # of the codec for host names
            raise RegistryError(str(self._host), 0, (), "not a host name") from error
        except (PermissionError, ssl.SSLError) as error:
            if isinstance(error, PermissionError) and self._reserve:
                connection.sock = self._reserve.pop()
                return connection
            raise RegistryError(str(self._host), 0, (), _words(error)) from error
        except OSError as error:
            raise RegistryUnavailable(str(self._host), 0, (), words_of(error)) from error
        return connection

    def _socket(self) -> socket.socket:
        connect, read = self._timeout
        address = self._host.address
        if isinstance(address, str):
            found = socket.socket(socket.AF_UNIX)
            try:
                found.settimeout(connect)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READ_SIZE)  # twice as fast
                found.connect(address)
            except BaseException:
                found.close()
                raise
        else:
            found = socket.create_connection(address, connect)
            if self._tls is not None:
                found = self._secured(self._tls, found, address[0])
        found.settimeout(read)
        return found

    def _secured(self, tls: ssl.SSLContext, plain: socket.socket, name: str) -> socket.socket:
        try:
            with limit(plain, self._timeout[0]):
                return tls.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Turn what fails in the block into what the caller can act on."""
        name = str(self._host)
        try:
            yield
        except TimeoutError as error:
            raise RegistryUnavailable(name, 0, (), "no answer came in time") from error
        except ssl.SSLError as error:  # with TLS 1.3, refused certificates show only now
            raise RegistryError(name, 0, (), _words(error)) from error
        except ConnectionError as error:
            raise RegistryUnavailable(name, 0, (), words_of(error)) from error
        except http.client.HTTPException as error:
            words = f"the connection was lost: {type(error).__name__}"
            raise RegistryUnavailable(name, 0, (), words) from error


def _words(error: OSError) -> str:
    """Return what the system or OpenSSL said, without the place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'no TLS was spoken').replace('_', ' ').lower()}"
    return words_of(error)
