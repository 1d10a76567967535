"""HTTP over TLS, and HTTP through a proxy, over requests.

Its adapter is used without a session: that would add cookies, redirects and the
environment.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport

from ...oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ...oci.wording import plain
from ...store.reading import READ_SIZE
from ..deadline import limit
from ..words import clause
from .endpoint import Endpoint
from .exchange import Body, Headers, Response, StrictResponse
from .urls import redacted

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, SupportsRead
    from requests.adapters import _HostParams, _PoolKwargs  # pyright: ignore[reportPrivateUsage] - of what is overridden

POOL = 32  # idle connections kept for one host

_REFUSED = re.compile(r"tunnel connection failed: 4\d\d ")  # how http.client puts it


class Secure:
    """Connections trusted as an endpoint says, directly or through a proxy. Thread-safe.

    With `foreign` they lead to other hosts, which do not see our certificate.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: tuple[float, float],
        proxy: str | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        self._timeout = timeout
        self._proxies = {"all": proxy} if proxy else {}
        self._proxy = f"proxy {urlsplit(proxy).netloc.rpartition('@')[2]}" if proxy else "proxy"
        if not endpoint.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context = _context(endpoint, None if foreign else endpoint.certificate)
        self._adapter = _Adapter(context, timeout[1])

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Response:
        """Send one request and return its response, which the caller closes."""
        with _translated(f"{method} {redacted(url)}", self._proxy):
            prepared = requests.Request(method, url, headers, data=body).prepare()
            return _Response(
                self._adapter.send(
                    prepared, stream=True, timeout=self._timeout, proxies=self._proxies
                )
            )

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._adapter.close()


class _Response:
    def __init__(self, response: requests.Response) -> None:
        raw = response.raw
        assert isinstance(raw.connection, _Connection)
        self._response = response
        self.connection = raw.connection.used
        self.status = response.status_code
        self.reason = response.reason or ""
        self.headers = Headers(raw.headers.items())

    def read(self, size: int, /) -> bytes:
        try:
            return bytes(self._response.raw.read(size, decode_content=False))
        except urllib3.exceptions.ReadTimeoutError as error:
            raise TimeoutError from error
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(_cause(error)) from error

    def close(self) -> None:
        self._response.close()


class _Connection(HTTPConnection):
    """A connection whose peer has to take a body, and to send all headers, in time.

    Attributes:
        seconds: the time for that; the timeout that urllib3 sets is the one to connect.
        used: the socket of the last answer, also when that closed the connection.
    """

    response_class = StrictResponse
    seconds: float
    used: socket.socket

    def send(
        self, data: SupportsRead[bytes] | Iterable[ReadableBuffer] | ReadableBuffer | str
    ) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.seconds)
        try:
            super().send(data)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
            raise BrokenPipeError from error  # urllib3 then looks for an answer

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's
        self.used = _socket(self.sock)
        with limit(self.used, self.seconds):
            return super().getresponse()

    def _tunnel(self) -> None:
        with limit(_socket(self.sock), self.seconds):
            super()._tunnel()


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Options(TypedDict):
    blocksize: int
    ssl_context: ssl.SSLContext


class _Adapter(HTTPAdapter):
    """Has one TLS context, sends larger blocks than 16 KiB, and never retries by itself."""

    def __init__(self, context: ssl.SSLContext, seconds: float) -> None:
        self._options: _Options = {"blocksize": READ_SIZE, "ssl_context": context}
        self._pools = _pools(seconds)
        super().__init__(pool_maxsize=POOL)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **_: object
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **self._options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **_: object) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **self._options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: object, cert: object = None
    ) -> tuple[_HostParams, _PoolKwargs]:
        verify = self._options["ssl_context"].verify_mode != ssl.CERT_NONE
        host, options = super().build_connection_pool_key_attributes(request, verify)
        return host, {"cert_reqs": options["cert_reqs"]}

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Leave it to the context."""


def _pools(seconds: float) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Connection(_Connection):
        pass

    class TLSConnection(_TLSConnection):
        pass

    Connection.seconds = TLSConnection.seconds = seconds

    # The protocols of ConnectionCls want of a class what urllib3's own do not have either.

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection  # pyright: ignore[reportAssignmentType]

    class TLSPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TLSConnection  # pyright: ignore[reportAssignmentType]

    return {"http": Pool, "https": TLSPool}


def _context(endpoint: Endpoint, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    """Return what connections trust, and what they show.

    Raises:
        InvalidContent: a file has no certificate, or no key.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)  # a system without any
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    file: object = None
    try:
        for file in endpoint.authorities:
            context.load_verify_locations(file)
        if certificate is not None:
            file = f"{certificate[0]} and {certificate[1]}"
            # without a password OpenSSL would ask the terminal for it
            context.load_cert_chain(*certificate, password=lambda: "")
    except ssl.SSLError as error:
        raise InvalidContent(f"{file}: no PEM of a certificate: {_cause(error)}") from error
    return context


def _socket(connection: socket.socket | SSLTransport) -> socket.socket:
    """Return the socket itself: TLS inside the TLS of a proxy is no socket."""
    return connection.socket if isinstance(connection, SSLTransport) else connection


@contextmanager
def _translated(request: str, proxy: str) -> Generator[None]:
    """Turn what requests raises into what the caller can act on; `proxy` is its name."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RegistryError(request, 0, (), _cause(error)) from error
    except requests.exceptions.ProxyError as error:
        words = _cause(error)
        kind = RegistryError if _REFUSED.match(words) else RegistryUnavailable
        raise kind(request, 0, (), f"{proxy}: {words}") from error
    except requests.exceptions.ConnectTimeout as error:
        raise RegistryUnavailable(request, 0, (), "no connection came in time") from error
    except requests.exceptions.Timeout as error:
        raise RegistryUnavailable(request, 0, (), "no answer came in time") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise RegistryUnavailable(request, 0, (), _cause(error)) from error
    except (UnicodeError, urllib3.exceptions.LocationParseError) as error:
        raise RegistryError(request, 0, (), "not a host name") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise RegistryError(request, 0, (), _cause(error)) from error


def _cause(error: BaseException) -> str:
    """Return the words of the innermost error that the system or TLS gave."""
    words = plain(str(error))
    inner: BaseException | None = error
    for _ in range(16):
        if inner is None:
            break
        if isinstance(inner, ssl.SSLCertVerificationError):
            return inner.verify_message
        if isinstance(inner, OSError):
            words = inner.strerror or plain(str(inner))
        inner = _below(inner)
    return clause(words)


def _below(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None)  # urllib3's MaxRetryError
    candidates = [reason, error.__cause__, *error.args]
    return next((c for c in candidates if isinstance(c, BaseException)), None)
