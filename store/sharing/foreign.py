"""Layouts that are no store's: found below a directory that anybody may have filled.

What is found: image layouts, wherever they lie, also in each other, as pack's layout-repo-dir, a
CI cache and a registry's root directory such as zot's hold them; and directories of blobs that
several layouts share, as skopeo makes with --dest-shared-blob-dir. Nothing here changes anything.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ...oci.digest import HEX_LENGTHS, Digest, is_encoded
from ...oci.errors import InvalidContent, NotFound
from ...oci.image_layout import BLOBS, INDEX, MARKER
from ..layout import LAYOUTS
from ..reading import open_directory
from ..store import VERSION_FILE

MAX_DEPTH = 64  # directories below each other; each costs an open file while those in it are seen

Skip: TypeAlias = Callable[[Path, str], None]  # hears what was left out, and why

_LOST = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # removed, or replaced by something else
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class ForeignBlob:
    """A regular file that has the name of a blob; nobody vouches for what is in it."""

    digest: Digest
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class ForeignLayout:
    """A directory with blobs as it was when it was found.

    Attributes:
        top: the directory below which it was found.
        inside: where, relative to that.
        blob_directory: what holds the directories of algorithms, relative to the layout.
        is_image_layout: whether it has a file of a layout; otherwise others share its blobs.
    """

    top: Path
    inside: PurePosixPath
    blob_directory: PurePosixPath
    is_image_layout: bool

    @property
    def path(self) -> Path:
        """The directory."""
        return self.top / self.inside

    def blob_path(self, digest: Digest) -> Path:
        """Return where it has a blob."""
        return self.path / self.blob_directory / digest.algorithm / digest.encoded

    def blobs(self, skip: Skip | None = None) -> Iterator[ForeignBlob]:
        """Yield every blob that is there, unsorted.

        `skip` hears of names that are no regular files, and of directories that cannot be read.
        """
        for algorithm in HEX_LENGTHS:
            try:
                with self.opened(algorithm) as directory:
                    yield from self._blobs_in(directory, algorithm, skip)
            except NotFound:
                continue
            except InvalidContent:
                _tell(skip, self._at(algorithm), "not a directory")
            except OSError as error:
                _tell(skip, self._at(algorithm), error.strerror or str(error))

    @contextmanager
    def opened(self, algorithm: str) -> Generator[int]:
        """Open the directory of the blobs of one algorithm, below `top` through no symbolic link.

        Raises:
            NotFound: there is none.
            InvalidContent: something else is in its place, or on the way to it.
        """
        parts = (*self.inside.parts, *self.blob_directory.parts, algorithm)
        with opened_below(self.top, parts) as directory:
            yield directory

    def _at(self, algorithm: str) -> Path:
        return self.path / self.blob_directory / algorithm

    def _blobs_in(self, directory: int, algorithm: str, skip: Skip | None) -> Iterator[ForeignBlob]:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not is_encoded(algorithm, entry.name):
                    continue
                digest = Digest(algorithm, entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield ForeignBlob(digest, status)
                else:
                    _tell(skip, self.blob_path(digest), _KINDS[stat.S_IFMT(status.st_mode)])


@contextmanager
def opened_below(top: Path, parts: Iterable[str]) -> Generator[int]:
    """Open a directory below another, element by element and through no symbolic link.

    `top` may be one; with `/` as `top` no element of a whole path is.

    Raises:
        NotFound: there is none.
        InvalidContent: something else is in its place, or on the way to it.
    """
    names = tuple(parts)
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(top, flags | (os.O_PATH if names else os.O_RDONLY))
    try:
        for number, name in enumerate(names, 1):  # those on the way need not be readable
            how = os.O_PATH if number < len(names) else os.O_RDONLY
            below = _step(name, directory, top, flags | how)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def find_layouts(directory: Path, skip: Skip | None = None) -> Iterator[ForeignLayout]:
    """Yield the layouts at and below `directory`, those above before those below them.

    Symbolic links are not followed, `directory` itself may be one. Other file systems and
    stores of ocistow are left out, and told to `skip` with everything that cannot be read.
    Memory does not grow with the number of layouts. Blobs that lie in `sha256/…` rather than
    `blobs/sha256/…` are found if `directory` is where that lies: elsewhere the
    name means too little.

    Raises:
        OSError: `directory` itself cannot be read.
    """
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walk = _Walk(directory, os.fstat(top).st_dev, skip)
        yield from walk.at(top, PurePosixPath())
    finally:
        os.close(top)


@dataclass(frozen=True, slots=True)
class _Walk:
    top: Path
    device: int
    skip: Skip | None

    def at(self, directory: int, inside: PurePosixPath) -> Iterator[ForeignLayout]:
        """Yield the layout that an open directory is, and those below it."""
        names, files = _listed(directory)
        if VERSION_FILE in files and {BLOBS, LAYOUTS} <= names:
            _tell(self.skip, self.top / inside, "a store of ocistow")
            return
        marks = files & {INDEX, MARKER}
        if BLOBS in names and (marks or self._has_algorithms(directory, inside)):
            names.remove(BLOBS)
            yield ForeignLayout(self.top, inside, PurePosixPath(BLOBS), bool(marks))
        elif len(marks) == 2:  # its blobs are elsewhere
            yield ForeignLayout(self.top, inside, PurePosixPath(BLOBS), is_image_layout=True)
        elif not inside.parts and names & HEX_LENGTHS.keys():
            names -= HEX_LENGTHS.keys()
            yield ForeignLayout(self.top, inside, PurePosixPath(), is_image_layout=False)
        for name in sorted(names):
            with self._entered(directory, inside / name) as below:
                if below is not None:
                    yield from self.at(below, inside / name)

    def _has_algorithms(self, directory: int, inside: PurePosixPath) -> bool:
        with self._entered(directory, inside / BLOBS, quietly=True) as blobs:
            return blobs is not None and bool(_listed(blobs)[0] & HEX_LENGTHS.keys())

    @contextmanager
    def _entered(
        self, directory: int, inside: PurePosixPath, *, quietly: bool = False
    ) -> Generator[int | None]:
        """Open a directory that is to be looked at; None where it is left out."""
        skip = None if quietly else self.skip
        if len(inside.parts) > MAX_DEPTH:
            _tell(skip, self.top / inside, f"more than {MAX_DEPTH} directories deep")
            yield None
            return
        try:
            below = open_directory(inside.name, directory)
        except OSError as error:
            if error.errno not in _LOST:
                _tell(skip, self.top / inside, error.strerror or str(error))
            yield None
            return
        try:
            if os.fstat(below).st_dev != self.device:
                _tell(skip, self.top / inside, "another file system")
                yield None
            else:
                yield below
        finally:
            os.close(below)


def _listed(directory: int) -> tuple[set[str], set[str]]:
    """Return the names of directories in an open one, and which files tell what it is."""
    with os.scandir(directory) as entries:
        names: set[str] = set()
        files: set[str] = set()
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                names.add(entry.name)
            elif entry.name in (INDEX, MARKER, VERSION_FILE) and entry.is_file(
                follow_symlinks=False
            ):
                files.add(entry.name)
        return names, files


def _step(name: str, directory: int, top: Path, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        raise NotFound(f"{name} below {top}") from None
    except OSError as error:
        if error.errno in _LOST:
            raise InvalidContent(f"{name} below {top} is not a directory") from None
        raise


def _tell(skip: Skip | None, path: Path, why: str) -> None:
    if skip is not None:
        skip(path, why)
