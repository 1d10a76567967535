"""A plain layout outside the store whose blobs are links to the pool, where that is possible."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.descriptor import Descriptor
from ..oci.document import Object
from ..oci.errors import Busy, InvalidContent
from ..oci.image_layout import BLOBS
from ..store.disk import Disk, make_directory
from ..store.links import Links, Way
from ..store.reading import open_directory
from .layout_sink import LayoutSink
from .sink import Action, Image
from .source import Source

_ITSELF = PurePosixPath()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layout lies.

    Attributes:
        directory: that somebody asked for; links may lead to it.
        below: where in it the layout is, if it is not the directory itself. No link leads
            anywhere from there.
        name: of the image in the layout; empty for the one it has already, if any.
        shared: the directory that has the blobs, instead of the layout's own.
    """

    directory: Path
    below: PurePosixPath = _ITSELF
    name: str = ""
    shared: Path | None = None

    @property
    def path(self) -> Path:
        """Where the layout is."""
        return self.directory / self.below

    @property
    def blobs(self) -> Path:
        """Where the directories of its blobs are."""
        return self.shared or self.path / BLOBS


class LinkSink(LayoutSink):
    """A name in such a layout. What the layout has otherwise stays, but for the image before.

    Attributes:
        ways: how many blobs were given their names, and their bytes, by how that was done;
            None stands for those that were there.
    """

    def __init__(self, place: Place, links: Links, disk: Disk | None = None) -> None:
        """Name a place; nothing is made yet.

        Args:
            place: where.
            links: to the pool.
            disk: to write to; by default the one that the file system needs.
        """
        real = Path(os.path.realpath(place.directory))
        shared = Path(os.path.realpath(place.shared)) if place.shared is not None else None
        self._place = Place(real, place.below, place.name, shared)
        super().__init__(self._place.path, place.name, disk=disk)
        self._links = links
        self._image: Image | None = None
        self._counting = threading.Lock()
        self._made: list[Path] = []  # directories that were not there
        self._durable: set[Path] = set()  # directories whose names survive power loss
        self._shares = False  # `links` does that
        self._prunes = (
            bool(place.below.parts) and shared is None and Way.SYMLINK not in links.ways
        )  # what other images, or other layouts, need too is not ours to remove
        self.ways: dict[Way | None, tuple[int, int]] = {}

    def begin(self, image: Image) -> None:
        """Make the directories, or see that there is a layout.

        Raises:
            InvalidContent: there is something else.
        """
        self._image = image
        super().begin(image)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the blob is there in the best way; `put_blob` sees to the others."""
        with self._blobs(descriptor.digest.algorithm) as names:
            there = self._links.is_there(descriptor.digest, names)
        if there:
            self._count(None, descriptor)
        return there

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Take a blob, in the place of what is something else.

        Raises:
            OSError: no way is possible; or the disk is full, or the like.
        """
        digest = descriptor.digest
        source.open(descriptor).close()  # some must be fetched, and all have the right size
        for way in self._links.ways:
            if way in (Way.REFLINK, Way.COPY) and self._has_own(descriptor):
                self._count(None, descriptor)
                return Action.PRESENT
            if way is Way.COPY:
                super().put_blob(descriptor, source)
                self._links.copied(digest, self._place.blobs / digest.algorithm / digest.encoded)
            else:
                with self._blobs(digest.algorithm) as names:
                    if not self._links.make(way, digest, names, self._disk):
                        continue
            self._count(way, descriptor)
            return Action.SENT
        raise self._links.refusal()

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest, which is a blob like others."""
        assert self._image is not None
        self.put_blob(descriptor, self._image.source)

    def discard(self) -> None:
        """Remove the directories that were made, unless something is in them."""
        for path in reversed(self._made):
            with suppress(OSError):
                above = open_directory(path.parent)
                try:
                    self._disk.rmdir(above, path.name)
                finally:
                    os.close(above)

    def _has_own(self, descriptor: Descriptor) -> bool:
        """Tell whether there is a file with the blob's content that is not the pool's."""
        with self._blobs(descriptor.digest.algorithm) as names:
            if self._links.is_pools(descriptor.digest, names):
                return False
        return super().has(descriptor)

    def _with(self, root: Descriptor, document: Object) -> bytes:
        """Return the index, while nobody of ours prunes; another may have, a moment ago."""
        assert self._image is not None
        for node in self._image.nodes:
            if self._size(node.descriptor.digest) is None:
                raise Busy(f"{self._path}: another process took {node.descriptor.digest} away")
        return super()._with(root, document)

    def _count(self, way: Way | None, descriptor: Descriptor) -> None:
        with self._counting:
            blobs, size = self.ways.get(way, (0, 0))
            self.ways[way] = blobs + 1, size + descriptor.size

    def _make(self) -> None:
        self._make_all(self._place.directory)
        with self._walk(self._place.directory, *self._place.below.parts, create=True):
            pass

    def _make_blobs(self) -> None:
        top, *below = self._blobs_below()
        if self._place.shared is not None:
            self._make_all(self._place.shared)
        for algorithm in sorted(self._algorithms):
            with self._walk(Path(top), *below, algorithm, create=True) as names:
                self._disk.sweep(names)

    def _make_all(self, path: Path) -> None:
        missing = [above for above in (path, *path.parents) if not above.exists()]
        make_directory(path, self._disk)
        self._made += reversed(missing)

    def _blobs_below(self) -> tuple[str, ...]:
        """Return a directory that is taken as it is, and the way from there to the blobs."""
        if self._place.shared is not None:
            return (str(self._place.shared),)
        return (str(self._place.directory), *self._place.below.parts, BLOBS)

    def _blobs(self, algorithm: str) -> AbstractContextManager[int]:
        top, *below = self._blobs_below()
        return self._walk(Path(top), *below, algorithm)

    @contextmanager
    def _opened(self, *below: str) -> Generator[int]:
        with self._walk(self._place.directory, *self._place.below.parts, *below) as directory:
            yield directory

    @contextmanager
    def _walk(self, top: Path, *below: str, create: bool = False) -> Generator[int]:
        """Open a directory step by step, so that no link below the first leads elsewhere."""
        directory, path = open_directory(top), top
        try:
            for name in below:
                path /= name
                if create:
                    if self._disk.mkdir(directory, name):
                        self._made.append(path)
                    if path not in self._durable:
                        self._disk.sync(directory)  # who made it before may have died
                        self._durable.add(path)
                step = self._step(directory, name, path)
                os.dup2(step, directory, inheritable=False)
                os.close(step)
            yield directory
        finally:
            os.close(directory)

    def _step(self, directory: int, name: str, path: Path) -> int:
        try:
            return open_directory(name, directory)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise InvalidContent(f"{path} is not a directory") from None
