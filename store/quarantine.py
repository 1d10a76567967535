"""Where bad blobs are kept so that nothing reads them: quarantine/<algorithm>/<hex>.<inode>."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..oci.digest import HEX_LENGTHS, Digest, is_encoded
from ..oci.errors import InvalidContent, NotFound
from .blobs import BlobStore
from .disk import Disk
from .layout import Layout
from .lock import Lock
from .reading import BLOCK, open_directory

DIRECTORY = "quarantine"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A bad file.

    Attributes:
        digest: what it was called.
        size: its bytes on disk.
        when: it was last touched, in seconds since the epoch.
    """

    digest: Digest
    size: int
    when: float


class Quarantine:
    """The bad files of a store. Thread-safe, and safe among processes.

    Nothing here reads their content, and garbage collection does not look at them: they are
    removed by hand, by whoever has no hope any more to learn or save something from them.
    """

    def __init__(
        self,
        store: Path,
        blobs: BlobStore,
        layout: Callable[[PurePosixPath], Layout],
        disk: Disk,
        lock: Lock,
    ) -> None:
        """Open what lies in the directory `store`; `layout` gives its layouts by name."""
        self._store = store
        self._blobs = blobs
        self._layout = layout
        self._disk = disk
        self._lock = lock

    def take(self, digest: Digest, file: os.stat_result, layouts: Iterator[PurePosixPath]) -> int:
        """Take a bad file, which is known by its inode, from the pool and from all of `layouts`.

        Returns how many names it had there. A name that stands for another file by now stays.
        An interrupted call can be repeated: the pool's name goes first, so that nobody links it
        any more, and what layouts have left is found again in them.

        Raises:
            Busy: another process holds the store.
            OSError: the disk refuses; also after all others, if it was one of the layouts.
        """
        refused: OSError | None = None
        name = f"{digest.encoded}.{file.st_ino:x}"
        with self._directory(digest.algorithm, create=True) as directory:
            with self._lock.held():
                taken = int(self._blobs.expel(digest, file, directory, name))
                self._disk.sync(directory)
                self._blobs.sync()
            for layout in layouts:
                try:
                    with self._lock.held():
                        taken += self._layout(layout).expel(digest, file, directory, name)
                except OSError as error:
                    refused = refused or error
            self._disk.sync(directory)
        if refused is not None:
            raise refused
        return taken

    def __iter__(self) -> Iterator[Quarantined]:
        for algorithm in HEX_LENGTHS:
            with suppress(NotFound), self._directory(algorithm) as directory:
                for name in sorted(os.listdir(directory)):
                    encoded = name.partition(".")[0]
                    with suppress(FileNotFoundError):
                        if is_encoded(algorithm, encoded):
                            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                            digest = Digest(algorithm, encoded)
                            yield Quarantined(digest, status.st_blocks * BLOCK, status.st_ctime)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._store / DIRECTORY

    @contextmanager
    def _directory(self, algorithm: str, *, create: bool = False) -> Generator[int]:
        above = open_directory(self._store.resolve())
        try:
            for name in (DIRECTORY, algorithm):
                if create:
                    self._disk.mkdir(above, name)
                    self._disk.sync(above)  # also when it was there: who made it may have died
                try:
                    below = open_directory(name, above)
                except FileNotFoundError:
                    raise NotFound(self.path / algorithm) from None
                except NotADirectoryError:
                    raise InvalidContent(f"{self.path} is not a directory") from None
                os.dup2(below, above, inheritable=False)
                os.close(below)
            yield above
        finally:
            os.close(above)
