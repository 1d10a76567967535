"""What layouts that are no store's could share: a plan, made by reading alone.

A file counts as a blob once its bytes were hashed and gave its name, and only as long as nothing
about its inode changed since. Each inode is read once, whatever names it has; what shares
the pool's bytes already is not read at all. `replacement.py` carries a plan out.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...oci.digest import Digest, new_hash
from ...oci.errors import DigestMismatch, InvalidContent, NotFound
from ..blobs import BlobStore
from ..disk import Disk
from ..extents import INLINE, SHARED, cannot_tell, extents, places
from ..reading import READ_SIZE, open_file
from .duplicates import File, Group, Left, Mode, Plan, Tally, Watch
from .foreign import ForeignLayout, find_layouts

HASHERS = 2  # threads
MANY_LINKS = 60_000  # names after which an inode is shared enough: ext4 allows 65,000
CHANGED = "changed since it was found"
ATTRIBUTES = "has attributes that no link would keep"
WRITTEN = "open for writing, or another user's, so that nobody can tell"

_READ_ONLY = 0o444
_SPECIAL = 0o7000  # bits of a mode, such as set-user-ID
_LABELS = {"security.selinux", "security.SMACK64", "security.ima", "security.evm"}  # of each file
_TICK = 0.02  # seconds; file times come from a clock that moves every 1 to 10 ms
_SECOND = 1.01  # where a file system notes whole seconds
_UNREADABLE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.ESTALE}


def plan(
    directories: Sequence[Path], pool: BlobStore | Path, mode: Mode, watch: Watch | None = None
) -> Plan:
    """Return what sharing all blobs below the directories means; nothing changes.

    `pool` is a path where there is no store yet: a directory on the file system that it
    would be on.

    Raises:
        OSError: a directory cannot be read, or lies on another file system (EXDEV); or reflinks
            are wanted where there are none (EOPNOTSUPP).
    """
    return _Planner(pool, watch).plan(_outermost(directories), mode)


class _Planner:
    def __init__(self, pool: BlobStore | Path, watch: Watch | None) -> None:
        self._pool = pool if isinstance(pool, BlobStore) else None
        self._place = pool.path if isinstance(pool, BlobStore) else pool
        self._device = self._place.stat().st_dev
        self._watch = watch
        self._disk = Disk()
        space = os.statvfs(self._place)
        self._hashing = _Hashing(watch, space.f_blocks * space.f_frsize, self._disk)
        self._lock = threading.Lock()  # of the plan, while files are hashed
        self._plan = Plan(Mode.HARDLINK)
        self._tallies: dict[ForeignLayout, Tally] = {}

    def plan(self, directories: Sequence[Path], mode: Mode) -> Plan:
        for directory in directories:
            if directory.stat().st_dev != self._device:
                raise OSError(
                    errno.EXDEV,
                    f"on another file system than {self._place}, so that nothing can be shared; "
                    "it takes a store on the same one (--store)",
                    str(directory),
                )
        self._plan.mode = self._resolved(mode)
        files = [file for file in self._scan(directories) if not self._is_shared(file)]
        by_digest: dict[Digest, list[File]] = {}
        with ThreadPoolExecutor(HASHERS, thread_name_prefix="hasher") as threads:
            try:
                for file in self._verified(files, threads):
                    by_digest.setdefault(file.digest, []).append(file)
                sound = self._sound(by_digest, threads)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._hashing.stop()
                raise
        for digest, good in by_digest.items():
            if digest in sound:
                self._decide(digest, good)
        return self._plan

    def _resolved(self, mode: Mode) -> Mode:
        if mode is Mode.HARDLINK:
            return mode
        if self._has_reflinks():
            return Mode.REFLINK
        if mode is Mode.AUTO:
            return Mode.HARDLINK
        raise OSError(
            errno.EOPNOTSUPP,
            "the file system has no reflinks; --mode hardlink needs none",
            str(self._place),
        )

    def _has_reflinks(self) -> bool:
        """Try it, with files that have no names."""
        directory = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened = [directory]
        try:
            opened += [self._disk.create(directory), self._disk.create(directory)]
            return self._disk.clone(opened[1], opened[2])
        except PermissionError:
            return False  # somebody else's store, of which this is a dry run
        finally:
            for file in opened:
                os.close(file)

    def _leave(self, path: Path, why: str, *, is_wrong: bool = False) -> None:
        with self._lock:
            self._plan.left.append(Left(path, why, is_wrong))

    def _scan(self, directories: Iterable[Path]) -> list[File]:
        files: dict[tuple[int, Digest], File] = {}
        for directory in directories:
            for layout in find_layouts(directory, self._leave):
                tally = self._tallies[layout] = Tally(layout.path)
                self._plan.layouts.append(tally)
                for blob in layout.blobs(self._leave):
                    tally.blobs += 1
                    if blob.status.st_dev != self._device:
                        self._leave(layout.blob_path(blob.digest), "another file system")
                        continue
                    key = blob.status.st_ino, blob.digest
                    if key not in files:
                        files[key] = File.of(blob)
                    files[key].names.append(layout)
        return list(files.values())

    def _is_shared(self, file: File) -> bool:
        """Tell whether there is nothing to do about a file; also notes what it has alone."""
        pool = self._status(file.digest)
        is_shared = (
            file.links >= MANY_LINKS
            or (pool is not None and pool.st_ino == file.inode)
            or (self._plan.mode is Mode.REFLINK and self._is_clone(file, pool is not None))
        )
        if is_shared:
            for layout in file.names:
                self._tallies[layout].shared += 1
        return is_shared

    def _status(self, digest: Digest) -> os.stat_result | None:
        try:
            return self._pool.stat(digest) if self._pool is not None else None
        except NotFound:
            return None

    def _is_clone(self, file: File, is_present: bool) -> bool:
        """Tell whether a file has the very bytes of the pool's."""
        try:
            opened = open_first(file)
            try:
                mine = list(extents(opened, sync=True))
            finally:
                os.close(opened)
            alone = sum(e.length for e in mine if not e.flags & (SHARED | INLINE))
            file.private = min(file.taken, alone)
            if self._pool is None or not is_present:
                return False
            opened = self._pool.open(file.digest)
            try:
                theirs = list(extents(opened, sync=True))
            finally:
                os.close(opened)
        except (NotFound, InvalidContent):
            return False
        except OSError as error:
            if cannot_tell(error) or error.errno in _UNREADABLE:
                return False
            raise
        is_inline = all(extent.flags & INLINE for extent in mine)  # with what describes the file
        return is_inline or places(mine, file.size) == places(theirs, file.size)

    def _verified(self, files: list[File], threads: ThreadPoolExecutor) -> list[File]:
        """Return the files that are what their names say."""
        if self._watch is not None:
            self._watch.begins(sum(file.size for file in files))
        results = threads.map(self._is_good, files)
        return [file for file, is_good in zip(files, results, strict=True) if is_good]

    def _is_good(self, file: File) -> bool:
        try:
            self._hashing.verify(file, bare=self._plan.mode is Mode.HARDLINK)
        except NotFound:
            return False  # removed since it was found
        except DigestMismatch as error:
            self._leave(file.path, str(error), is_wrong=True)
            return False
        except InvalidContent as error:
            self._leave(file.path, str(error))
            return False
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            self._leave(file.path, error.strerror or str(error))
            return False
        return True

    def _sound(self, digests: Iterable[Digest], threads: ThreadPoolExecutor) -> set[Digest]:
        """Return the blobs of which the pool's copy, if there is one, may replace others.

        It was verified when it came in; but the others may be the last good ones. Before a
        reflink the kernel compares.
        """
        if self._plan.mode is Mode.REFLINK:
            return set(digests)
        listed = list(digests)
        return {
            d for d, sound in zip(listed, threads.map(self._is_sound, listed), strict=True) if sound
        }

    def _is_sound(self, digest: Digest) -> bool:
        if self._pool is None:
            return True
        try:
            opened = self._pool.open(digest)
        except NotFound:
            return True
        try:
            if self._hashing.digest(opened, digest.algorithm) == digest:
                return True
        finally:
            os.close(opened)
        path = self._place / digest.algorithm / digest.encoded
        self._leave(path, "the store's own copy is damaged: ocistow verify", is_wrong=True)
        return False

    def _decide(self, digest: Digest, files: list[File]) -> None:
        is_present = self._status(digest) is not None
        group = Group(digest, files, is_present)
        if self._plan.mode is Mode.REFLINK:
            group.source = None if is_present else files[0]
            freed = {id(f): f.private for f in files if f is not group.source}
        else:
            group.source = None if is_present else _adoptable(files)
            freed = {id(f): f.taken for f in files if f.is_all_here and f is not group.source}
        copied = 0
        if not is_present and group.source is None:
            copied = max(file.taken for file in files)
            if sum(freed.values()) <= copied:
                return  # a blob that is here only once, and that we may not take as it is
        self._plan.groups.append(group)
        self._plan.copied += copied
        self._plan.taken_in += not is_present
        for file in files:
            for layout in file.names:
                self._tallies[layout].links += 1
            self._tallies[file.names[0]].freed += freed.get(id(file), 0)


class _Hashing:
    """Hashes files until it is stopped. Thread-safe."""

    def __init__(self, watch: Watch | None, limit: int, disk: Disk) -> None:
        self._watch = watch
        self._limit = limit  # bytes that a file can have
        self._disk = disk
        self._stopped = False

    def stop(self) -> None:
        """Let what is being hashed fail."""
        self._stopped = True

    def verify(self, file: File, *, bare: bool) -> None:
        """Return if a file is what its name says, and nobody can be writing to it.

        Raises:
            DigestMismatch: it is not.
            InvalidContent: it is being written, or is another file by now; or it has attributes
                although it is to be `bare`.
            NotFound: it is gone.
        """
        if file.size > self._limit:
            raise InvalidContent("larger than its file system")
        opened = open_first(file)
        try:
            if bare and (file.mode & _SPECIAL or _has_attributes(opened)):
                raise InvalidContent(ATTRIBUTES)
            with self._disk.fenced(opened) as alone:
                if not alone:
                    raise InvalidContent(WRITTEN)
            _settle(file.changed)
            actual = self.digest(opened, file.digest.algorithm, self._watch)
            if not file.is_still(os.fstat(opened)):
                raise InvalidContent(CHANGED)
        finally:
            os.close(opened)
        if actual != file.digest:
            raise DigestMismatch(file.digest, actual)

    def digest(self, opened: int, algorithm: str, watch: Watch | None = None) -> Digest:
        """Return the digest of what an open file has, as far as its size now."""
        size, offset = os.fstat(opened).st_size, 0
        running = new_hash(algorithm)
        buffer = memoryview(bytearray(min(READ_SIZE, size)))
        while offset < size:
            count = os.preadv(opened, [buffer[: size - offset]], offset)
            if not count or self._stopped:
                break
            running.update(buffer[:count])
            offset += count
            if watch is not None:
                watch.moves(count)
        return Digest(algorithm, running.hexdigest())


def open_found(file: File, directory: int) -> int:
    """Open a file that was found, to read, by its name in an open directory.

    The caller closes it.

    Raises:
        NotFound: it is gone.
        InvalidContent: it is another file by now, or the same one changed.
    """
    try:
        opened = open_file(file.digest.encoded, directory)
    except FileNotFoundError:
        raise NotFound(file.digest) from None
    if not file.is_still(os.fstat(opened)):
        os.close(opened)
        raise InvalidContent(CHANGED)
    return opened


def open_first(file: File) -> int:
    """Open a file by the first name it was found by; likewise."""
    with file.names[0].opened(file.digest.algorithm) as directory:
        return open_found(file, directory)


def _has_attributes(opened: int) -> bool:
    """Tell whether a file has an access control list, capabilities or the like."""
    try:
        return not _LABELS.issuperset(os.listxattr(opened))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise


def _settle(changed: int) -> None:
    """Wait until a change from now on shows in the time of an inode's last change."""
    tick = _TICK if changed % 10**9 else _SECOND
    left = changed / 1e9 + tick - time.time()
    if 0 < left <= tick:
        time.sleep(left)


def _adoptable(files: Iterable[File]) -> File | None:
    """Return the file that the pool takes as it is: one of ours, since its owner can change it.

    Not one with names elsewhere, which may be written to there, unless it is read-only already:
    nobody asked to change what is not below the directories.
    """
    return next(
        (
            file
            for file in files
            if file.user == os.geteuid()
            and (file.is_all_here or stat.S_IMODE(file.mode) == _READ_ONLY)
        ),
        None,
    )


def _outermost(directories: Iterable[Path]) -> list[Path]:
    """Return absolute paths, without those that lie in others."""
    found: list[Path] = []
    for path in sorted({path.resolve(strict=True) for path in directories}):
        if not any(path.is_relative_to(above) for above in found):
            found.append(path)
    return found
