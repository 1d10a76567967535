"""What refers to an image: signatures, attestations and other artifacts, in and out.

In the store the referrers of a manifest lie under a name of their own, the image's with the
tag that distribution-spec, "Referrers Tag Schema", gives to such a list: an index. So
every layout stays one image or one index, as all tools can read it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..oci.descriptor import OCI_INDEX, Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.manifest import Index, parse_manifest
from ..oci.reference import Reference
from ..store.leases import Leases
from ..store.store import Store
from .access import JOBS, Access
from .copy import Copied, Progress, copy
from .distribution.hosts import open_repository
from .distribution.repository import Repository
from .layout import StoreSink, StoreSource
from .provenance import Provenance
from .referrer import (
    MAX_REFERRERS,
    Part,
    Referrer,
    each_referrer,
    fallback_tag,
    read_referrer,
)
from .registry import RegistrySink, RegistrySource
from .source import Source, read_document

TRIES = 3  # to be heard among others who change a list at the same time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Referrers:
    """What became of the referrers of an image.

    Attributes:
        copied: one copy each; when taken in, one for each list of them.
        listed: fallback tags that were written because a registry keeps no lists.
    """

    copied: tuple[Copied, ...] = ()
    listed: tuple[str, ...] = ()


def take_referrers(
    where: Reference,
    store: Store,
    name: Reference,
    root: Descriptor,
    *,
    access: Access | None = None,
    jobs: int = JOBS,
    progress: Progress | None = None,
) -> Referrers:
    """Take in what refers to an image that was just added, and what refers to that.

    `where` says in which repository it is, `name` what the store calls the image whose
    manifest or index is `root`. Something that only claims to refer to it is left out.

    Raises:
        NotFound: the image, or a part of a referrer, is absent.
        InvalidContent: there are over `MAX_REFERRERS`, or one is malformed.
    """
    copied: list[Copied] = []
    with open_repository(where, access or Access()) as repository:
        provenance = Provenance(store.locations, where.registry, where.repository)
        source = RegistrySource(repository, where, provenance=provenance)

        def take(subject: Digest) -> Sequence[Descriptor]:
            listed = _listed(repository, subject)
            entries = sorted(_referring(source, listed, subject), key=_digest)
            if entries:
                sink = StoreSink(store, _named(name, subject))
                copied.append(
                    copy(
                        _listing(source, entries),
                        sink,
                        jobs=jobs,
                        progress=progress,
                        leases=store.leases,
                    )
                )
            return entries

        each_referrer(_subjects(store, name, root), take)
        provenance.save()
    return Referrers(tuple(copied))


def publish_referrers(
    store: Store,
    name: Reference,
    root: Descriptor,
    where: Reference,
    *,
    access: Access | None = None,
    jobs: int = JOBS,
    progress: Progress | None = None,
) -> Referrers:
    """Publish what the store has that refers to an image that was just published.

    `name` is what the store calls the image whose manifest or index is `root`, `where` says
    in which repository it is now. A registry that does not list referrers by itself gets
    the lists under their fallback tags, with what they had before. One that lists them
    already is sent nothing.

    Raises:
        NotFound: the image, or a part of a referrer, is absent.
        InvalidContent: a list is malformed, or the tag of one names something else.
    """
    with open_repository(where, access or Access(), push=True) as repository:
        provenance = Provenance(store.locations, where.registry, where.repository)

        def stored(subject: Digest) -> Sequence[Referrer]:
            source = StoreSource(store.layout(_named(name, subject).path))
            try:
                listing = source.resolve()
            except NotFound:
                return ()
            found = Index.parse(read_document(source, listing), f"referrers of {subject}")
            return [Referrer(entry, source) for entry in found.manifests]

        sending = Sending(repository, where, provenance, jobs, progress, store.leases)
        return sending.referrers(_subjects(store, name, root), stored)


@dataclass(frozen=True, slots=True)
class Sending:
    """Sends what is attached to an image into the repository `where` that has the image."""

    repository: Repository
    where: Reference
    provenance: Provenance
    jobs: int = JOBS
    progress: Progress | None = None
    leases: Leases | None = None

    def referrers(
        self, subjects: Sequence[Digest], ours: Callable[[Digest], Sequence[Referrer]]
    ) -> Referrers:
        """Send what refers to these manifests, and what refers to that; `ours` finds it.

        Raises:
            NotFound: a part of a referrer is absent.
            InvalidContent: a list is malformed, the tag of one names something else, or there are
                over `MAX_REFERRERS`.
        """
        copied: list[Copied] = []
        listed: list[str] = []

        def send(referrer: Referrer) -> bool:
            root = referrer.root
            where = replace(self.where, tag="", digest=root.digest)
            sink = RegistrySink(self.repository, where, self.provenance)
            copied.append(self._copy(referrer, sink))
            if not copied[-1].sent:  # it was there, but is not listed
                raw = read_document(referrer.source, root)
                return self.repository.put_manifest(root.digest, root, raw)
            return sink.refers

        def publish(subject: Digest) -> Sequence[Descriptor]:
            found = ours(subject)
            theirs = _listed(self.repository, subject) if found else ()
            unlisted = [r.root for r in found if r.root not in theirs and not send(r)]
            if unlisted:
                _list(self.repository, subject, unlisted)
                listed.append(fallback_tag(subject))
            return [referrer.root for referrer in found]

        each_referrer(subjects, publish)
        return Referrers(tuple(copied), tuple(listed))

    def tagged(self, tag: str, attached: Referrer) -> Copied:
        """Send something that is asked for by a tag of its own."""
        where = replace(self.where, tag=tag, digest=None)
        return self._copy(attached, RegistrySink(self.repository, where, self.provenance))

    def _copy(self, attached: Referrer, sink: RegistrySink) -> Copied:
        part = Part(attached.source, attached.root)
        return copy(part, sink, jobs=self.jobs, progress=self.progress, leases=self.leases)


def _listing(source: Source, entries: Sequence[Descriptor]) -> Part:
    raw = Index.of(entries).raw
    return Part(source, Descriptor(OCI_INDEX, Digest.of(raw), len(raw)), raw)


def _digest(descriptor: Descriptor) -> Digest:
    return descriptor.digest


def _named(name: Reference, subject: Digest) -> Reference:
    return Reference(name.registry, name.repository, fallback_tag(subject))


def _subjects(store: Store, name: Reference, root: Descriptor) -> list[Digest]:
    """Return the manifests and indexes of an image, the root first."""
    nodes = list(walk(root, store.layout(name.path).read))
    return [node.descriptor.digest for node in reversed(nodes) if node.document is not None]


def _listed(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    """Return what a registry says refers to a manifest, by itself or under the fallback tag."""
    found = repository.referrers(subject, MAX_REFERRERS)
    if found is not None:
        return found
    index = _fallback(repository, subject)
    return index.manifests[:MAX_REFERRERS] if index is not None else ()


def _fallback(repository: Repository, subject: Digest) -> Index | None:
    try:
        found, raw = repository.manifest(fallback_tag(subject))
    except NotFound:
        return None
    document = parse_manifest(raw, found)
    if not isinstance(document, Index):
        raise InvalidContent(f"the tag {fallback_tag(subject)} names no list of referrers")
    return document


def _referring(
    source: Source, entries: Iterable[Descriptor], subject: Digest
) -> Iterator[Descriptor]:
    """Yield the entries that are there and do refer to the subject, described by themselves."""
    for entry in entries:
        if not (entry.is_manifest or entry.is_index):
            log.warning("%s refers to %s, but is no manifest", entry.digest, subject)
            continue
        try:
            stated, described = read_referrer(source, entry)
        except NotFound:
            log.warning("%s refers to %s, but is absent", entry.digest, subject)
            continue
        if stated != subject:
            log.warning("%s is listed as a referrer of %s, which it is not", entry.digest, subject)
            continue
        yield described


def _list(repository: Repository, subject: Digest, entries: Sequence[Descriptor]) -> None:
    """Add entries to the list under the fallback tag, which others may be changing too."""
    for _ in range(TRIES):
        before = _fallback(repository, subject)
        there = before.manifests if before is not None else ()
        missing = [entry for entry in entries if entry not in there]
        if not missing:
            return
        raw = Index.of([*there, *missing]).raw
        listing = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
        repository.put_manifest(fallback_tag(subject), listing, raw)
