"""Undoes what `dedupe` did: gives names files of their own again, as a journal describes them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...oci.errors import Busy, InvalidContent, NotFound, OcistowError
from ..disk import Disk
from ..lock import TIMEOUT, take
from ..reading import BLOCK, READ_SIZE, digest_of_file, open_directory, open_file
from ..spares import is_spare, spare_name
from .duplicates import Left
from .foreign import opened_below
from .journal import Entry, entries

_THEIRS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}


@dataclass(slots=True)
class Undone:
    """What became of the names in a journal.

    Attributes:
        restored: those that stand for files of their own again.
        untouched: those that did already, whoever made it so.
        taken: bytes on disk that there are less.
        left: those that could not be restored.
    """

    restored: int = 0
    untouched: int = 0
    taken: int = 0
    left: list[Left] = field(default_factory=list[Left])


def undo(journal: Path, disk: Disk) -> Undone:
    """Restore all names of a journal with their former mode, owner and times.

    Names that were one file become one again. Can be interrupted at any point, and done again.

    Raises:
        NotFound: there is no such journal.
        InvalidContent: it is none.
        Busy: another process undoes one.
        OSError: the disk is full, or failed.
    """
    aside = open_directory(journal.parent)
    try:
        if not take(aside, fcntl.LOCK_EX, TIMEOUT):
            raise Busy(f"{journal.parent}: another process undoes a journal")
        undoing = _Undoing(disk, aside)
        undoing.sweep()
        for entry in entries(journal):
            undoing.recognise(entry)
        for entry in entries(journal):
            undoing.restore(entry)
        undoing.settle()
        return undoing.undone
    finally:
        os.close(aside)


class _Undoing:
    def __init__(self, disk: Disk, aside: int) -> None:
        self._disk = disk
        self._aside = aside  # where files wait for their names; on the same file system
        self._first: dict[tuple[int, int], Entry] = {}  # of several names of one file
        self._changed: set[Path] = set()
        self.undone = Undone()

    def sweep(self) -> None:
        """Remove what was on its way to a name when another process died: we are alone."""
        for name in filter(is_spare, os.listdir(self._aside)):
            self._disk.unlink(self._aside, name)

    def recognise(self, entry: Entry) -> None:
        """Note a name of a file with several that was restored before, so that others join it."""
        if entry.links == 1:
            return
        with (
            suppress(OcistowError, OSError),
            _opened(entry.top / entry.path.parent) as directory,
        ):
            status = os.stat(entry.path.name, dir_fd=directory, follow_symlinks=False)
            if _is_as_before(entry, status):
                self._first.setdefault((entry.device, entry.inode), entry)

    def restore(self, entry: Entry) -> None:
        """Give one name what it stood for."""
        try:
            with _opened(entry.top / entry.path.parent) as directory:
                opened = open_file(entry.path.name, directory)
                try:
                    is_restored = self._restore(entry, directory, opened)
                finally:
                    os.close(opened)
        except OcistowError as error:
            self._leave(entry, str(error))
        except OSError as error:
            if error.errno not in _THEIRS:
                raise
            self._leave(entry, error.strerror or str(error))
        else:
            self.undone.restored += is_restored
            self.undone.untouched += not is_restored

    def settle(self) -> None:
        """Return once the names survive power loss."""
        for path in self._changed:
            with suppress(NotFound, InvalidContent), _opened(path) as directory:
                self._disk.sync(directory)

    def _restore(self, entry: Entry, directory: int, opened: int) -> bool:
        status = os.fstat(opened)
        if _is_as_before(entry, status) or _is_another(entry, status):
            return False
        with self._keeping_times(directory):
            if not self._link_to_first(entry, directory):
                self._copy(entry, directory, opened)
                if entry.links > 1:
                    self._first[entry.device, entry.inode] = entry
            self._changed.add(entry.top / entry.path.parent)
        return True

    def _link_to_first(self, entry: Entry, directory: int) -> bool:
        """Let a name be one of the file that another name of it got back."""
        first = self._first.get((entry.device, entry.inode))
        if first is None or first.digest != entry.digest:
            return False
        spare = spare_name()
        try:
            with _opened(first.top / first.path.parent) as source:
                if not _is_as_before(
                    entry, os.stat(first.path.name, dir_fd=source, follow_symlinks=False)
                ):
                    return False
                if not self._disk.link(source, first.path.name, self._aside, spare):
                    return False
        except (OcistowError, FileNotFoundError):
            return False
        self._move(spare, directory, entry.path.name)
        return True

    def _copy(self, entry: Entry, directory: int, opened: int) -> None:
        copy = self._disk.create(self._aside, 0o600)
        try:
            if not self._disk.clone(opened, copy):
                offset = 0
                while data := os.pread(opened, READ_SIZE, offset):
                    self._disk.write(copy, data, offset)
                    offset += len(data)
            if digest_of_file(copy, entry.digest.algorithm) != entry.digest:
                raise InvalidContent("has other content by now")
            self._disk.own(copy, entry.mode, entry.user, entry.group)
            self._disk.set_times(copy, entry.accessed, entry.modified)
            self._disk.sync(copy)
            spare = spare_name()
            if not self._disk.name(copy, self._aside, spare):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), spare)
            self._move(spare, directory, entry.path.name)
            self.undone.taken += os.fstat(copy).st_blocks * BLOCK
        finally:
            self._disk.close(copy)

    def _move(self, spare: str, directory: int, name: str) -> None:
        try:
            self._disk.rename(self._aside, spare, directory, name)
        except BaseException:
            self._disk.unlink(self._aside, spare)
            raise

    @contextmanager
    def _keeping_times(self, directory: int) -> Generator[None]:
        before = os.fstat(directory)
        try:
            yield
        finally:
            with suppress(PermissionError):
                self._disk.set_times(directory, before.st_atime_ns, before.st_mtime_ns)

    def _leave(self, entry: Entry, why: str) -> None:
        self.undone.left.append(Left(entry.top / entry.path, why))


def _opened(path: Path) -> AbstractContextManager[int]:
    """Open a directory that was there, through no symbolic link: the path was one without any.

    Whoever owns a directory above could lead us elsewhere, where what they wrote gets an owner.
    """
    return opened_below(Path("/"), path.parts[1:])


def _is_as_before(entry: Entry, status: os.stat_result) -> bool:
    return status.st_nlink <= entry.links and (
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
    ) == (entry.mode, entry.user, entry.group, entry.modified)


def _is_another(entry: Entry, status: os.stat_result) -> bool:
    """Tell whether a name stands for a file that nobody else has, and that was not this one."""
    return status.st_nlink == 1 and status.st_ino != entry.inode
