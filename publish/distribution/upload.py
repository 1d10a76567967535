"""Uploading one blob: in one piece or in chunks, and on from where the registry stands.

What a registry keeps of a request that broke off differs. The specification lets it keep
all that came; distribution 2.8 throws the session away, unless nothing of the request
came at all. So large blobs go in chunks, each of which is safe once it was answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import quote

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import DigestMismatch, InvalidContent, RegistryError, RegistryUnavailable
from ..source import Blob, Source
from .answer import Answer
from .exchange import Body
from .transport import Transport
from .urls import joined

LARGE = 64 << 20  # bytes of the smallest blob that goes in chunks and whose session is kept
CHUNK = 32 << 20  # bytes of the first chunk; 8 MiB and more measured as fast as one piece
MOST = 256 << 20  # chunks double up to that, so that round trips do not add up
LEAST = 512 << 10  # what breaks off or is too large is cut down to that; nginx takes 1 MiB
RECOVERIES = 3  # refusals of one blob after which another way was found

_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_WRONG = "DIGEST_INVALID"
_OUT_OF_ORDER = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
_NOT_IN_ONE_PIECE = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    _TOO_LARGE,
    _OUT_OF_ORDER,
}
_BINARY = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_LENGTH = re.compile(r"\d{1,12}")


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that a registry waits for.

    Attributes:
        url: where the bytes go; it may carry what lets one write there.
        least: bytes that each chunk but the last must have.
    """

    url: str
    least: int = 0

    @classmethod
    def begun(cls, answer: Answer) -> Session:
        """Read the answer that began it (end-4a, end-11).

        Raises:
            InvalidContent: it does not say where.
        """
        location = answer.headers.get("Location", "")
        if not location:
            raise InvalidContent(f"{answer.request}: no Location for the upload")
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        url = joined(answer.url, location)
        return cls(url, int(least) if _LENGTH.fullmatch(least) else 0)


class Sessions(Protocol):
    """Keeps the sessions of large blobs for the next process, should this one be killed."""

    def note(self, digest: Digest, url: str) -> None:
        """Remember the session of a blob, or its latest URL."""
        ...

    def take(self, digest: Digest) -> str | None:
        """Return the session of a blob that nobody writes to."""
        ...

    def leave(self, digest: Digest) -> None:
        """Let somebody else have it."""
        ...

    def forget(self, digest: Digest) -> None:
        """Forget it: it ended."""
        ...


class Upload:
    """One blob on its way into a repository. Not thread-safe; run it once.

    The registry checks the digest of the whole, also of what another process sent. When
    it finds a blob wrong that came in several turns, all of it is sent once more.
    """

    def __init__(
        self,
        transport: Transport,
        begin: Callable[[], Session],
        has_blob: Callable[[], bool],
        descriptor: Descriptor,
        source: Source,
        sessions: Sessions | None = None,
    ) -> None:
        self._transport = transport
        self._begin = begin
        self._has_blob = has_blob
        self._descriptor = descriptor
        self._source = source
        self._in_chunks = descriptor.size >= LARGE
        self._sessions = sessions if self._in_chunks else None
        self._session: Session | None = None
        self._blob: Blob | None = None
        self._at = 0  # bytes that the registry has
        self._lost = False  # an answer: the registry has to say where it stands
        self._committed = False  # or perhaps
        self._asked = False  # where it stands, and nothing arrived since
        self._in_turns = False  # it may have bytes of a request that broke off
        self._chunk, self._most = CHUNK, MOST
        self._left = RECOVERIES

    def run(self, session: Session | None = None) -> None:
        """Send the blob, into a session that is still empty or that is begun here.

        Raises:
            NotFound: the source lacks it.
            InvalidContent: it has another size, or the registry states another digest.
            RegistryError: the registry does not take it.
        """
        digest = self._descriptor.digest
        if self._sessions is not None and (url := self._sessions.take(digest)) is not None:
            self._session, self._lost = Session(url), True
        elif session is not None:
            self._enter(session)
        try:
            while not self._transport.retrying(self._step):
                pass
        except BaseException:
            if self._sessions is not None:
                self._sessions.leave(digest)
            raise
        finally:
            self._close()
        if self._sessions is not None:
            self._sessions.forget(digest)

    def _step(self) -> bool:
        """Do what comes next; tell whether that was the last."""
        if self._lost:
            if self._committed and self._has_blob():
                return True  # only the answer was lost
            self._ask()
        if self._session is None:
            self._enter(self._begin())
        session = self._session
        assert session is not None
        self._lost = True  # until there is an answer
        try:
            if self._in_chunks and self._at < self._descriptor.size:
                self._send_chunk(session)
                done = False
            else:
                self._commit(session)
                done = True
        except RegistryUnavailable:
            self._close()
            raise
        except RegistryError as error:
            self._close()
            self._recover(error)
            return False
        self._lost = self._asked = False
        return done

    def _enter(self, session: Session) -> None:
        self._session, self._at = session, 0
        self._lost = self._committed = self._asked = self._in_turns = False
        if self._sessions is not None:
            self._sessions.note(self._descriptor.digest, session.url)

    def _ask(self) -> None:
        """Learn how much the registry has (end-13); without an answer, begin anew."""
        assert self._session is not None
        self._lost = self._committed = False
        self._asked = True
        try:
            with self._transport.request("GET", self._session.url) as answer:
                answer.expect(HTTPStatus.NO_CONTENT)
                self._stand(answer, 0, self._descriptor.size)
        except RegistryUnavailable:
            self._lost = True
            raise
        except (RegistryError, InvalidContent):
            self._session = None
            return
        self._in_turns = True  # even at 0, which is also what one byte is called
        if self._at:
            self._in_chunks = True
        self._smaller()

    def _send_chunk(self, session: Session) -> None:
        size = min(max(self._chunk, session.least), self._descriptor.size - self._at)
        span = f"{self._at}-{self._at + size - 1}"
        body = Body(self._opened(), size)
        headers = {**_BINARY, "Content-Range": span}
        with self._transport.request("PATCH", session.url, headers, body) as answer:
            answer.expect(HTTPStatus.ACCEPTED)
            end = self._at + size
            self._stand(answer, self._at + 1, end)
        if self._at < end:  # it may take less, but not for ever
            self._left -= 1
            if self._left < 0:
                raise InvalidContent(f"{answer.request}: it takes less than it is sent")
        self._chunk = min(2 * self._chunk, self._most)

    def _stand(self, answer: Answer, least: int, most: int) -> None:
        """Take over where the registry says that it stands, and where the rest goes.

        Raises:
            InvalidContent: it cannot stand there.
        """
        assert self._session is not None
        match = _RANGE.fullmatch(answer.headers.get("Range", ""))
        last = int(match[1]) if match else 0
        at = last + 1 if last else 0  # "0-0" is distribution's word for no bytes
        if not least <= at <= most:
            raise InvalidContent(f"{answer.request}: {at} bytes are there, not {least} to {most}")
        self._at = at
        if location := answer.headers.get("Location", ""):
            self._session = Session(joined(answer.url, location), self._session.least)
            if self._sessions is not None:
                self._sessions.note(self._descriptor.digest, self._session.url)

    def _commit(self, session: Session) -> None:
        """Send all of it, or only its digest when its bytes are there (end-6)."""
        digest = self._descriptor.digest
        url = f"{session.url}{'&' if '?' in session.url else '?'}digest={quote(str(digest))}"
        rest = self._descriptor.size - self._at
        body = Body(self._opened(), rest) if rest else b""
        self._committed = True
        with self._transport.request("PUT", url, _BINARY, body) as answer:
            answer.expect(HTTPStatus.CREATED)
            check_stated(answer.headers, digest)

    def _recover(self, error: RegistryError) -> None:
        """Find another way, or raise the error again."""
        self._left -= 1
        whole = not self._in_chunks and self._descriptor.size > 0
        if self._left < 0:
            raise error
        if whole and error.status in _NOT_IN_ONE_PIECE and _WRONG not in error.codes:
            self._in_chunks = anew = True
            self._smaller()
            self._most = self._chunk
        elif error.status == HTTPStatus.NOT_FOUND and self._committed:
            return  # that may have been the second try of a connection that was lost
        elif error.status == HTTPStatus.NOT_FOUND or (_WRONG in error.codes and self._in_turns):
            anew = True
        elif error.status == _OUT_OF_ORDER:
            anew = self._asked  # and it says now that it stands elsewhere
        elif error.status == _TOO_LARGE and self._smaller():
            self._most = self._chunk
            anew = False
        else:
            raise error
        self._committed = False
        if anew:
            self._session, self._lost = None, False

    def _smaller(self) -> bool:
        """Make the next chunk smaller; False if it cannot be."""
        before = min(self._chunk, self._descriptor.size)
        self._chunk = max(before // 4, LEAST)
        return self._chunk < before

    def _opened(self) -> Blob:
        """Return the blob at the byte where the registry stands."""
        if self._blob is None or self._blob.done != self._at:
            self._close()
            self._blob = self._source.open(self._descriptor)
            self._blob.skip(self._at)
        return self._blob

    def _close(self) -> None:
        if self._blob is not None:
            self._blob.close()
            self._blob = None


def check_stated(headers: Mapping[str, str], digest: Digest) -> None:
    """Refuse an answer that states another digest.

    Raises:
        InvalidContent: it does.
    """
    stated = headers.get("Docker-Content-Digest")
    if stated and stated != str(digest):
        raise DigestMismatch(digest, Digest.parse(stated))
