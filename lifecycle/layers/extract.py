"""Layers back on disk: what is in a plain tar goes where the tar says, below one directory.

Source: Go's lifecycle, archive/extract.go. Owners and times stay those of whoever unpacks.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from ...oci.errors import InvalidContent
from ...publish.archives.entries import DIRECTORY, REGULAR, SYMLINK, Entries, Entry, Forward
from ...publish.source import Stream
from ...store.reading import READ_SIZE, open_directory

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Misplaced(InvalidContent):
    """A layer that was made for another directory.

    Attributes:
        name: what of it lies elsewhere.
        directory: where it should lie.
    """

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name, directory)
        self.name = name
        self.directory = directory

    def __str__(self) -> str:
        return f"{self.name!r} lies outside of {str(self.directory)!r}"


def extract(tar: Stream, layers_dir: Path, *names: str) -> None:
    """Unpack the layer of `layers_dir/names…`, whose names are absolute; reads to its end.

    Only `layers_dir` must exist. Directories above that of the layer may be in the tar, and are
    left alone, as all that are there already. Other files are replaced. No symbolic link is
    followed, wherever it comes from, but any is made. Thread-safe: the umask stays.

    Raises:
        Misplaced: something would lie elsewhere.
        InvalidContent: the tar is damaged, or has a name with `..`, a name below a symbolic link,
            a hard link or a device.
        OSError: the disk refused. What came before stays.
    """
    with _Tree(layers_dir, names) as tree:
        entries = Entries(Forward(tar), "layer")
        for entry in entries:
            parts = tree.place(entry.name)
            is_directory = entry.kind == DIRECTORY or (
                entry.kind in REGULAR and entry.name.endswith("/")
            )
            if is_directory:
                tree.directory(parts, entry.mode)
            elif entry.kind in REGULAR:
                tree.file(parts, entry.mode, entries, entry)
            elif entry.kind == SYMLINK:
                tree.symlink(parts, entry)
            else:
                raise InvalidContent(f"unknown file type in tar {entry.kind[0]}")
        tree.finish()
    while tar.read(READ_SIZE):
        pass  # what checks its digest does so at its end


class _Tree:
    """What is below the directory, as open descriptors and single names."""

    def __init__(self, layers_dir: Path, names: tuple[str, ...]) -> None:
        self._directory = layers_dir.joinpath(*names)
        self._layers_dir = _split(str(layers_dir))
        self._names = names
        self._modes: list[tuple[tuple[str, ...], int]] = []
        self._current: tuple[tuple[str, ...], int] = ((), -1)
        self._root = open_directory(layers_dir.resolve())

    def place(self, name: str) -> tuple[str, ...]:
        """Return the path of an entry below `layers_dir`; none for what is above that."""
        parts = _split(name)
        if ".." in parts or "\0" in name:
            raise InvalidContent(f"layer: {name[:200]!r} is no name")
        whole = (*self._layers_dir, *self._names)
        if parts[: len(whole)] == whole or parts == whole[: len(parts)]:
            return parts[len(self._layers_dir) :]
        raise Misplaced(name[:200], self._directory)

    def directory(self, parts: tuple[str, ...], mode: int) -> None:
        """Make a directory, unless it is there; its mode is set at the end."""
        if not parts:
            return
        above = self._opened(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=above)
        except FileExistsError:
            os.close(_inside(parts, above))
        else:
            self._modes.append((parts, mode))

    def file(self, parts: tuple[str, ...], mode: int, entries: Entries, entry: Entry) -> None:
        """Write a regular file."""
        above = self._above_of(parts, entry.name)
        try:
            file = os.open(parts[-1], _NEW, 0o600, dir_fd=above)
        except FileExistsError:
            os.unlink(parts[-1], dir_fd=above)
            file = os.open(parts[-1], _NEW, 0o600, dir_fd=above)
        try:
            while block := entries.read(entry, READ_SIZE):
                _write(file, block)
            os.fchmod(file, mode)  # whatever the umask; and a write takes setuid away
        finally:
            os.close(file)

    def symlink(self, parts: tuple[str, ...], entry: Entry) -> None:
        """Make a symbolic link."""
        above = self._above_of(parts, entry.name)
        try:
            os.symlink(entry.target, parts[-1], dir_fd=above)
        except FileExistsError:
            os.unlink(parts[-1], dir_fd=above)
            os.symlink(entry.target, parts[-1], dir_fd=above)

    def finish(self) -> None:
        """Give the directories that were made their modes, the lowest first."""
        for parts, mode in reversed(self._modes):
            directory = _inside(parts, self._opened(parts[:-1]))
            try:
                os.fchmod(directory, mode)
            finally:
                os.close(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        os.close(self._root)

    def _above_of(self, parts: tuple[str, ...], name: str) -> int:
        if len(parts) < max(1, len(self._names)):
            raise Misplaced(name[:200], self._directory)
        return self._opened(parts[:-1])

    def _opened(self, parts: tuple[str, ...]) -> int:
        """Return a descriptor of a directory, made if absent; it lasts until the next call."""
        known, directory = self._current
        if parts == known:
            return self._root if directory < 0 else directory
        if directory < 0 or parts[: len(known)] != known:
            self._leave()
            known, directory = (), os.dup(self._root)
        else:
            self._current = ((), -1)
        try:
            for depth in range(len(known), len(parts)):
                below = self._step(parts[: depth + 1], directory)
                os.close(directory)
                directory = below
        except BaseException:
            os.close(directory)
            raise
        self._current = (parts, directory)
        return directory

    def _step(self, parts: tuple[str, ...], above: int) -> int:
        try:
            return _inside(parts, above)
        except FileNotFoundError:
            os.mkdir(parts[-1], 0o777, dir_fd=above)  # less the umask, as it is not in the tar
        return _inside(parts, above)

    def _leave(self) -> None:
        if self._current[1] >= 0:
            os.close(self._current[1])
        self._current = ((), -1)


def _inside(parts: tuple[str, ...], above: int) -> int:
    """Open the directory that a path ends with.

    Raises:
        InvalidContent: something else has the name.
    """
    try:
        return open_directory(parts[-1], above)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        path = "/".join(parts)
        raise InvalidContent(f"layer: {path[:200]!r} is no directory") from None


def _split(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in {"", "."})


def _write(file: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(file, left) :]
