"""One repository of a registry, over the endpoints of the distribution-spec."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote, urlencode

from ...oci.descriptor import INDEXES, MANIFESTS, OCI_INDEX, Descriptor
from ...oci.digest import CANONICAL, Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import (
    DigestMismatch,
    InvalidContent,
    NotFound,
    RegistryError,
    RegistryUnavailable,
)
from ...oci.manifest import Index, media_type_of
from ..source import Blob, Source
from .answer import MAX_ERROR_BODY, Answer
from .retries import TRIES
from .transport import Transport
from .upload import Session, Sessions, Upload, check_stated
from .urls import joined, redacted

PROGRESS = 1 << 20  # bytes of a blob after which a lost connection counts as the first

_ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS | INDEXES))}
_DIGEST = "Docker-Content-Digest"
_NO_REFERRERS = {  # what registries say that do not know the endpoint
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_ACCEPTABLE,
}
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next\b')  # RFC 8288


class Repository:
    """One repository of a registry: one method per endpoint, each tried as often as may help.

    Every method raises RegistryUnavailable when asking again later may work, and
    RegistryError when it will not. Thread-safe.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._url = f"{transport.origin}/v2/{quote(name)}"

    def has_blob(self, digest: Digest) -> bool:
        """Tell whether the repository has the blob (end-2, HEAD)."""
        return self._has(f"{self._url}/blobs/{digest}")

    def size_of_blob(self, digest: Digest) -> int | None:
        """Return how large the repository says that a blob is (end-2, HEAD).

        None if it lacks the blob, or says nothing.
        """

        def head() -> int | None:
            with self._transport.request("HEAD", f"{self._url}/blobs/{digest}") as answer:
                answer.expect(HTTPStatus.OK, HTTPStatus.NOT_FOUND)
                length = answer.headers.get("Content-Length", "")
                is_there = answer.status == HTTPStatus.OK and length.isascii() and length.isdigit()
                return int(length[:19]) if is_there else None

        return self._transport.retrying(head)

    def has_manifest(self, identifier: str | Digest) -> bool:
        """Tell whether the repository has a manifest of this tag or digest (end-3, HEAD)."""
        return self._has(f"{self._url}/manifests/{identifier}")

    def check_push(self) -> None:
        """See whether blobs may be uploaded: begin an upload (end-4a), and cancel it.

        Raises:
            RegistryError: they may not.
        """
        self.cancel(self._transport.retrying(self._begin))

    def blob(self, descriptor: Descriptor) -> Blob:
        """Open a blob (end-2, GET); the caller closes it.

        A connection lost on the way is taken up where it broke.

        Raises:
            NotFound: the repository lacks it; `name` is its digest.
            InvalidContent: its announced size is not that of the descriptor.
        """
        url = f"{self._url}/blobs/{descriptor.digest}"
        answer = self._get(url, {}, descriptor.digest)
        length = answer.headers.get("Content-Length")
        if length is not None and length != str(descriptor.size):
            answer.close()
            raise InvalidContent(
                f"{answer.request}: {length} bytes are offered, "
                f"the descriptor announces {descriptor.size}"
            )

        def resume(at: int) -> Answer:
            span = {"Range": f"bytes={at}-{descriptor.size - 1}"}
            return self._get(url, span, descriptor.digest, HTTPStatus.PARTIAL_CONTENT)

        return Blob(_Resumed(answer, resume), descriptor)

    def manifest(self, identifier: str | Digest) -> tuple[Descriptor, bytes]:
        """Return the manifest or index with a tag or digest (end-3, GET).

        Raises:
            NotFound: there is none.
            InvalidContent: it is over `MAX_DOCUMENT` bytes, of an unknown kind, or has
                another digest than asked for or stated.
        """
        url = f"{self._url}/manifests/{identifier}"
        name = identifier if isinstance(identifier, Digest) else redacted(url)

        def get() -> tuple[Descriptor, bytes]:
            with self._ask(url, _ACCEPT, name) as answer:
                raw = _document(answer)
                digest = _checked(answer, raw, identifier)
                media_type = _media_type(answer)
            if media_type not in MANIFESTS | INDEXES:
                media_type = media_type_of(raw, f"manifest {digest}")
            return Descriptor(media_type, digest, len(raw)), raw

        return self._transport.retrying(get)

    def mount(self, digest: Digest, source: str) -> Session | None:
        """Take a blob over from another repository of the registry (end-11).

        Returns:
            None when that was done, else an upload that was begun instead.
        """
        query = urlencode({"mount": str(digest), "from": source})
        scopes = [f"repository:{source}:pull"]

        def mount() -> Session | None:
            url = f"{self._url}/blobs/uploads/?{query}"
            with self._transport.request("POST", url, body=b"", scopes=scopes) as answer:
                answer.expect(HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
                return Session.begun(answer) if answer.status == HTTPStatus.ACCEPTED else None

        return self._transport.retrying(mount)

    def cancel(self, session: Session) -> None:
        """End an upload that is not needed; where that is refused, it expires."""
        with suppress(RegistryError), self._transport.request("DELETE", session.url):
            pass

    def upload(
        self,
        descriptor: Descriptor,
        source: Source,
        session: Session | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        """Upload a blob of `source`; see `Upload`.

        `session` is one that was begun and has no bytes yet; `sessions` keeps that of a
        large blob.

        Raises:
            NotFound: the source lacks it.
            InvalidContent: it has another size, or the registry states another digest.
        """
        Upload(
            self._transport,
            self._begin,
            lambda: self.has_blob(descriptor.digest),
            descriptor,
            source,
            sessions,
        ).run(session)

    def referrers(self, digest: Digest, most: int) -> tuple[Descriptor, ...] | None:
        """Return the manifests whose subject has this digest (end-12a); None if it keeps no lists.

        Raises:
            InvalidContent: there are over `most`, or the list is malformed.
        """
        url, found = f"{self._url}/referrers/{digest}", list[Descriptor]()
        for _ in range(most):
            try:
                with self._get(url, {"Accept": OCI_INDEX}, digest) as answer:
                    if _media_type(answer) != OCI_INDEX:
                        return None
                    page = Index.parse(_document(answer), answer.request)
                    link = answer.headers.get("Link", "")
            except (NotFound, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status not in _NO_REFERRERS:
                    raise
                return None
            found += page.manifests
            if len(found) > most:
                break
            if not (match := _NEXT.search(link)):
                return tuple(found)
            url = joined(answer.url, match[1])
        raise InvalidContent(f"{redacted(url)}: over {most} referrers")

    def put_manifest(self, identifier: str | Digest, descriptor: Descriptor, raw: bytes) -> bool:
        """Store a manifest or index under a tag or its digest (end-7).

        Returns:
            Whether the registry lists it among the referrers of its subject.

        Raises:
            InvalidContent: the registry states another digest.
        """
        url = f"{self._url}/manifests/{identifier}"
        headers = {"Content-Type": descriptor.media_type}

        def put() -> bool:
            with self._transport.request("PUT", url, headers, raw) as answer:
                answer.expect(HTTPStatus.CREATED)
                check_stated(answer.headers, descriptor.digest)
                return "OCI-Subject" in answer.headers

        return self._transport.retrying(put)

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest or index, with all its tags (end-9); one that is absent is deleted.

        Raises:
            RegistryError: many registries do not, or not for everybody who may push.
        """
        url, scopes = f"{self._url}/manifests/{digest}", [f"repository:{self._name}:delete"]

        def delete() -> None:
            with self._transport.request("DELETE", url, scopes=scopes) as answer:
                answer.expect(HTTPStatus.ACCEPTED, HTTPStatus.NOT_FOUND)

        self._transport.retrying(delete)

    def _has(self, url: str) -> bool:
        def head() -> bool:
            with self._transport.request("HEAD", url, _ACCEPT) as answer:
                answer.expect(HTTPStatus.OK, HTTPStatus.NOT_FOUND)
                return answer.status == HTTPStatus.OK

        return self._transport.retrying(head)

    def _get(
        self, url: str, headers: dict[str, str], name: object, expected: int = HTTPStatus.OK
    ) -> Answer:
        return self._transport.retrying(lambda: self._ask(url, headers, name, expected))

    def _ask(
        self, url: str, headers: dict[str, str], name: object, expected: int = HTTPStatus.OK
    ) -> Answer:
        answer = self._transport.request("GET", url, headers)
        try:
            if answer.status == HTTPStatus.NOT_FOUND:
                answer.read_at_most(MAX_ERROR_BODY)  # so that its connection can be used again
                raise NotFound(name)
            answer.expect(expected)
        except BaseException:
            answer.close()
            raise
        return answer

    def _begin(self) -> Session:
        with self._transport.request("POST", f"{self._url}/blobs/uploads/", body=b"") as answer:
            answer.expect(HTTPStatus.ACCEPTED)
            return Session.begun(answer)


class _Resumed:
    """The body of an answer, and of further ones where the connection was lost."""

    def __init__(self, answer: Answer, resume: Callable[[int], Answer]) -> None:
        self._answer = answer
        self._resume = resume
        self._at = self._began = 0
        self._left = TRIES - 1

    def read(self, size: int, /) -> bytes:
        while True:
            try:
                data = self._answer.read(size)
            except RegistryUnavailable as lost:
                if self._at - self._began >= PROGRESS:
                    self._left = TRIES - 1
                if self._left == 0:
                    raise
                self._left -= 1
                self._began = self._at
                self._answer.close()
                try:
                    self._answer = self._resume(self._at)
                except (RegistryError, NotFound):
                    raise lost from None  # it does not serve ranges, or not any more
            else:
                self._at += len(data)
                return data

    def close(self) -> None:
        self._answer.close()


def _document(answer: Answer) -> bytes:
    raw = answer.read_at_most(MAX_DOCUMENT + 1)
    if len(raw) > MAX_DOCUMENT:
        raise InvalidContent(
            f"{answer.request}: over {MAX_DOCUMENT} bytes, too many for a manifest"
        )
    return raw


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _checked(answer: Answer, raw: bytes, identifier: str | Digest) -> Digest:
    """Return the digest of a manifest, which must be the one asked for and the one stated."""
    stated = answer.headers.get(_DIGEST)
    expected = Digest.parse(stated) if stated else None
    asked = identifier if isinstance(identifier, Digest) else expected
    actual = Digest.of(raw, asked.algorithm if asked else CANONICAL)
    for digest in (asked, expected):
        if digest is not None and digest.algorithm == actual.algorithm and digest != actual:
            raise DigestMismatch(digest, actual)
    return actual
