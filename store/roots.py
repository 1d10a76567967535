"""What the indexes of a store mention: the roots of garbage collection."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..oci.descriptor import Descriptor
from ..oci.digest import HEX_LENGTHS, Digest
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import MAX_DEPTH, walk
from ..oci.manifest import Index, Manifest
from .layout import BLOBS, INDEX, Layout
from .store import Store

_DIGEST = re.compile(rb"(?:sha256|sha512|blake3):[0-9a-f]{64,128}")


@dataclass(frozen=True, slots=True)
class Mentions:
    """What an index mentions, directly or not.

    Attributes:
        layers: what can be absent; the sizes, by digest.
        others: manifests, configs, and whatever may be one of these.
    """

    layers: dict[Digest, int] = field(default_factory=dict[Digest, int])
    others: frozenset[Digest] = frozenset()

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.layers or digest in self.others


@dataclass(frozen=True, slots=True)
class _Known:
    """A directory as it was when it was last looked at."""

    key: tuple[int, ...]
    changed: float  # seconds since the epoch
    mentions: Mentions


class Roots:
    """The directories below the layout root, and what their indexes mention; not thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[PurePosixPath, _Known] = {}
        self._synced: dict[PurePosixPath, tuple[int, ...]] = {}

    def refresh(self) -> None:
        """Look again, and read the indexes that changed.

        Raises:
            InvalidContent: an index or what it reaches is malformed or absent, so that nobody
                can tell what it needs.
        """
        found: dict[PurePosixPath, _Known] = {}
        for name, key, changed, has_index in self._directories():
            known = self._known.get(name)
            if known is not None and known.key == key:
                mentions = known.mentions
            else:
                mentions = mentioned(self._store.layout(name)) if has_index else Mentions()
            found[name] = _Known(key, changed, mentions)
        self._known = found

    def settle(self) -> None:
        """Return once no crash can bring back an older index than those that were read.

        Whoever replaced or removed one may have died before he synced the directory.
        """
        for name, known in self._known.items():
            if self._synced.get(name) != known.key:
                self._store.layout(name).sync()
                self._synced[name] = known.key

    @property
    def names(self) -> list[PurePosixPath]:
        """The directories, those without an index too."""
        return list(self._known)

    def at(self, name: PurePosixPath) -> Mentions:
        """Return what the index in a directory mentions."""
        known = self._known.get(name)
        return known.mentions if known else Mentions()

    def changed(self, name: PurePosixPath) -> float:
        """Return when a directory or its index last changed, in seconds since the epoch."""
        known = self._known.get(name)
        return known.changed if known else 0.0

    def all(self) -> Mentions:
        """Return what any index mentions."""
        layers: dict[Digest, int] = {}
        others: set[Digest] = set()
        for known in self._known.values():
            layers.update(known.mentions.layers)
            others.update(known.mentions.others)
        return Mentions(layers, frozenset(others))

    def _directories(self) -> Iterator[tuple[PurePosixPath, tuple[int, ...], float, bool]]:
        waiting = [PurePosixPath()]
        while waiting:
            name = waiting.pop()
            path = self._store.layouts / name
            try:
                status = os.stat(path, follow_symlinks=False)
                with os.scandir(path) as entries:
                    found = list(entries)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed meanwhile
            index = _index(found)
            key: tuple[int, ...] = (status.st_ino, status.st_mtime_ns)
            changed = max([status.st_mtime, *_changes(path / BLOBS)])
            if index is not None:
                key = (*key, index.st_ino, index.st_ctime_ns, index.st_size)
                changed = max(changed, index.st_ctime)
            yield name, key, changed, index is not None
            waiting += [
                name / entry.name
                for entry in found
                if entry.is_dir(follow_symlinks=False)
                and not (index is not None and entry.name == BLOBS)
            ]


def mentioned(layout: Layout) -> Mentions:
    """Return what a layout's index mentions; nothing if there is none any more.

    Raises:
        InvalidContent: it or what it reaches is malformed, or a manifest is absent.
    """
    try:
        index = layout.index()
    except NotFound:
        return Mentions()
    layers: dict[Digest, int] = {}
    others: set[Digest] = set()
    try:
        for root in index.manifests:
            for node in walk(root, layout.read):
                document = node.document
                others |= {node.descriptor.digest} if document else set()
                if isinstance(document, Manifest):
                    layers.update((layer.digest, layer.size) for layer in document.layers)
                    others.add(document.config.digest)
                elif isinstance(document, Index):
                    others |= _foreign(layout, document.manifests)
        others |= _foreign(layout, index.manifests)
    except NotFound as error:
        raise InvalidContent(f"{layout.name} mentions {error.name}, which is absent") from error
    return Mentions({d: size for d, size in layers.items() if d not in others}, frozenset(others))


def _foreign(layout: Layout, entries: tuple[Descriptor, ...]) -> set[Digest]:
    """Return every digest in manifests of unknown kinds, which may mean blobs."""
    found = {entry.digest for entry in entries if not (entry.is_index or entry.is_manifest)}
    level = found
    for _ in range(MAX_DEPTH):
        level = {digest for above in level for digest in _digests(layout, above)} - found
        found = found | level
    return found


def _digests(layout: Layout, digest: Digest) -> Iterator[Digest]:
    try:
        file = layout.open(digest)
    except NotFound:
        return
    with open(file, "rb") as stream:
        if os.fstat(file).st_size > MAX_DOCUMENT:
            return
        raw = stream.read(MAX_DOCUMENT)
    for match in _DIGEST.finditer(raw):
        with suppress(InvalidContent):
            yield Digest.parse(match[0].decode())


def _changes(blobs: Path) -> Iterator[float]:
    """Yield when names below a layout's `blobs` last came or went."""
    for algorithm in HEX_LENGTHS:
        with suppress(FileNotFoundError, NotADirectoryError):
            yield os.stat(blobs / algorithm, follow_symlinks=False).st_mtime


def _index(entries: list[os.DirEntry[str]]) -> os.stat_result | None:
    for entry in entries:
        if entry.name == INDEX:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                return status if stat.S_ISREG(status.st_mode) else None
    return None
