"""Where an image comes from, and how its blobs are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol, Self

from ..oci.descriptor import REF_NAME, Descriptor
from ..oci.digest import Digest
from ..oci.document import MAX_DOCUMENT
from ..oci.errors import DigestMismatch, InvalidContent, NotFound
from ..oci.graph import MAX_DEPTH
from ..oci.manifest import Index, parse_manifest
from ..oci.platform import Platform
from ..store.ingest import Ingest
from ..store.reading import READ_SIZE

Watch = Callable[[int], None]  # hears how many bytes were read; what it raises ends the read


def unwatched(done: int, /) -> None:
    """Hear nothing."""


class Stream(Protocol):
    """Bytes in order, such as an open file or the body of an answer."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        ...

    def close(self) -> None:
        """Free what is behind it."""
        ...


class Section:
    """A part of an open file that stays somebody else's."""

    def __init__(self, file: int, offset: int, size: int) -> None:
        self._file = file
        self._at = offset
        self._end = offset + size

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        data = os.pread(self._file, max(0, min(size, self._end - self._at)), self._at)
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        """Leave bytes out; the end may come first."""
        self._at += size

    def close(self) -> None:
        """Leave the file open."""


class Blob:
    """An open blob, read once from start to end; not thread-safe.

    What it yields is as long as its descriptor says, but not checked against the
    digest: that is the business of who keeps it.

    Attributes:
        descriptor: what it claims to be.
        done: bytes that were read or skipped.
        file: an open regular file whose whole content is the blob, or None. Others
            may be able to write to that file.
        ingest: the unnamed file of some pool in which all of it waits to be committed, or None.
        watch: called with the number of bytes read so far; what it raises ends the read.
    """

    def __init__(
        self,
        stream: Stream,
        descriptor: Descriptor,
        file: int | None = None,
        ingest: Ingest | None = None,
    ) -> None:
        self._stream = stream
        self.done = 0
        self.descriptor = descriptor
        self.file = file
        self.ingest = ingest
        self.watch: Watch | None = None

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Return at most `size` bytes, and none only at the end.

        Raises:
            InvalidContent: there are more or fewer bytes than announced.
        """
        announced = self.descriptor.size
        data = self._stream.read(min(size, announced - self.done + 1))
        self.done += len(data)
        if self.done > announced:
            raise InvalidContent(
                f"blob {self.descriptor.digest} has more than the announced {announced} bytes"
            )
        if not data and self.done < announced:
            raise InvalidContent(
                f"blob {self.descriptor.digest} ended at byte {self.done} of {announced}"
            )
        if self.watch is not None:
            self.watch(self.done)
        return data

    def skip(self, size: int) -> None:
        """Leave the first `size` bytes out, before anything was read; a file is not read then.

        Raises:
            InvalidContent: there are fewer.
        """
        if self.file is not None:
            self.done = os.lseek(self.file, size, os.SEEK_SET)
        while self.done < size:
            self.read(min(READ_SIZE, size - self.done))

    def close(self) -> None:
        """Close what is behind it."""
        self._stream.close()

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source(Protocol):
    """One image that can be read. Thread-safe."""

    @property
    def sparse(self) -> bool:
        """Whether layers may be missing without anything being wrong."""
        ...

    def resolve(self) -> Descriptor:
        """Return the root: a manifest or index, with its name and platform when known.

        Raises:
            NotFound: there is no such image.
        """
        ...

    def open(self, descriptor: Descriptor) -> Blob:
        """Open a manifest or blob of the image; the caller closes it.

        Raises:
            NotFound: it is absent; `name` is its digest.
        """
        ...


def read_document(source: Source, descriptor: Descriptor) -> bytes:
    """Return the bytes of a manifest or config, checked against its descriptor.

    Raises:
        NotFound: it is absent.
        InvalidContent: it is over `MAX_DOCUMENT` bytes, or not what the descriptor says.
    """
    if descriptor.size > MAX_DOCUMENT:
        raise InvalidContent(
            f"{descriptor.digest} has {descriptor.size} bytes, at most {MAX_DOCUMENT} are accepted"
        )
    with source.open(descriptor) as blob:
        raw = b"".join(blob)
    if (actual := Digest.of(raw, descriptor.digest.algorithm)) != descriptor.digest:
        raise DigestMismatch(descriptor.digest, actual)
    return raw


def select_platform(source: Source, root: Descriptor, platform: Platform | None) -> Descriptor:
    """Return the manifest below `root` that runs on `platform`; it keeps the name of `root`.

    A root that is no index is returned as it is, and so is any without a platform.

    Raises:
        NotFound: there is none for this platform.
        InvalidContent: an index is malformed, or indexes are nested too deeply.
    """
    if platform is None:
        return root
    found = root
    for _ in range(MAX_DEPTH):
        document = parse_manifest(read_document(source, found), found) if found.is_index else None
        if not isinstance(document, Index):
            return _renamed(found, root)
        found = _runnable(document, root, platform)
    raise InvalidContent(f"{root.digest} lies deeper than {MAX_DEPTH} indexes")


def _runnable(index: Index, root: Descriptor, platform: Platform) -> Descriptor:
    for descriptor in index.manifests:
        if descriptor.platform is not None and platform.runs(descriptor.platform):
            return descriptor
    there = ", ".join(str(d.platform) for d in index.manifests if d.platform is not None)
    raise NotFound(f"{platform} in {root.digest} (there: {there or 'no platforms'})")


def _renamed(descriptor: Descriptor, root: Descriptor) -> Descriptor:
    if descriptor is root or REF_NAME not in root.annotations:
        return descriptor
    annotations = {**descriptor.annotations, REF_NAME: root.annotations[REF_NAME]}
    return Descriptor(
        descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        annotations,
        descriptor.platform,
    )
