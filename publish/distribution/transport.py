"""HTTP as publishing needs it: timeouts, retries, redirects, bounded bodies, plain errors."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Protocol, Self, TypeVar

from ...oci.errors import InvalidContent, RegistryUnavailable
from ..access import Access
from .answer import Answer
from .endpoint import Endpoint
from .exchange import Body, Carrier
from .plain import Plain
from .proxies import Proxies
from .retries import Retries
from .urls import joined, redacted, same_origin

MAX_REDIRECTS = 5

_REDIRECTS = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Authorizer(Protocol):
    """Gives the requests to one origin what they are authorized by. Thread-safe."""

    def header(self, url: str, scopes: Sequence[str]) -> str | None:
        """Return the Authorization to send first, or None.

        `scopes` says what the request needs, such as `repository:app:pull`.
        """
        ...

    def challenged(self, url: str, challenges: Sequence[str], scopes: Sequence[str]) -> bool:
        """Take the WWW-Authenticate fields of a 401; tell whether `header` is another now."""
        ...

    def asked(self) -> str:
        """Return with which credentials that was, as the end of a message; or nothing."""
        ...


class Transport:
    """Requests to one registry, and to where it leads. Thread-safe.

    Of the environment only the proxies count: no .netrc, no cookies.

    Attributes:
        origin: where the registry answers.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        access: Access,
        sleep: Callable[[float], None] = time.sleep,
        *,
        authorization: Authorizer | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = access.timeout
        self._authorization = authorization or Fixed()
        self._proxies = Proxies(environ)
        self._retries = Retries(sleep)
        self._lock = threading.Lock()
        self._carriers: dict[tuple[str | None, bool] | None, Carrier] = {}
        self.origin = endpoint.origin

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        scopes: Sequence[str] = (),
    ) -> Answer:
        """Send one request, and return its answer; GET and HEAD follow redirects.

        `url` may be relative to the origin. Credentials go to the origin only. When it
        asks for others, and there are some, the request is sent once more.

        Raises:
            RegistryUnavailable: there is no answer.
            RegistryError: there is none, and there will be none later.
            InvalidContent: there are too many redirects, or one to no HTTP URL; or a header
                cannot be sent.
        """
        url = joined(self.origin, url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._authorized(method, url, headers or {}, body, scopes)
            location = answer.headers.get("Location", "")
            if method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or not location:
                return answer
            with answer:
                pass  # read, so that its connection can be used again
            url = joined(url, location)
        raise InvalidContent(f"{method} {redacted(url)}: over {MAX_REDIRECTS} redirects")

    def retrying(self, operation: Callable[[], _T]) -> _T:
        """Return what an idempotent operation does, tried again while that may help.

        Raises:
            RegistryUnavailable: it did not, the wait asked for is too long, or there were
                too many tries in all.
        """
        tries, seconds, renewed = 0, 0.0, False
        while True:
            try:
                result = operation()
            except RegistryUnavailable as error:
                if isinstance(error, _Renewed) and not renewed:
                    renewed = True
                    continue
                tries += 1
                seconds += self._retries.wait(error, tries)
            else:
                if tries:
                    self._retries.restore(tries, seconds)
                return result

    def close(self) -> None:
        """Close every connection."""
        for carrier in self._carriers.values():
            carrier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _authorized(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        scopes: Sequence[str],
    ) -> Answer:
        if not same_origin(url, self.origin):
            return self._send(method, url, headers, body)
        answer = self._asked(method, url, headers, body, scopes)
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return answer
        try:
            challenges = answer.headers.each("WWW-Authenticate")
            if not self._authorization.challenged(url, challenges, scopes):
                answer.asked = self._authorization.asked()
                return answer
        except BaseException:
            answer.close()
            raise
        with answer:
            pass  # read, so that its connection can be used again
        if isinstance(body, Body) and body.touched:
            words = "unauthorized, also with new credentials"
            raise _Renewed(answer.request, answer.status, (), words)
        return self._asked(method, url, headers, body, scopes)

    def _asked(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        scopes: Sequence[str],
    ) -> Answer:
        value = self._authorization.header(url, scopes)
        sent = headers if value is None else {**headers, "Authorization": value}
        answer = self._send(method, url, sent, body)
        if answer.status in _DENIED:
            answer.asked = self._authorization.asked()
        return answer

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> Answer:
        sent = {"Accept-Encoding": "identity", "User-Agent": "ocistow", **headers}
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable()):
                raise InvalidContent(f"{method} {redacted(url)}: {name} is not printable ASCII")
        try:
            response = self._carrier(url).send(method, url, sent, body)
        except RegistryUnavailable:
            if isinstance(body, Body) and body.failure is not None:
                raise body.failure from None  # not the registry's
            raise
        request = f"{method} {redacted(url)}"
        log.debug("%s: %d", request, response.status)
        return Answer(response, request, url, self._timeout[1])

    def _carrier(self, url: str) -> Carrier:
        proxy = self._proxies.proxy(url)
        foreign = not same_origin(url, self.origin)
        key = None if proxy is None and url.startswith("http:") else (proxy, foreign)
        with self._lock:
            carrier = self._carriers.get(key)
            if carrier is None:
                carrier = self._carriers[key] = self._new_carrier(key)
        return carrier

    def _new_carrier(self, key: tuple[str | None, bool] | None) -> Carrier:
        if key is None:
            return Plain(self._timeout)
        from .secure import Secure  # requests takes 70 ms to import

        proxy, foreign = key
        return Secure(self._endpoint, self._timeout, proxy, foreign=foreign)


class _Renewed(RegistryUnavailable):
    """A body went out with credentials that were renewed since: it may be sent again.

    The first time at once; a registry that refuses the new ones, too, is given time.
    """


class Fixed:
    """Sends the same Authorization with every request, or none."""

    def __init__(self, value: str | None = None, asked: str = "") -> None:
        self._value = value
        self._asked = asked

    def header(self, url: str, scopes: Sequence[str]) -> str | None:
        """Return it."""
        return self._value

    def challenged(self, url: str, challenges: Sequence[str], scopes: Sequence[str]) -> bool:
        """Have no other."""
        return False

    def asked(self) -> str:
        """Return what whoever chose the header says."""
        return self._asked
