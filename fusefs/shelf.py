"""What a mount asks of whoever makes archives of its images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

from ..oci.digest import Digest
from ..store.reading import Portion


class Archived(Protocol):
    """An archive as it was when somebody looked."""

    @property
    def index(self) -> os.stat_result:
        """The attributes of the index of its image."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    @property
    def digest(self) -> Digest:
        """Equal for archives with the same bytes; not that of the bytes."""
        ...


class OpenArchive(Protocol):
    """An archive that stays as it is until it is closed, whatever becomes of its image."""

    @property
    def digest(self) -> Digest:
        """As in `Archived`."""
        ...

    def pieces(self, offset: int, size: int) -> Iterator[bytes | Portion]:
        """Yield what `size` bytes from `offset` on consist of; never waits."""
        ...

    def close(self) -> None:
        """Let go of its blobs."""
        ...


class Shelf(Protocol):
    """Archives by the paths of images below the layout root, with an ending. Thread-safe."""

    def list(self, directory: PurePosixPath) -> Sequence[str]:
        """Return the names that there may be in a directory.

        Raises:
            NotFound: there is none.
        """
        ...

    def find(
        self, path: PurePosixPath, known: os.stat_result | None = None
    ) -> Archived | os.stat_result | None:
        """Return an archive as it is now, or the attributes of a directory.

        None if that archive's index still has the attributes `known`.

        Raises:
            NotFound: there is neither.
            InvalidContent: the image is malformed, or cannot be such an archive.
        """
        ...

    def lacking(self, path: PurePosixPath) -> tuple[PurePosixPath, Mapping[Digest, int]]:
        """Return the image of an archive, and the blobs that it lacks, with their sizes.

        Raises:
            NotFound: there is no such archive.
            InvalidContent: as `find`.
        """
        ...

    def open(self, path: PurePosixPath) -> OpenArchive:
        """Open an archive as it is now.

        Raises:
            NotFound: there is none, or its image lacks a blob.
            InvalidContent: as `find`, or a blob has another size than announced.
        """
        ...
