"""Caches: layers that a later build starts from, and what was known of them.

Source: Go's lifecycle, phase/cache.go.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from ...oci.digest import Digest
from ...publish.source import Stream
from ..files.labels import CacheMetadata
from ..layers.tarball import LayerTar


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


class Cache(Protocol):
    """Layers and their metadata, in a directory or an image.

    What is read is what was committed last; what is written takes its place, as a whole, with
    `commit`, and is discarded when the block is left without. A layer that is neither added
    nor kept is not in the cache any more. Thread-safe but for `commit`.
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

    def add(self, tar: LayerTar, likely: Digest | None = None) -> Cached:
        """Take a layer, which had the diffID `likely` last time.

        What the cache has already is only compared.

        Raises:
            InvalidContent: a file became shorter while it was read.
            OSError: the layer cannot be read, or the cache has no room for it.
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

    def __exit__(self, *_: object) -> None: ...
