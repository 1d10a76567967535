"""Bringing back what images lost: from other layouts of the store, and from places a user names."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound, OcistowError
from ..oci.graph import MAX_DEPTH, MAX_NODES, children
from ..oci.image_layout import BLOBS
from ..oci.manifest import Manifest, parse_manifest
from ..oci.wording import message_of
from ..store.layout import Layout
from ..store.reading import READ_SIZE, open_directory, open_file
from ..store.store import VERSION_FILE, Store
from .access import Access
from .compression import inflated
from .layout import file_blob
from .packing import Hashed
from .remote import Filler
from .source import Blob, Section, Source
from .transports import check_source, open_source

REMOTES = "remotes"  # the word for those that the store knows

_BY_DIGEST = ("docker:", "oci:", "containerd:")  # can open any blob, whatever image it is of


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a blob that an image lacked.

    Attributes:
        origin: where it came from; empty if it is still absent.
        reasons: why not, one for each place that was asked.
    """

    digest: Digest
    layout: PurePosixPath
    origin: str = ""
    reasons: tuple[str, ...] = ()


class Place:
    """Somewhere blobs may be found, opened when it is asked first. Not thread-safe."""

    def __init__(self, word: str, store: Store, access: Access, stack: ExitStack) -> None:
        self._store = store
        self._access = access
        self._stack = stack
        self._filler: Filler | None = None
        self._other: Store | None = None
        self._source: Source | None = None
        self.word = word

    def fetch(self, descriptor: Descriptor) -> None:
        """Take a blob into the pool, verified.

        Raises:
            OcistowError: this place does not have it, or something else under its name.
            OSError: likewise, or the pool's disk refuses.
        """
        if self.word == REMOTES:
            if self._filler is None:
                self._filler = self._stack.enter_context(Filler(self._store, self._access))
            self._filler.fill(descriptor.digest, descriptor.size)
            return
        with self._open(descriptor) as blob:
            self._store.blobs.add(blob, descriptor.digest, descriptor.size)

    def _open(self, descriptor: Descriptor) -> Blob:
        if _is_store(self.word):
            if self._other is None:
                self._other = self._stack.enter_context(Store.open(Path(self.word)))
            return file_blob(self._other.blobs.open(descriptor.digest), descriptor)
        if self._source is None:
            opened = open_source(self.word, self._store, access=self._access)
            source = self._stack.enter_context(opened)
            if not self.word.startswith(_BY_DIGEST):
                source.resolve()  # which reads what can only be read from its start
            self._source = source
        return self._source.open(descriptor)


def check_place(word: str) -> None:
    """Refuse a word that names no place, before anything is done.

    Raises:
        InvalidContent: it is neither a source, nor `remotes`, nor the directory of a store.
    """
    if word == "-":
        raise InvalidContent("nothing is repaired from standard input")
    if word != REMOTES and not _is_store(word):
        check_source(word)


@contextmanager
def open_places(words: Sequence[str], store: Store, access: Access) -> Generator[list[Place]]:
    """Yield the places that these words name; what is opened is closed after the block."""
    with ExitStack() as stack:
        yield [Place(word, store, access, stack) for word in words]


class Repairer:
    """Completes layouts one by one. Not thread-safe.

    What is absent is asked for once, however many layouts lack it: first of layouts of the store
    that have a good file of their own, then of each place in its order.
    """

    def __init__(
        self, store: Store, copies: Mapping[Digest, PurePosixPath], places: Sequence[Place]
    ) -> None:
        self._store = store
        self._copies = copies
        self._places = places
        self._failed: dict[Digest, tuple[str, ...]] = {}
        self._came: dict[Digest, str] = {}

    def complete(self, name: PurePosixPath) -> Iterator[Repair]:
        """Give a layout all that its index reaches, as far as it can be found.

        A layer stays away if it was left in a registry on purpose.
        """
        layout = self._store.layout(name)
        try:
            waiting = [(entry, 0, False) for entry in layout.index().manifests]
        except (NotFound, InvalidContent):
            return  # removed meanwhile, or nobody knows what it lacks
        seen = set[Digest]()
        while waiting:
            descriptor, depth, is_config = waiting.pop(0)
            if descriptor.digest in seen or depth > MAX_DEPTH or len(seen) > MAX_NODES:
                continue
            seen.add(descriptor.digest)
            is_document = descriptor.is_manifest or descriptor.is_index
            repair = self._give(layout, descriptor, needed=is_document or is_config)
            if repair is not None:
                yield repair
            if is_document and (repair is None or repair.origin):
                waiting += [(child, depth + 1, c) for child, c in _below(layout, descriptor)]

    def _give(self, layout: Layout, descriptor: Descriptor, *, needed: bool) -> Repair | None:
        digest = descriptor.digest
        own = layout.own(digest)
        if own is not None:
            return None  # bad files were taken away before
        if digest not in self._store.blobs and digest not in self._failed:
            lost = any(each.digest == digest for each in self._store.quarantine)
            if not needed and not lost and self._store.remotes.places(digest):
                return None
            self._fetch(descriptor)
        if digest not in self._store.blobs:
            return Repair(digest, layout.name, reasons=self._failed.get(digest, ()))
        layout.link(digest)
        return Repair(digest, layout.name, self._came.get(digest, "the pool"))

    def _fetch(self, descriptor: Descriptor) -> None:
        digest, reasons = descriptor.digest, list[str]()
        if (copy := self._copies.get(digest)) is not None:
            try:
                self._copy(copy, descriptor)
            except (OcistowError, OSError) as error:
                reasons.append(f"{copy}: {message_of(error)}")
            else:
                self._came[digest] = str(copy)
                return
        for place in self._places:
            try:
                place.fetch(descriptor)
            except (OcistowError, OSError) as error:
                reasons.append(f"{place.word}: {message_of(error)}")
            else:
                self._came[digest] = place.word
                return
        self._failed[digest] = tuple(reasons)

    def _copy(self, name: PurePosixPath, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        path = self._store.layouts / name / BLOBS / digest.algorithm
        directory = open_directory(path)
        try:
            file = open_file(digest.encoded, directory)
        finally:
            os.close(directory)
        with file_blob(file, descriptor) as blob:
            self._store.blobs.add(blob, digest, descriptor.size)


def diff_id(file: int, layer: Descriptor, algorithm: str) -> Digest:
    """Return the digest of what an open layer inflates to; the file stays open.

    Raises:
        InvalidContent: it is damaged.
    """
    opened = Blob(Section(file, 0, layer.size), layer)
    with closing(Hashed(inflated(opened), algorithm)) as plain:
        while plain.read(READ_SIZE):
            pass
    return plain.digest


def _below(layout: Layout, descriptor: Descriptor) -> list[tuple[Descriptor, bool]]:
    """Return what a document mentions, and of each whether it is a config."""
    try:
        document = parse_manifest(layout.read(descriptor), descriptor)
    except (OcistowError, OSError):
        return []
    config = document.config if isinstance(document, Manifest) else None
    return [(child, child is config) for child in children(document)]


def _is_store(word: str) -> bool:
    return Path(word, VERSION_FILE).is_file()
