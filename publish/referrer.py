"""Manifests that refer to others: what they say of themselves, and under which tag lists are kept.

Source: distribution-spec, "Listing Referrers", "Referrers Tag Schema".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.document import Object, as_object, parse_object, string, strings
from ..oci.errors import InvalidContent
from .source import Blob, Source, read_document

MAX_REFERRERS = 1000  # of one image, with those of its referrers


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to another one, and where it can be read."""

    root: Descriptor
    source: Source


@dataclass(frozen=True, slots=True)
class Part:
    """Another root in the content of a source, perhaps with a document of our own. Thread-safe."""

    source: Source
    root: Descriptor
    raw: bytes | None = None

    @property
    def sparse(self) -> bool:
        """Whether the source is."""
        return self.source.sparse

    def resolve(self) -> Descriptor:
        """Return the root."""
        return self.root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open the document, or what the source has.

        Raises:
            NotFound: it is absent; `name` is its digest.
        """
        if self.raw is not None and descriptor.digest == self.root.digest:
            return Blob(BytesIO(self.raw), descriptor)
        return self.source.open(descriptor)


def fallback_tag(digest: Digest) -> str:
    """Return the tag of the list of what refers to a manifest; distribution-spec, ibid."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def each_referrer(
    subjects: Sequence[Digest], visit: Callable[[Digest], Sequence[Descriptor]]
) -> None:
    """Visit manifests, what refers to them, and so on, each once.

    Raises:
        InvalidContent: there are over `MAX_REFERRERS`.
    """
    waiting, seen = deque(subjects), set(subjects)
    left = MAX_REFERRERS
    while waiting:
        subject = waiting.popleft()
        for entry in visit(subject):
            left -= 1
            if left < 0:
                raise InvalidContent(f"over {MAX_REFERRERS} manifests refer to {subjects[0]}")
            if entry.digest not in seen:
                seen.add(entry.digest)
                waiting.append(entry.digest)


def read_referrer(source: Source, entry: Descriptor) -> tuple[Digest | None, Descriptor]:
    """Return what a manifest refers to, and how a list describes it.

    Source: distribution-spec, "Listing Referrers".

    Raises:
        NotFound: it is absent.
        InvalidContent: it is malformed.
    """
    what = f"manifest {entry.digest}"
    document = parse_object(read_document(source, entry), what)
    config = as_object(document.get("config", {}), f"config of {what}")
    kind = string(document, "artifactType", what) or string(config, "mediaType", what)
    described = Descriptor(
        entry.media_type,
        entry.digest,
        entry.size,
        strings(document, "annotations", what),
        given={"artifactType": kind} if kind else {},
    )
    return _subject(document, what), described


def _subject(document: Object, what: str) -> Digest | None:
    if document.get("subject") is None:
        return None
    return Descriptor.from_document(document["subject"], f"subject of {what}").digest
