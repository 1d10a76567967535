"""Caches: layers that a later build starts from, and what was known of them.

Source: Go's lifecycle, phase/cache.go.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ..oci.digest import CANONICAL, Digest
from ..publish.packing import Hashed
from ..publish.source import Stream
from ..store.blobs import READ_SIZE
from .labels import CacheMetadata


@dataclass(frozen=True, slots=True)
class Cached:
    """What became of a layer on its way into a cache.

    Attributes:
        reused: whether the cache had its bytes, so that none were written.
        fault: why the layer that the cache had under this diffID could not be reused, in the
            words of Go's lifecycle; empty if it had none or was not asked for it.
    """

    diff_id: Digest
    reused: bool
    fault: str = ""


class CacheWriter(Protocol):
    """One layer on its way into a cache. Not thread-safe."""

    def write(self, block: bytes) -> None:
        """Take the next bytes of the plain tar."""
        ...

    def finish(self, diff_id: Digest) -> Cached:
        """Keep what was written, as a layer; the caller vouches that it hashes to this.

        Raises:
            OSError: the cache has no room for it.
        """
        ...


class Cache(Protocol):
    """Layers and their metadata, in a directory or an image.

    What is read is what was committed last; what is written takes its place, as a whole, with
    `commit`, and is discarded when the block is left without. A layer that is neither written
    nor kept again is not in the cache any more. Thread-safe but for `commit`.
    """

    @property
    def name(self) -> str:
        """The directory, or the image's reference."""
        ...

    @property
    def exists(self) -> bool:
        """Whether it was found; a directory without layers was."""
        ...

    def metadata(self) -> CacheMetadata:
        """Return what was committed with the layers; empty if that cannot be understood."""
        ...

    def open(self, diff_id: Digest) -> AbstractContextManager[Stream]:
        """Open the plain tar of a layer.

        Raises:
            InvalidContent: it is absent, unreadable or not what it should be, in the words of
                Go's lifecycle; at the latest when a read reaches the end.
            RegistryError: the registry of a cache image refused.
        """
        ...

    def writer(self, likely: Digest | None = None) -> AbstractContextManager[CacheWriter]:
        """Start a layer; what was not finished when the block is left is discarded.

        `likely` is the diffID that the layer had last time: as long as its bytes are those of
        the layer in the cache, nothing is written.
        """
        ...

    def keep(self, diff_id: Digest) -> bool:
        """Take a layer over from what was committed, unread; False if it is not there."""
        ...

    def commit(self, metadata: CacheMetadata | None = None) -> None:
        """Put what was written in the place of what was there.

        At every moment, and after every crash, the whole old or the whole new cache is there.

        Raises:
            OSError, RegistryError: it stays what it was.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def add(cache: Cache, tar: Stream, likely: Digest | None = None) -> Cached:
    """Write all of a plain tar into a cache."""
    hashed = Hashed(tar, likely.algorithm if likely else CANONICAL)
    with cache.writer(likely) as writer:
        while block := hashed.read(READ_SIZE):
            writer.write(block)
        return writer.finish(hashed.digest)
