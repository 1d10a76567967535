"""What a registry answers, as an object and as an error."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NoReturn, Self

from ...oci.document import as_object, members, parse_object, string
from ...oci.errors import InvalidContent, RegistryError, RegistryUnavailable
from ...oci.wording import plain
from ..deadline import limit
from ..words import words_of
from .exchange import Response

MAX_ERROR_BODY = 64 << 10  # bytes; a registry's word is not a reason to fill memory
PIECE = 64 << 10  # bytes that must come within the timeout: in 60 seconds, 1 KiB/s

_TEMPORARY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_ASKS_TO_WAIT = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


class Answer:
    """An answer whose body is not read yet; the caller closes it.

    Attributes:
        request: method and URL of the request, without credentials or query.
        url: where the answer came from, after redirects.
        status: its code.
        headers: its header fields.
        asked: with which credentials, as the end of a message; may be empty.
    """

    def __init__(self, response: Response, request: str, url: str, seconds: float) -> None:
        self._response = response
        self._seconds = seconds
        self.request = request
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self.asked = ""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes of the body, and none only at its end.

        Raises:
            RegistryUnavailable: a `PIECE` did not come in time, or the connection was lost.
        """
        with self._in_time():
            return self._response.read(min(size, PIECE))

    def read_at_most(self, size: int) -> bytes:
        """Return the body, or its first `size` bytes.

        Raises:
            RegistryUnavailable: all of that did not come in time, or the connection was lost.
        """
        parts: list[bytes] = []
        with self._in_time():
            while size > 0 and (data := self._response.read(min(size, PIECE))):
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
        try:
            if kind is None:
                self.read_at_most(MAX_ERROR_BODY)
        finally:
            self.close()

    @contextmanager
    def _in_time(self) -> Generator[None]:
        try:
            with limit(self._response.connection, self._seconds):
                yield
        except TimeoutError as error:
            raise RegistryUnavailable(self.request, 0, (), "no more data came in time") from error
        except OSError as error:
            words = f"the connection was lost: {words_of(error)}"
            raise RegistryUnavailable(self.request, 0, (), words) from error

    def _refuse(self) -> NoReturn:
        codes, message = _decode(self.read_at_most(MAX_ERROR_BODY))
        if not codes and not message:
            message = plain(self._response.reason or "unexpected answer").lower()
        message = ", ".join(filter(None, (message, self.asked)))
        if self.status in _TEMPORARY:
            asked = self.headers.get("Retry-After", "") if self.status in _ASKS_TO_WAIT else ""
            raise RegistryUnavailable(self.request, self.status, codes, message, _seconds(asked))
        raise RegistryError(self.request, self.status, codes, message)


def _decode(body: bytes) -> tuple[tuple[str, ...], str]:
    """Return codes and words of an error body; distribution-spec, "Error Codes".

    Token servers have other members: those of RFC 6749, 5.2, or of no specification.
    """
    what = "error"
    codes: dict[str, None] = {}
    words: dict[str, None] = {}
    try:
        document = parse_object(body, what)
        for entry in members(document.get("errors"), what):
            error = as_object(entry, what)
            codes[plain(string(error, "code", what))] = None
            words[plain(string(error, "message", what))] = None
        if not codes:
            for member in ("error", "error_description", "message", "details"):
                words[plain(string(document, member, what))] = None
    except InvalidContent:
        return (), ""  # a page of a proxy, say: the status has to do
    return tuple(filter(None, codes)), plain("; ".join(filter(None, words)))


def _seconds(retry_after: str) -> float:
    """Return how long to wait, given a number of seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    if not retry_after:
        return 0.0
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
