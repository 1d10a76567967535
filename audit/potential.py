"""What sharing below the level of layers would still save: an estimate, nothing is changed.

Layers are the unit of sharing of images. Two layers that differ in one file share nothing; this
says what storing each distinct file once would need, or each distinct chunk of a file
(FastCDC; Xia et al., "The Design of Fast Content-Defined Chunking", 2020).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..oci.descriptor import IMAGE_CONFIGS, Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from ..oci.graph import walk
from ..oci.manifest import Manifest
from ..publish.ahead import Ahead
from ..publish.archives.entries import REGULAR, Entries, Entry, Forward
from ..publish.compression import inflated
from ..publish.source import Stream
from ..store.layout import Layout
from ..store.reading import READ_SIZE
from ..store.sharing.duplicates import Watch
from ..store.store import Store
from .distinct import LIMIT, Distinct

CHUNK = 16 << 10  # bytes of an average chunk; like borg's and restic's, but images have small files
FINGERPRINT = 16  # bytes of BLAKE3


@dataclass(frozen=True, slots=True)
class Level:
    """What the contents would take if each distinct one was stored once.

    Attributes:
        plain: bytes, not compressed, with tar headers and whatever else is no file.
        stored: bytes, compressed as well as the layers are in which they were found.
    """

    plain: int
    stored: int


@dataclass(frozen=True, slots=True)
class Potential:
    """What layers take, and what they would take if smaller things were shared.

    Attributes:
        layers: how many distinct ones were read.
        stored: bytes of these as they are, most of them compressed.
        plain: bytes of these inflated.
        files: regular files in them.
        contents: bytes of these files.
        by_file: each distinct file once.
        by_chunk: each distinct chunk of a file once.
        deviation: standard deviation of the two, as a part of them; 0.0 if they were counted.
        absent: layers that the store does not have.
        skipped: digests of layers, and names of images, that could not be read, and why.
        seconds: how long it took.
    """

    layers: int
    stored: int
    plain: int
    files: int
    contents: int
    by_file: Level
    by_chunk: Level
    deviation: float
    absent: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float


def potential(
    store: Store,
    names: Collection[PurePosixPath] | None = None,
    watch: Watch | None = None,
    limit: int = LIMIT,
) -> Potential:
    """Estimate what images, or all for None, would take if files or chunks were shared.

    Every layer is read once, as fast as it inflates. Memory is bounded: of more than
    `limit` distinct files or chunks only a sample is kept.

    """
    began = time.monotonic()
    count = _Count(limit)
    layers = count.layers(map(store.layout, store.names() if names is None else sorted(names)))
    absent = 0
    if watch is not None:
        watch.begins(sum(layer.size for layer, _ in layers))
    for layer, layout in layers:
        stream = None
        try:
            stream = _Watched(open(layout.open(layer.digest), "rb"), watch)  # noqa: SIM115 - read() does
            count.read(layer, stream)
        except NotFound:
            absent += 1
        if watch is not None:
            watch.moves(layer.size - (stream.done if stream is not None else 0))
    return count.result(absent, time.monotonic() - began)


@dataclass(slots=True, eq=False)
class _Layer:
    """What is known of a layer once it was read."""

    stored: int
    plain: int = 0
    files: int = 0
    contents: int = 0

    @property
    def ratio(self) -> float:
        return self.stored / self.plain if self.plain else 1.0


class _Count:
    """One pass over all layers."""

    def __init__(self, limit: int) -> None:
        from blake3 import blake3
        from pyfastcdc import FastCDC

        self._hash = blake3
        self._cut = FastCDC(CHUNK)
        self._files = Distinct[_Layer](limit)
        self._chunks = Distinct[_Layer](limit)
        self._layers: list[_Layer] = []
        self._skipped: list[tuple[str, str]] = []

    def layers(self, layouts: Iterable[Layout]) -> list[tuple[Descriptor, Layout]]:
        """Return each layer of images, with a layout that mentions it."""
        found: dict[Digest, tuple[Descriptor, Layout]] = {}
        for layout in layouts:
            try:
                for layer in _layers(layout):
                    found.setdefault(layer.digest, (layer, layout))
            except (InvalidContent, NotFound) as error:
                self._skipped.append((str(layout.name), str(error)))
        return list(found.values())

    def read(self, descriptor: Descriptor, stream: Stream) -> None:
        """Count what a layer holds; close it. One that cannot be read counts for nothing."""
        layer = _Layer(descriptor.size)
        plain = _Watched(stream)
        try:
            plain = _Watched(Ahead(inflated(stream)))
            archive = Entries(Forward(plain), str(descriptor.digest))
            for entry in archive:
                if entry.kind in REGULAR:
                    self._add(archive, entry, layer)
            while plain.read(READ_SIZE):
                pass  # what fills the last record
        except InvalidContent as error:
            self._files.forget(layer)
            self._chunks.forget(layer)
            self._skipped.append((str(descriptor.digest), str(error)))
        else:
            layer.plain = plain.done
            self._layers.append(layer)
        finally:
            plain.close()

    def result(self, absent: int, seconds: float) -> Potential:
        """Return what was counted."""
        return Potential(
            len(self._layers),
            sum(layer.stored for layer in self._layers),
            sum(layer.plain for layer in self._layers),
            sum(layer.files for layer in self._layers),
            sum(layer.contents for layer in self._layers),
            self._level(self._files),
            self._level(self._chunks),
            max(self._files.deviation, self._chunks.deviation),
            absent,
            tuple(self._skipped),
            seconds,
        )

    def _add(self, archive: Entries, entry: Entry, layer: _Layer) -> None:
        whole = self._hash()
        for chunk in self._cut.cut_stream(_Content(archive, entry)):
            whole.update(chunk.data)
            fingerprint = self._hash(chunk.data).digest(FINGERPRINT)
            self._chunks.add(fingerprint, chunk.length, layer)
        self._files.add(whole.digest(FINGERPRINT), entry.size, layer)
        layer.files += 1
        layer.contents += entry.size

    def _level(self, distinct: Distinct[_Layer]) -> Level:
        plain, stored = 0.0, 0.0
        for layer in self._layers:  # headers and padding are nobody else's
            plain += layer.plain - layer.contents
            stored += (layer.plain - layer.contents) * layer.ratio
        for layer, size in distinct.shares():
            plain += size
            stored += size * layer.ratio
        return Level(round(plain), round(stored))


def _layers(layout: Layout) -> Iterator[Descriptor]:
    for root in layout.index().manifests:
        for node in walk(root, layout.read):
            image = node.document
            if isinstance(image, Manifest) and image.config.media_type in IMAGE_CONFIGS:
                yield from image.layers


class _Content:
    """The content of an entry, as the library that finds chunks reads it."""

    def __init__(self, archive: Entries, entry: Entry) -> None:
        self._archive = archive
        self._entry = entry

    def readinto(self, b: memoryview) -> int:
        data = self._archive.read(self._entry, len(b))
        b[: len(data)] = data
        return len(data)


class _Watched:
    """A stream that counts what was read of it."""

    def __init__(self, stream: Stream, watch: Watch | None = None) -> None:
        self._stream = stream
        self._watch = watch
        self.done = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.done += len(data)
        if self._watch is not None:
            self._watch.moves(len(data))
        return data

    def close(self) -> None:
        self._stream.close()
