"""What belongs to an image in a directory of layouts: signatures, attestations, other artifacts.

It lies in the image's own layout, where cosign, notation and oras put it, or in one next to
that, which has the tag of the list of referrers (distribution-spec, "Referrers Tag Schema") or
the one under which cosign looks for signatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..oci.descriptor import OCI_INDEX, REF_NAME, Descriptor
from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..oci.manifest import Index
from .layout import LayoutSource
from .referrer import Part, Referrer, each_referrer, fallback_tag, read_referrer
from .source import Blob, Source, read_document

_SUFFIXES = ("sig", "att", "sbom")  # of cosign's tags
_KIND = "kind"  # how `cosign save` marks what it saves without a name
_KINDS = {"dev.cosignproject.cosign/sigs": "sig", "dev.cosignproject.cosign/atts": "att"}
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Tagged:
    """Something that shall be found by a tag in the image's repository.

    Attributes:
        path: the layout that it comes from.
    """

    tag: str
    what: Referrer
    path: Path


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached to an image.

    Attributes:
        referrers: by what they refer to: the image's manifests, or other referrers.
        tagged: what has a tag, sorted by that. One may be claimed several times.
    """

    referrers: Mapping[Digest, Sequence[Referrer]]
    tagged: Sequence[Tagged]


def find_attached(
    subjects: Sequence[Digest], layout: Path, repository: Path | None = None
) -> Attached:
    """Find what is attached to an image, the first of `subjects`, and to its other manifests.

    `layout` is the image's own; `repository` a directory of layouts that are named by tags.
    A referrer whose entry in an index has a name of its own is tagged so.

    Raises:
        InvalidContent: a part is malformed, or there are over `MAX_REFERRERS`.
        NotFound: a manifest is mentioned, and absent.
    """
    search = _Search(subjects[0], layout, repository)
    each_referrer(subjects, search.visit)
    tagged = sorted(search.tagged.values(), key=lambda one: (one.tag, one.what.root.digest))
    return Attached(search.referrers, tagged)


def list_of(subject: Digest, layout: Path, attached: Attached) -> Source:
    """Return the list of what refers to a manifest, as an index with all that it mentions.

    `layout` has the list as it is up to now, if there is one. What it mentions stays, unless
    its tag goes to something else. What has a tag is marked so, that `find_attached` sees it.

    Raises:
        InvalidContent: the list is malformed.
        NotFound: something that it mentions is absent.
    """
    before = find_attached([subject], layout)
    tags = {one.tag: one.what for known in (before, attached) for one in known.tagged}
    lost = {one.what.root.digest for one in before.tagged} - {
        one.root.digest for one in tags.values()
    }
    referrers = {
        one.root.digest: one
        for known in (before, attached)
        for one in known.referrers.get(subject, ())
        if one.root.digest not in lost
    }
    entries: list[Descriptor] = []
    for digest, one in referrers.items():
        names = [tag for tag, what in tags.items() if what.root.digest == digest]
        entries += [_named(one.root, name) for name in names] or [one.root]
    raw = Index.of(entries).raw
    root = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
    return Part(_Together([one.source for one in referrers.values()]), root, raw)


class _Together:
    """What several sources have. Thread-safe."""

    sparse = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(dict.fromkeys(sources))

    def resolve(self) -> Descriptor:
        """Return what the first one calls its root."""
        return self._sources[0].resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        """Open what any of them has."""
        for source in self._sources:
            with suppress(NotFound):
                return source.open(descriptor)
        raise NotFound(descriptor.digest)


def _named(entry: Descriptor, name: str) -> Descriptor:
    return replace(entry, annotations={**entry.annotations, REF_NAME: name})


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An entry of some index."""

    entry: Descriptor
    source: LayoutSource
    path: Path


class _Search:
    """Looks at every manifest once, in layouts that are read once."""

    def __init__(self, image: Digest, layout: Path, repository: Path | None) -> None:
        self._image = image
        self._repository = repository
        self._own = _entries(layout)
        self.referrers: dict[Digest, list[Referrer]] = {}
        self.tagged: dict[tuple[str, Digest], Tagged] = {}

    def visit(self, subject: Digest) -> list[Descriptor]:
        """Note what refers to a manifest or has a tag because of it; return the referrers."""
        found: dict[Digest, Referrer] = {}
        listing = fallback_tag(subject)
        for one in (*self._own, *self._beside(listing)):
            for candidate in _listed(one, listing):
                stated, described = read_referrer(candidate.source, candidate.entry)
                if stated != subject:
                    continue
                referrer = Referrer(described, candidate.source)
                found[described.digest] = referrer
                tag = candidate.entry.annotations.get(REF_NAME, "")
                if _TAG.fullmatch(tag) and tag != listing:
                    self._tag(tag, referrer, candidate.path)
        self._visit_tags(subject, listing)
        if found:
            self.referrers[subject] = [found[digest] for digest in sorted(found)]
        return [referrer.root for referrer in self.referrers.get(subject, ())]

    def _visit_tags(self, subject: Digest, listing: str) -> None:
        for suffix in _SUFFIXES:
            tag = f"{listing}.{suffix}"
            for one in self._own:
                name = one.entry.annotations.get(REF_NAME)
                kind = _KINDS.get(one.entry.annotations.get(_KIND, ""))
                if name == tag or (kind == suffix and subject == self._image):
                    self._tag(tag, Referrer(one.entry, one.source), one.path)
            for one in self._beside(tag):
                self._tag(tag, Referrer(one.entry, one.source), one.path)

    def _beside(self, tag: str) -> list[_Candidate]:
        """Return what the layout of another tag has."""
        return _entries(self._repository / tag) if self._repository is not None else []

    def _tag(self, tag: str, what: Referrer, path: Path) -> None:
        if what.root.is_manifest or what.root.is_index:
            self.tagged.setdefault((tag, what.root.digest), Tagged(tag, what, path))


def _entries(path: Path) -> list[_Candidate]:
    """Return what an `index.json` mentions; nothing if there is none."""
    source = LayoutSource(path)
    try:
        index = source.index()
    except NotFound:
        return []
    return [_Candidate(entry, source, path) for entry in index.manifests]


def _listed(one: _Candidate, listing: str) -> Iterator[_Candidate]:
    """Yield a candidate, or the entries of the list that it is."""
    entry = one.entry
    if entry.is_index and (entry.annotations.get(REF_NAME) == listing or one.path.name == listing):
        raw = read_document(one.source, entry)
        for below in Index.parse(raw, f"list of referrers {entry.digest}").manifests:
            if below.is_manifest or below.is_index:
                yield _Candidate(below, one.source, one.path)
    elif entry.is_manifest or entry.is_index:
        yield one
