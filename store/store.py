"""A store: one pool of blobs, many layouts, a lock and a format version.

The format is specified in docs/format.md.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Self

from ..oci.descriptor import REF_NAME, Descriptor
from ..oci.document import parse_object
from ..oci.errors import InvalidContent, NotFound
from ..oci.image_layout import BLOBS, INDEX, MARKER
from ..oci.manifest import Index
from ..oci.reference import Reference
from .blobs import BlobStore
from .disk import Disk, make_directory
from .files import Files
from .index.checksums import Checksums
from .index.database import IndexDatabase
from .index.layers import Layers
from .index.locations import Locations
from .index.uploads import Uploads
from .layout import LAYOUTS, Layout
from .layout_directory import LayoutDirectory
from .leases import Leases
from .lock import Lock
from .named_disk import NamedDisk, disk_of
from .names import Search, is_file, layouts_below
from .quarantine import Quarantine
from .reading import open_directory
from .remotes import Remotes

VERSION = 1

VERSION_FILE = "ocistow.json"
_LOCK = "lock"
_INDEX = "index.sqlite"
_LEASES = "leases"
_MAX_VERSION_FILE = 4096  # bytes


class Store:
    """A directory with a pool and layouts. Thread-safe; several processes may have it open.

    Attributes:
        prefix: what stands in for the layout root, below that; empty for itself.
    """

    def __init__(
        self,
        path: Path,
        blobs: BlobStore,
        layouts: int,
        disk: Disk,
        prefix: PurePosixPath = PurePosixPath(),  # noqa: B008 - it is immutable
    ) -> None:
        self.prefix = prefix
        self._layouts = layouts
        self._disk = disk
        self.lock = Lock(path / _LOCK)
        self.path = path
        self.blobs = blobs
        self.files = Files(layouts, blobs, disk)
        self.index = IndexDatabase(path / _INDEX)
        self.leases = Leases(path / _LEASES)
        self.layers = Layers(self.index)
        self.checksums = Checksums(self.index)
        self.locations = Locations(self.index)
        self.uploads = Uploads(self.index)
        self.remotes = Remotes(path, disk, self.lock)
        self.quarantine = Quarantine(path, blobs, self.layout, disk, self.lock)

    @classmethod
    def open(cls, path: Path, disk: Disk | None = None) -> Self:
        """Open the store at `path`; the caller closes it.

        Raises:
            NotFound: there is none.
            InvalidContent: it has a format that this version does not know.
        """
        disk = disk or Disk()
        try:
            with (path / VERSION_FILE).open("rb") as file:
                raw = file.read(_MAX_VERSION_FILE)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"a store at {path}") from None
        version = parse_object(raw, str(path / VERSION_FILE)).get("version")
        if not isinstance(version, int) or isinstance(version, bool):
            raise InvalidContent(f"{path / VERSION_FILE} does not state a version")
        if version != VERSION:
            raise InvalidContent(f"{path} has format version {version}, expected {VERSION}")
        blobs = BlobStore(path / BLOBS, disk)
        try:
            return cls(path, blobs, open_directory(path / LAYOUTS), disk)
        except BaseException:
            blobs.close()
            raise

    @classmethod
    def create(cls, path: Path, disk: Disk | None = None) -> Self:
        """Open the store at `path`, making it if there is none.

        The version file is written last, so that a creation that was interrupted
        is simply done again.

        Raises:
            InvalidContent: `path` holds something else, or another format.
            OSError: the file system has no unnamed files; or the like.
        """
        disk = disk or Disk()
        try:
            cls.open(path, disk).close()
        except NotFound:
            cls._begin(path.resolve(), disk)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            disk.sync(root)  # the version file's name; who gave it may have died before
        finally:
            os.close(root)
        return cls.open(path, disk)

    @staticmethod
    def _begin(path: Path, disk: Disk) -> None:
        _check_file_system(path)
        make_directory(path, disk)
        ours = {BLOBS, LAYOUTS, _LOCK, VERSION_FILE, "lost+found"}
        strays = sorted(set(os.listdir(path)) - ours)
        if strays and not (path / VERSION_FILE).exists():  # else another process was faster
            raise InvalidContent(f"{path} is no store and not empty: it holds {strays[0]!r}")
        with Lock(path / _LOCK).held():
            root = open_directory(path)
            try:
                disk.mkdir(root, BLOBS)
                disk.mkdir(root, LAYOUTS)
                file = disk.create(root, 0o644)
                try:
                    disk.write(file, json.dumps({"version": VERSION}).encode() + b"\n", 0)
                    disk.sync(file)
                    disk.sync(root)
                    disk.name(file, root, VERSION_FILE)
                finally:
                    disk.close(file)
            finally:
                os.close(root)

    def below(self, prefix: PurePosixPath, *, create: bool) -> Self:
        """Open this store so that a directory below the layout root stands in for that.

        The caller closes it, too.

        Raises:
            NotFound: it is not there, and not to be made.
            InvalidContent: it is no directory, or the path is none below the root.
        """
        if not _is_inside(str(prefix)):
            raise InvalidContent(f"not a path below the layout root: {str(prefix)[:200]!r}")
        directory = LayoutDirectory(self._layouts, prefix, self._disk)
        with directory.opened(create=create, sync=create) as found:
            layouts = os.dup(found)
        blobs = BlobStore(self.path / BLOBS, self._disk)
        blobs.recorder = self.blobs.recorder
        return type(self)(self.path, blobs, layouts, self._disk, prefix)

    def record_checksums(self) -> None:
        """From now on take the BLAKE3 of what comes in, too: a seventh of the ingest's time."""
        self.blobs.recorder = self.checksums.add

    @property
    def layouts(self) -> Path:
        """The directory that a mount shows."""
        return self.path / LAYOUTS / self.prefix

    def layout(self, name: PurePosixPath) -> Layout:
        """Return the layout with this path below the layout root, which need not exist yet.

        Raises:
            InvalidContent: the path would leave the root.
        """
        if name.is_absolute() or ".." in name.parts or "\0" in str(name):
            raise InvalidContent(f"not a path below the layout root: {str(name)[:200]!r}")
        return Layout(self._layouts, name, self.blobs, self._disk, self.lock)

    def find(self, text: str) -> Layout:
        """Return the layout that a user's word names: a reference, or a path as `names` gives it.

        It may lack its index, if its writing or its removal was interrupted.

        Raises:
            NotFound: there is no such layout.
            InvalidContent: the word is neither a reference nor a path below the root.
        """
        try:
            reference = Reference.parse(text)
        except InvalidContent:
            if not _is_inside(text):
                raise
        else:
            if self._is_begun(reference.path):
                return self.layout(reference.path)
        if _is_inside(text) and self._is_begun(PurePosixPath(text)):
            return self.layout(PurePosixPath(text))
        raise NotFound(text)

    def names(self, words: Sequence[str] = ()) -> Search:
        """Return the paths below the layout root of all layouts, or those that words mean, sorted.

        Raises:
            InvalidContent: a word cannot mean any: see `Pattern.parse`.
        """
        return Search(self.layouts, words)

    def put(self, reference: Reference, root: Descriptor) -> Layout:
        """Give the image whose blobs are in the pool a name, replacing what had it.

        Raises:
            NotFound: the pool lacks a manifest or config of the image.
            InvalidContent: the image is malformed, or the name would lie inside
                another layout or hold one.
        """
        annotations = {k: v for k, v in root.annotations.items() if k != REF_NAME}
        if reference.tag:
            annotations[REF_NAME] = reference.tag
        named = replace(root, annotations=annotations)
        layout = self.layout(reference.path)
        with self.lock.held():
            self._check_nesting(reference)
            layout.commit(Index.of([named]))
        return layout

    def close(self) -> None:
        """Close the store."""
        self.blobs.close()
        if self._layouts >= 0:
            os.close(self._layouts)
            self._layouts = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has(self, layout: PurePosixPath, file: str) -> bool:
        """Tell whether a layout has a file; a directory of that name may be another layout."""
        return is_file(self.layouts / layout / file)

    def _is_begun(self, layout: PurePosixPath) -> bool:
        return self._has(layout, INDEX) or self._has(layout, MARKER)

    def _check_nesting(self, reference: Reference) -> None:
        path = reference.path
        for above in path.parents[:-1]:
            if self._is_begun(above):
                raise InvalidContent(f"{reference} would lie inside the layout {above}")
        below = next((name for name in layouts_below(self.layouts, path) if name != path), None)
        if below is not None:
            raise InvalidContent(f"{reference} would hold the layout {below}")


def _check_file_system(path: Path) -> None:
    """Refuse one on which a process that dies would leave its files behind."""
    there = next(above for above in (path, *path.parents) if above.is_dir())
    directory = open_directory(there)
    try:
        if isinstance(disk_of(directory), NamedDisk):
            raise OSError(
                errno.EOPNOTSUPP,
                "a store needs a file system with unnamed files (O_TMPFILE), "
                "such as ext4, XFS, btrfs or tmpfs",
                str(path),
            )
    finally:
        os.close(directory)


def _is_inside(text: str) -> bool:
    """Tell whether text is a plain relative path: no `..`, no empty or control characters."""
    return text.isprintable() and all(part not in ("", ".", "..") for part in text.split("/"))
