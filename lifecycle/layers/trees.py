"""What goes into the layers of directories, of the launcher, and of process types.

Names in a directory are sorted as bytes, a directory comes before what it holds, and the
directories above the first one keep their owners and permissions. A tree may be changed by
others while it is read: nothing below its root is reached through a symbolic link.

Source: Go's lifecycle, layers/ and archive/; Go, filepath.Walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

from ...oci.errors import InvalidContent
from ...store.reading import open_directory
from ..golang.patterns import cleaned
from ..golang.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    REGULAR,
    SOCKET,
    SYMLINK,
    Entry,
)
from .tarball import LayerTar

LAUNCHER_ID = "buildpacksio/lifecycle:launcher"
PROCESS_TYPES_ID = "buildpacksio/lifecycle:process-types"
LAUNCHER = b"/cnb/lifecycle/launcher"

_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
}
_FORBIDDEN = "/><:|&\\"


def dir_layer(id: str, path: Path, uid: int, gid: int) -> LayerTar:
    """Return the layer of a directory: all of it becomes `uid`'s and `gid`'s, those above do not.

    What is there is looked at now, and read when the layer is. Sockets are left out.

    Raises:
        OSError: something cannot be read; `filename` is its whole path.
    """
    root = absolute(path)
    return LayerTar.of(id, [*ancestors(root), *walk(root, uid, gid)], partial(Tree, root))


def launcher_layer(path: Path) -> LayerTar:
    """Return the layer that has the launcher at its place, owned by root.

    Raises:
        InvalidContent: there is no regular file at `path`.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        cause = f"stat {path}: {(error.strerror or '').lower()}"
        raise InvalidContent(f"failed to stat launcher at path '{path}': {cause}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidContent(f"failed to write launcher to layer: read {path}: is a directory")
    directories = (_directory(b"/cnb"), _directory(b"/cnb/lifecycle"))
    launcher = Entry(LAUNCHER, REGULAR, 0o755, 0, 0, status.st_size)
    return LayerTar.of(LAUNCHER_ID, (*directories, launcher), partial(OneFile, path))


def process_types_layer(types: Sequence[str]) -> LayerTar:
    """Return the layer of one link to the launcher for each type of process, in their order.

    Raises:
        InvalidContent: a type is empty, or no file name.
    """
    for type in types:
        if not type:
            raise InvalidContent("type is required for all processes")
        if any(character in type for character in _FORBIDDEN):
            raise InvalidContent(
                f"invalid process type '{type}': type may not contain characters '{_FORBIDDEN}'"
            )
    directories = (_directory(b"/cnb"), _directory(b"/cnb/process"))
    links = (
        Entry(b"/cnb/process/" + os.fsencode(type), SYMLINK, 0o755, 0, 0, 0, LAUNCHER)
        for type in types
    )
    return LayerTar.of(PROCESS_TYPES_ID, (*directories, *links))


def absolute(path: Path) -> bytes:
    """Return a path from the root, without `.` and `..`, whatever is there."""
    return cleaned(os.path.abspath(os.fsencode(path)))


def ancestors(path: bytes) -> list[Entry]:
    """Return the directories above an absolute path, the uppermost first and without `/`.

    Raises:
        OSError: one cannot be looked at.
    """
    names = path.split(b"/")[1:-1]
    entries: list[Entry] = []
    for count in range(1, len(names) + 1):
        name = b"/" + b"/".join(names[:count])
        status = os.stat(name)
        entries.append(_entry(name, status, status.st_uid, status.st_gid))
    return entries


def walk(root: bytes, uid: int, gid: int) -> Generator[Entry]:
    """Yield what there is at an absolute path and below, owned by `uid` and `gid`.

    A socket has the kind `SOCKET`.

    Raises:
        OSError: something cannot be read; `filename` is its whole path.
    """
    above, _, name = root.rpartition(b"/")
    levels = [(os.open(above or b"/", _DIRECTORY), above, iter([name]))]
    path = root
    try:
        while levels:
            directory, above, names = levels[-1]
            following = next(names, None)
            if following is None:
                os.close(directory)
                levels.pop()
                continue
            name = following
            path = above + b"/" + name
            status = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
            is_link = stat.S_ISLNK(status.st_mode)
            target = os.readlink(name, dir_fd=directory) if is_link else b""
            yield _entry(path, status, uid, gid, target)
            if stat.S_ISDIR(status.st_mode):
                below = open_directory(name or b".", directory)
                levels.append((below, path.rstrip(b"/"), iter(())))
                found = sorted(map(os.fsencode, os.listdir(below)))
                levels[-1] = (below, path.rstrip(b"/"), iter(found))
    except OSError as error:
        error.filename = os.fsdecode(path)
        raise
    finally:
        for directory, _, _ in levels:
            os.close(directory)


class Tree:
    """The regular files at an absolute path and below. Not thread-safe."""

    def __init__(self, root: bytes) -> None:
        self._above = root.rpartition(b"/")[0]
        self._directory: bytes | None = self._above
        self._names: list[bytes] = []
        self._opened = [os.open(self._above or b"/", _DIRECTORY)]

    def open(self, name: bytes) -> int:
        """Open a file, by steps that follow no link.

        Raises:
            OSError: it is gone, or something else now; `filename` is its whole path.
        """
        directory, _, last = name.rpartition(b"/")
        try:
            if directory != self._directory:
                self._go(directory)
            file = os.open(last, _FILE, dir_fd=self._opened[-1])
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise OSError(errno.ESTALE, "is no regular file any more")
        except OSError as error:
            error.filename = os.fsdecode(name)
            raise
        return file

    def close(self) -> None:
        """Close its directories."""
        while self._opened:
            os.close(self._opened.pop())

    def _go(self, directory: bytes) -> None:
        wanted = directory[len(self._above) + 1 :].split(b"/") if directory != self._above else []
        shared = 0
        while self._names[shared : shared + 1] == wanted[shared : shared + 1] != []:
            shared += 1
        self._directory = None  # should a step fail
        while len(self._names) > shared:
            os.close(self._opened.pop())
            self._names.pop()
        for name in wanted[shared:]:
            self._opened.append(open_directory(name, self._opened[-1]))
            self._names.append(name)
        self._directory = directory


class OneFile:
    """The content of an archive with one file, which is called something else there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, name: bytes) -> int:
        """Open it, whatever the name.

        Raises:
            OSError: it cannot be opened.
        """
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        """Do nothing."""


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not wait


def _directory(name: bytes) -> Entry:
    return Entry(name, DIRECTORY, 0o755, 0, 0)


def _entry(name: bytes, status: os.stat_result, uid: int, gid: int, target: bytes = b"") -> Entry:
    mode = status.st_mode
    kind = _KINDS[stat.S_IFMT(mode)]
    if kind in (CHARACTER, BLOCK_DEVICE):
        device = os.major(status.st_rdev), os.minor(status.st_rdev)
        return Entry(name, kind, stat.S_IMODE(mode), uid, gid, 0, b"", *device)
    size = status.st_size if kind == REGULAR else 0
    return Entry(name, kind, stat.S_IMODE(mode), uid, gid, size, target)
