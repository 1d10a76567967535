"""HTTP as publishing needs it: timeouts, retries, redirects, bounded bodies, plain errors."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import NoReturn, Self, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ...oci.document import as_object, members, parse_object, string
from ...oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ...oci.wording import plain
from ...store.blobs import READ_SIZE
from ..access import Access
from ..deadline import limit
from ..source import Blob
from ..words import clause

MAX_ERROR_BODY = 64 << 10  # bytes; a registry's word is not a reason to fill memory
PIECE = 64 << 10  # bytes that must come within the timeout: in 60 seconds, 1 KiB/s
MAX_REDIRECTS = 5
TRIES = 3
BACKOFF = 0.25  # seconds before the second try; doubled for each further one
MAX_WAIT = 30.0  # seconds; whoever asks for more gets an error instead

_TEMPORARY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_REDIRECTS = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
_T = TypeVar("_T")


class Body:
    """A blob as the body of a request: its length is known, so it is not sent in chunks."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    def __len__(self) -> int:
        return self._blob.descriptor.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blob)

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Return at most `size` bytes."""
        return self._blob.read(size)


class Answer:
    """An answer whose body is not read yet; the caller closes it.

    Attributes:
        request: method and URL of the request, without credentials or query.
        url: where the answer came from, after redirects.
    """

    def __init__(self, response: requests.Response, request: str) -> None:
        connection = response.raw.connection
        assert isinstance(connection, _Connection)
        self._response = response
        self._connection = connection.used
        self._seconds = connection.seconds
        self.request = request
        self.url = response.url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes of the body, and none only at its end.

        Raises:
            RegistryUnavailable: a `PIECE` did not come in time, or the connection was lost.
        """
        with self._in_time():
            return self._read(min(size, PIECE))

    def read_at_most(self, size: int) -> bytes:
        """Return the body, or its first `size` bytes.

        Raises:
            RegistryUnavailable: all of that did not come in time, or the connection was lost.
        """
        parts: list[bytes] = []
        with self._in_time():
            while size > 0 and (data := self._read(size)):
                parts.append(data)
                size -= len(data)
        return b"".join(parts)

    def expect(self, *statuses: int) -> None:
        """Raise the error that the answer stands for, unless its status is one of these."""
        if self.status not in statuses:
            self._refuse()

    def close(self) -> None:
        """End the exchange; the connection is used again when the body was read whole."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.read_at_most(MAX_ERROR_BODY)
        self.close()

    def _read(self, size: int) -> bytes:
        return bytes(self._response.raw.read(size, decode_content=False))

    @contextmanager
    def _in_time(self) -> Generator[None]:
        try:
            with limit(self._connection, self._seconds):
                yield
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise RegistryUnavailable(self.request, 0, (), "no more data came in time") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            words = f"the connection was lost: {_cause(error)}"
            raise RegistryUnavailable(self.request, 0, (), words) from error

    def _refuse(self) -> NoReturn:
        codes, message = _decode(self.read_at_most(MAX_ERROR_BODY))
        if not codes and not message:
            message = plain(self._response.reason or "unexpected answer").lower()
        if self.status in _TEMPORARY:
            wait = _seconds(self.headers.get("Retry-After", ""))
            raise RegistryUnavailable(self.request, self.status, codes, message, wait)
        raise RegistryError(self.request, self.status, codes, message)


class Transport:
    """Requests to one origin. Thread-safe: each thread has its session.

    Nothing comes from the environment: no proxies, no .netrc, no cookies.
    """

    def __init__(
        self, origin: str, access: Access, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._access = access
        self._sleep = sleep
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []
        self.origin = origin
        if not access.tls_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
    ) -> Answer:
        """Send one request, once, and return its answer; GET and HEAD follow redirects.

        `url` may be relative to the origin. Credentials go to the origin only.

        Raises:
            RegistryUnavailable: there is no answer.
            RegistryError: there is none, and there will be none later.
            InvalidContent: there are too many redirects, or one to no HTTP URL.
        """
        url = joined(self.origin, url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._send(method, url, self._headers(url, headers), body)
            location = answer.headers.get("Location", "")
            if method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            url = joined(url, location)
        raise InvalidContent(f"{method} {redacted(url)}: over {MAX_REDIRECTS} redirects")

    def retrying(self, operation: Callable[[], _T]) -> _T:
        """Return what an idempotent operation does, tried again while that may help.

        Raises:
            RegistryUnavailable: it did not, or the wait asked for is too long.
        """
        for attempt in range(TRIES - 1):
            try:
                return operation()
            except RegistryUnavailable as error:
                if error.retry_after > MAX_WAIT:
                    raise
                self._sleep(max(error.retry_after, BACKOFF * 2**attempt))
        return operation()

    def close(self) -> None:
        """Close every connection."""
        for session in self._sessions:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Answer:
        request = f"{method} {redacted(url)}"
        with _translated(request):
            response = self._session().request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=self._access.timeout,
                verify=self._access.tls_verify,
                allow_redirects=False,
                stream=True,
            )
        return Answer(response, request)

    def _headers(self, url: str, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        sent = {"Accept-Encoding": "identity", "User-Agent": "ocistow", **(headers or {})}
        if self._access.credentials and _origin(urlsplit(url)) == _origin(urlsplit(self.origin)):
            pair = ":".join(self._access.credentials).encode()
            sent["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return sent

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = _Session()
            session.trust_env = False
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.mount("http://", _Adapter())
            session.mount("https://", _Adapter())
            self._local.session = session
            with self._lock:
                self._sessions.append(session)
        return session


class _Session(requests.Session):
    """Leaves redirects alone: one that is not followed would be parsed and read whole."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class _Connection(HTTPConnection):
    """A connection whose peer has to send all headers of an answer in time.

    Attributes:
        used: the socket of the last answer, also when that closed the connection.
        seconds: the timeout of that answer.
    """

    used: socket.socket
    seconds: float

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's
        assert isinstance(self.timeout, int | float)
        self.used, self.seconds = self.sock, self.timeout
        with limit(self.used, self.seconds):
            return super().getresponse()


class _TLSConnection(_Connection, HTTPSConnection):
    pass


# The protocols of ConnectionCls want of a class what urllib3's own do not have either.


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType]


class _Adapter(HTTPAdapter):
    """Sends bodies in larger blocks than 16 KiB, and never retries by itself."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **_: object
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=READ_SIZE)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def joined(base: str, url: str) -> str:
    """Return the URL that one means where `base` is.

    Raises:
        InvalidContent: it is no HTTP URL.
    """
    try:
        whole = urljoin(base, url)
        parts = urlsplit(whole)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return whole
    except ValueError:
        pass
    raise InvalidContent(f"not an HTTP URL: {plain(url)!r}")


def redacted(url: str) -> str:
    """Return a URL as it may be shown: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def _translated(request: str) -> Generator[None]:
    """Turn what requests raises into what the caller can act on."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RegistryError(request, 0, (), _cause(error)) from error
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
        if isinstance(inner, OSError) and inner.strerror:
            words = inner.strerror
        inner = _below(inner)
    return clause(words)


def _below(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None)  # urllib3's MaxRetryError
    candidates = [reason, error.__cause__, *error.args, error.__context__]
    return next((c for c in candidates if isinstance(c, BaseException)), None)


def _decode(body: bytes) -> tuple[tuple[str, ...], str]:
    """Return codes and words of an error body; distribution-spec, "Error Codes"."""
    what = "error"
    codes: dict[str, None] = {}
    words: dict[str, None] = {}
    try:
        for entry in members(parse_object(body, what).get("errors"), what):
            error = as_object(entry, what)
            codes[plain(string(error, "code", what))] = None
            words[plain(string(error, "message", what))] = None
    except InvalidContent:
        return (), ""  # a page of a proxy, say: the status has to do
    return tuple(filter(None, codes)), plain("; ".join(filter(None, words)))


def _seconds(retry_after: str) -> float:
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
