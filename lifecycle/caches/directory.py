"""A cache in a directory, which Go's lifecycle can read and write too.

Source: Go's lifecycle, cache/volume_cache.go. Layers are plain tars below `committed/`, named
`sha256:….tar`, beside a file with their metadata. New ones are prepared in `staging/`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from ...oci.digest import CANONICAL, Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import Busy, InvalidContent
from ...oci.wording import about
from ...publish.packing import Hashed
from ...publish.source import Stream
from ...store.disk import Disk
from ...store.lock import TIMEOUT, take
from ...store.reading import READ_SIZE, digest_of_file, open_directory, open_file
from ..files.labels import CACHE_METADATA, CacheMetadata
from ..layers.tarball import LayerTar
from .cache import Cached

COMMITTED = "committed"
STAGING = "staging"
BACKUP = "committed-backup"

_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
_CANNOT_COPY = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryCache:
    """Layers in a directory.

    Killed at any point, the old or the new ones are there as a whole. Layers are not synced: what
    power loss leaves of one is noticed when it is opened. One process at a time writes.
    """

    exists = True  # or it could not have been made

    def __init__(self, path: Path, disk: Disk | None = None, timeout: float = TIMEOUT) -> None:
        """Open the cache of an existing directory.

        Raises:
            OSError: there is no such directory.
        """
        self._path = path
        self._disk = disk or Disk()
        self._timeout = timeout  # seconds that another process may take to write it
        self._lock = threading.Lock()
        self._staging = -1
        self._committed = -1
        self._root = open_directory(path.resolve())
        try:
            self._committed = self._open_committed()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The directory."""
        return str(self._path)

    def metadata(self) -> CacheMetadata:
        """Return what was committed with the layers; empty if that cannot be understood."""
        try:
            file = open_file(CACHE_METADATA, self._committed)
            with os.fdopen(file, "rb", 0) as stream:
                return CacheMetadata.parse(_read_all(stream))
        except (FileNotFoundError, InvalidContent):
            return CacheMetadata()

    @contextmanager
    def open(self, diff_id: Digest) -> Generator[Stream]:
        """Open the plain tar of a layer, which was read once already.

        Raises:
            InvalidContent: it is absent, unreadable or not what it should be.
        """
        with os.fdopen(self.open_file(diff_id), "rb", 0) as stream:
            yield stream

    def open_file(self, diff_id: Digest) -> int:
        """Return a file descriptor of a layer, likewise; the caller closes it."""
        file = self._open_layer(diff_id)
        try:
            if (actual := digest_of_file(file, diff_id.algorithm)) != diff_id:
                raise InvalidContent(
                    f"expected layer contents to have SHA '{diff_id}'; found '{actual}'"
                )
        except BaseException:
            os.close(file)
            raise
        return file

    def add(self, tar: LayerTar, likely: Digest | None = None) -> Cached:
        """Take a layer, which had the diffID `likely` last time.

        It is compared with that one as it is read, and what both begin with is copied where they
        differ, so that neither is read twice.

        Raises:
            Busy: another process writes this cache.
            InvalidContent: a file became shorter while it was read.
            OSError: the layer cannot be read, or the disk is full.
        """
        with about(self.name), self._writer(likely) as writer, closing(tar.open()) as stream:
            hashed = Hashed(stream, CANONICAL)
            while block := hashed.read(READ_SIZE):
                writer.write(block)
            return writer.finish(hashed.digest)

    def keep(self, diff_id: Digest) -> bool:
        """Take a layer over from what was committed, unread; False if it is not there."""
        self._prepared()
        try:
            file = self._open_layer(diff_id)
        except InvalidContent:
            return False
        try:
            self.adopt(file, diff_id, diff_id)
        finally:
            os.close(file)
        return True

    def adopt(self, file: int, committed: Digest, diff_id: Digest) -> None:
        """Give an open file, the committed layer of that name, a name among the new ones."""
        try:
            self._disk.link(self._committed, _file(committed), self._staging, _file(diff_id))
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            with self._writer() as writer:
                writer.copy(file, os.fstat(file).st_size)
                writer.finish(diff_id)

    def commit(self, metadata: CacheMetadata | None = None) -> None:
        """Put what was written in the place of what was there.

        Raises:
            Busy: another process writes this cache.
            OSError: it stays what it was.
        """
        with about(self.name):
            self._commit(self._prepared(), metadata)

    def _commit(self, staging: int, metadata: CacheMetadata | None) -> None:
        if metadata is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(CACHE_METADATA, flags, 0o644, dir_fd=staging)
            try:
                self._disk.write(file, metadata.dump() + b"\n", 0)
            finally:
                os.close(file)
        self._disk.rename(self._root, COMMITTED, self._root, BACKUP)
        try:
            self._disk.rename(self._root, STAGING, self._root, COMMITTED)
        except OSError:
            self._disk.rename(self._root, BACKUP, self._root, COMMITTED)
            raise
        os.close(self._committed)
        self._committed, self._staging = staging, -1
        shutil.rmtree(BACKUP, ignore_errors=True, dir_fd=self._root)
        fcntl.flock(self._root, fcntl.LOCK_UN)

    def close(self) -> None:
        """Discard what was not committed."""
        if self._staging >= 0:
            os.close(self._staging)
            self._staging = -1
            shutil.rmtree(STAGING, ignore_errors=True, dir_fd=self._root)
        if self._committed >= 0:
            os.close(self._committed)
            self._committed = -1
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_committed(self) -> int:
        """Open what was committed last, also by a process that died while it committed."""
        try:
            return open_directory(COMMITTED, self._root)
        except FileNotFoundError:
            self._take()
        try:
            if not os.access(COMMITTED, os.F_OK, dir_fd=self._root, follow_symlinks=False):
                with suppress(FileNotFoundError):
                    self._disk.rename(self._root, BACKUP, self._root, COMMITTED)
                self._disk.mkdir(self._root, COMMITTED)
            return open_directory(COMMITTED, self._root)
        finally:
            fcntl.flock(self._root, fcntl.LOCK_UN)

    @contextmanager
    def _writer(self, likely: Digest | None = None) -> Generator[DirectoryWriter]:
        staging = self._prepared()
        old = -1
        if likely is not None:
            with suppress(InvalidContent):
                old = self._open_layer(likely)
        writer = DirectoryWriter(self, self._disk, staging, likely, old)
        try:
            yield writer
        finally:
            writer.close()

    def _prepared(self) -> int:
        """Return the directory of new layers, which is made when it is first asked for."""
        with self._lock:
            if self._staging < 0:
                self._take()
                for name in (STAGING, BACKUP):
                    with suppress(FileNotFoundError):
                        shutil.rmtree(name, dir_fd=self._root)
                self._disk.mkdir(self._root, STAGING)
                self._staging = open_directory(STAGING, self._root)
            return self._staging

    def _take(self) -> None:
        if not take(self._root, fcntl.LOCK_EX, self._timeout):
            raise Busy(f"{self._path}: another process writes this cache")

    def _open_layer(self, diff_id: Digest) -> int:
        try:
            return open_file(_file(diff_id), self._committed)
        except FileNotFoundError:
            raise InvalidContent(f"failed to find cache layer with SHA '{diff_id}'") from None
        except PermissionError:
            raise InvalidContent(
                f"failed to read cache layer with SHA '{diff_id}' due to insufficient permissions"
            ) from None


class DirectoryWriter:
    """One layer on its way into the directory.

    While its bytes are those of the layer that is likely the same, they are only compared.
    """

    def __init__(
        self, cache: DirectoryCache, disk: Disk, staging: int, likely: Digest | None, old: int
    ) -> None:
        self._cache = cache
        self._disk = disk
        self._staging = staging
        self._likely = likely
        self._old = old
        self._size = 0
        self._spare = ""
        self._file = -1

    def write(self, block: bytes) -> None:
        """Take the next bytes of the plain tar."""
        if self._old >= 0:
            if os.pread(self._old, len(block), self._size) == block:
                self._size += len(block)
                return
            self._part()
        self._disk.write(self._new(), block, self._size)
        self._size += len(block)

    def copy(self, source: int, size: int) -> None:
        """Take the first bytes of an open file."""
        file, left = self._new(), size
        try:
            while left and (count := os.copy_file_range(source, file, left, size - left)):
                left -= count
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
        while left and (block := os.pread(source, min(left, READ_SIZE), size - left)):
            self._disk.write(file, block, size - left)
            left -= len(block)
        self._size = size

    def finish(self, diff_id: Digest) -> Cached:
        """Keep what was written, as a layer; the caller vouches that it hashes to this."""
        if self._old >= 0 and os.fstat(self._old).st_size != self._size:
            self._part()
        if self._old >= 0 and self._likely is not None:
            self._cache.adopt(self._old, self._likely, diff_id)
            return Cached(diff_id, reused=True)
        self._new()
        self._disk.rename(self._staging, self._spare, self._staging, _file(diff_id))
        self._spare = ""
        return Cached(diff_id, reused=False, fault=self._fault(diff_id))

    def close(self) -> None:
        """Discard what was not finished."""
        for file in (self._old, self._file):
            if file >= 0:
                os.close(file)
        self._old = self._file = -1
        if self._spare:
            self._disk.unlink(self._staging, self._spare)
            self._spare = ""

    def _new(self) -> int:
        if self._file < 0:
            self._spare = f".unfinished-{os.urandom(8).hex()}"
            self._file = os.open(self._spare, _NEW, 0o644, dir_fd=self._staging)
        return self._file

    def _part(self) -> None:
        """Go on in a new file, which begins like the old one."""
        old, self._old = self._old, -1
        try:
            self.copy(old, self._size)
        finally:
            os.close(old)

    def _fault(self, diff_id: Digest) -> str:
        if diff_id != self._likely:
            return ""
        try:
            with self._cache.open(diff_id):
                return ""
        except InvalidContent as error:
            return str(error)


def _file(diff_id: Digest) -> str:
    return f"{diff_id}.tar"


def _read_all(stream: Stream) -> bytes:
    """Return what a file holds, up to one byte more than is accepted."""
    raw = b""
    while len(raw) <= MAX_DOCUMENT and (data := stream.read(MAX_DOCUMENT + 1 - len(raw))):
        raw += data
    return raw
