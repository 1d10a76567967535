"""How a blob of the pool can lie in a directory outside the store: linked, shared or copied."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..oci.digest import Digest
from ..oci.errors import NotFound
from .blobs import CANNOT_LINK, BlobStore
from .disk import Disk
from .output import replacing
from .reading import open_directory
from .spares import spare_name


class Way(StrEnum):
    """What the name of a blob stands for."""

    HARDLINK = "hardlink"  # the pool's own file
    REFLINK = "reflink"  # a file that shares the bytes of the pool's until one of them changes
    SYMLINK = "symlink"  # the path of the pool's file
    COPY = "copy"  # a file of its own


WORDS = {
    Way.HARDLINK: "hard link",
    Way.REFLINK: "reflink",
    Way.SYMLINK: "symbolic link",
    Way.COPY: "copy",
}
AUTO = (Way.HARDLINK, Way.REFLINK, Way.COPY)  # the one that costs least first

_IMPOSSIBLE = CANNOT_LINK | {errno.EACCES, errno.EROFS}
_ELSEWHERE = "it lies on another file system than the store"
_NONE = {
    Way.HARDLINK: "the file system has no hard links",
    Way.REFLINK: "the file system cannot share bytes between files",
    Way.SYMLINK: "the file system has no symbolic links",
}
_OTHERS = "the blobs are another user's (see protected_hardlinks in proc(5))"
_EXHAUSTED = "a blob has all the links its file system allows, and the store cannot be written to"


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy that was made of a blob, to be linked in its turn."""

    directory: Path
    inode: int


class Links:
    """Gives blobs of a pool names elsewhere. Thread-safe.

    The pool's word is taken for what its files hold: nothing is read.

    Attributes:
        ways: those that may be taken, the best first.
        obstacles: why ways were not taken, as clauses.
    """

    def __init__(self, blobs: BlobStore, ways: Sequence[Way] = AUTO) -> None:
        self._blobs = blobs
        self._pool = Path(os.path.realpath(blobs.path))
        self._lock = threading.Lock()
        self._copies: dict[Digest, _Copy] = {}
        self.ways = tuple(ways)
        self.obstacles: dict[Way, str] = {}

    def is_there(self, digest: Digest, directory: int) -> bool:
        """Tell whether a blob's name in an open directory is already what the first way makes."""
        if self.ways[0] is Way.SYMLINK:
            with suppress(OSError):
                return os.readlink(digest.encoded, dir_fd=directory) == self._target(digest)
            return False
        return self.ways[0] is Way.HARDLINK and self.is_pools(digest, directory)

    def is_pools(self, digest: Digest, directory: int) -> bool:
        """Tell whether a blob's name in an open directory stands for the pool's own file."""
        try:
            there = os.stat(digest.encoded, dir_fd=directory, follow_symlinks=False)
            return os.path.samestat(there, self._blobs.stat(digest))
        except (FileNotFoundError, NotFound):
            return False

    def make(self, way: Way, digest: Digest, directory: int, disk: Disk) -> bool:
        """Give a blob its name in an open directory, in one step; False if this way is impossible.

        What had the name loses it. The caller syncs the directory. No way makes copies here.

        Args:
            way: how.
            digest: of the blob.
            directory: where it gets the name that blobs have.
            disk: that of the directory.
        """
        try:
            if way is Way.HARDLINK:
                self._hard_link(digest, directory, disk)
            elif way is Way.REFLINK:
                self._reflink(digest, directory, disk)
            elif way is Way.SYMLINK:
                self._symlink(digest, directory, disk)
            else:
                return False
        except NotFound:
            self._note(way, "only the image's layout has a blob, not the pool")
            return False
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            self._note(way, self._obstacle(way, digest, directory, error))
            return False
        return True

    def copied(self, digest: Digest, path: Path) -> None:
        """Remember the path of a copy: where the pool's file cannot be linked, this can."""
        with self._lock:
            self._copies.setdefault(digest, _Copy(path.parent, path.lstat().st_ino))

    def refusal(self) -> OSError:
        """Return the error that no way is possible."""
        why = "; ".join(dict.fromkeys(self.obstacles.values()))
        ways = " or ".join(WORDS[way] for way in self.ways)
        return OSError(errno.EOPNOTSUPP, f"no {ways} can be made: {why}")

    def _hard_link(self, digest: Digest, directory: int, disk: Disk) -> None:
        try:
            self._blobs.hard_link(digest, directory, digest.encoded, aside=directory)
        except OSError as error:
            if error.errno not in _IMPOSSIBLE or not self._link_copy(digest, directory, disk):
                raise

    def _link_copy(self, digest: Digest, directory: int, disk: Disk) -> bool:
        """Link a copy that was made before; False if there is none that is as it was."""
        with self._lock:
            copy = self._copies.get(digest)
        if copy is None:
            return False
        spare = spare_name()
        try:
            there = open_directory(copy.directory)
            try:
                disk.link(there, digest.encoded, directory, spare)
            finally:
                os.close(there)
        except OSError:
            return False
        try:
            status = os.stat(spare, dir_fd=directory, follow_symlinks=False)
            if status.st_ino != copy.inode or not stat.S_ISREG(status.st_mode):
                return False
            disk.rename(directory, spare, directory, digest.encoded)
        finally:
            disk.unlink(directory, spare)  # it stays, too, if both names are of one file
        return True

    def _reflink(self, digest: Digest, directory: int, disk: Disk) -> None:
        source = self._blobs.open(digest)
        try:
            with replacing(directory, digest.encoded, disk) as file:
                if not disk.clone(source, file):
                    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        finally:
            os.close(source)

    def _symlink(self, digest: Digest, directory: int, disk: Disk) -> None:
        self._blobs.stat(digest)
        target = self._target(digest)
        if disk.symlink(target, directory, digest.encoded):
            return
        spare = spare_name()
        if not disk.symlink(target, directory, spare):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), spare)
        try:
            disk.rename(directory, spare, directory, digest.encoded)
        except BaseException:
            disk.unlink(directory, spare)
            raise

    def _target(self, digest: Digest) -> str:
        """Return an absolute path: layouts are moved more often than stores."""
        return str(self._pool / digest.algorithm / digest.encoded)

    def _obstacle(self, way: Way, digest: Digest, directory: int, error: OSError) -> str:
        if error.errno == errno.EMLINK or (way is Way.HARDLINK and error.errno == errno.EROFS):
            return _EXHAUSTED
        if way is not Way.SYMLINK and os.fstat(directory).st_dev != os.stat(self._pool).st_dev:
            return _ELSEWHERE
        if error.errno == errno.EXDEV:
            return _ELSEWHERE.replace("file system", "mount")
        if error.errno == errno.EACCES:
            return "the directory does not let this user"
        if way is Way.HARDLINK and error.errno == errno.EPERM:
            owner = self._blobs.stat(digest).st_uid
            return _NONE[way] if os.geteuid() in (0, owner) else _OTHERS
        return _NONE[way]

    def _note(self, way: Way, why: str) -> None:
        with self._lock:
            self.obstacles.setdefault(way, why)
