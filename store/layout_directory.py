"""The directory of one image layout: opened without following links, its own files changed.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import PurePosixPath

from ..oci.digest import HEX_LENGTHS, is_encoded
from ..oci.errors import InvalidContent, NotFound
from ..oci.image_layout import BLOBS, INDEX, MARKER
from .disk import Disk
from .reading import open_directory
from .spares import is_spare


class LayoutDirectory:
    """A directory below the layout root, which need not exist. Thread-safe.

    Whoever changes something holds the store's lock. Every method that opens a directory raises
    `NotFound` if it is not there, and `InvalidContent` if something else has its name.
    """

    def __init__(self, root: int, name: PurePosixPath, disk: Disk) -> None:
        self._root = root
        self._name = name
        self._disk = disk

    @contextmanager
    def opened(self, *, create: bool = False, sync: bool = False) -> Generator[int]:
        """Open it; `create` makes what is absent of its path, `sync` makes that durable."""
        with self._opened(self._name, create=create, sync=sync) as directory:
            yield directory

    @contextmanager
    def blobs(self, algorithm: str) -> Generator[int]:
        """Open the directory with the blobs of one algorithm."""
        with self.opened() as directory, self.blobs_of(directory, algorithm) as found:
            yield found

    @contextmanager
    def blobs_of(self, directory: int, algorithm: str, *, create: bool = False) -> Generator[int]:
        """Open the directory with the blobs of one algorithm, from that of the layout."""
        with (
            self._step(directory, BLOBS, create=create, sync=create) as blobs,
            self._step(blobs, algorithm, create=create, sync=create) as found,
        ):
            yield found

    def status(self) -> os.stat_result:
        """Return the attributes of a directory that is no layout, but may have some below it.

        Raises:
            NotFound: there is none, or it has files of a layout.
        """
        with self._found() as directory:
            if is_begun(directory):
                raise NotFound(self._name)
            return os.fstat(directory)

    def index_status(self) -> os.stat_result:
        """Return the attributes of the committed index: another file after each commit.

        Raises:
            NotFound: there is none.
        """
        with self._found() as directory:
            status = _file_status(INDEX, directory)
        if status is None:
            raise NotFound(self._name)
        return status

    def inside(self) -> Iterator[tuple[str, bool]]:
        """Yield the directories in this one, and whether each is a layout with an index.

        Layouts without one, whose writing or removal was interrupted, are left out.

        Raises:
            NotFound: there is no directory here, or it has files of a layout.
        """
        self.status()
        with self._found() as directory, os.scandir(directory) as entries:
            for entry in entries:
                with suppress(NotFound, InvalidContent), self._step(directory, entry.name) as below:
                    is_layout = _file_status(INDEX, below) is not None
                    if is_layout or not is_begun(below):
                        yield entry.name, is_layout

    def discard_spares(self, before: float, limit: int) -> int:
        """Remove what was on its way to another name when its process died; return how many.

        `before` is in seconds since the epoch: what changed later may still get its name. No more
        than `limit` go.
        """
        count = 0
        with suppress(NotFound, InvalidContent), self.opened() as directory:
            count += self._disk.discard_spares(directory, before, limit)
            with self._step(directory, BLOBS) as blobs:
                count += self._disk.discard_spares(blobs, before, limit - count)
                for algorithm in HEX_LENGTHS:
                    with suppress(NotFound, InvalidContent), self._step(blobs, algorithm) as names:
                        count += self._disk.discard_spares(names, before, limit - count)
        return count

    def empty(self, directory: int) -> None:
        """Remove the layout's files from its directory, but for `index.json`; others stay."""
        with suppress(NotFound, InvalidContent), self._step(directory, BLOBS) as blobs:
            for algorithm in HEX_LENGTHS:
                with suppress(NotFound, InvalidContent), self._step(blobs, algorithm) as names:
                    self._unlink_all(names, partial(is_encoded, algorithm))
                    self._unlink_all(names, is_spare)
                self._disk.rmdir(blobs, algorithm)
            self._unlink_all(blobs, is_spare)
        self._disk.rmdir(directory, BLOBS)
        self._unlink_all(directory, is_spare)
        with suppress(IsADirectoryError):
            self._disk.unlink(directory, MARKER)  # last: it shows that there is a layout

    def remove_empty(self) -> None:
        """Remove the directory if it is empty, then those above that become so."""
        with self._opened(self._name.parent) as above:
            if not self._disk.rmdir(above, self._name.name):
                return
            self._disk.sync(above)
        for name in self._name.parents[:-1]:
            with self._opened(name.parent) as above:
                if not self._disk.rmdir(above, name.name):
                    return

    def _unlink_all(self, directory: int, is_ours: Callable[[str], bool]) -> None:
        for name in filter(is_ours, os.listdir(directory)):
            with suppress(IsADirectoryError):  # not ours, so it stays
                self._disk.unlink(directory, name)

    @contextmanager
    def _found(self) -> Generator[int]:
        """Open it; what has its name and is no directory does not count."""
        try:
            with self.opened() as directory:
                yield directory
        except InvalidContent:
            raise NotFound(self._name) from None

    @contextmanager
    def _opened(
        self, name: PurePosixPath, *, create: bool = False, sync: bool = False
    ) -> Generator[int]:
        """Open a directory element by element, never through a symbolic link."""
        directory = os.dup(self._root)
        try:
            for part in name.parts:
                with self._step(directory, part, create=create, sync=sync) as below:
                    os.dup2(below, directory, inheritable=False)
            yield directory
        finally:
            os.close(directory)

    @contextmanager
    def _step(
        self, parent: int, name: str, *, create: bool = False, sync: bool = False
    ) -> Generator[int]:
        if create:
            self._disk.mkdir(parent, name)
        if sync:
            self._disk.sync(parent)  # also when it was there: who made it may have died before
        try:
            directory = open_directory(name, parent)
        except FileNotFoundError:
            raise NotFound(self._name) from None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidContent(f"{self._name}: {name!r} is not a directory") from None
            raise
        try:
            yield directory
        finally:
            os.close(directory)


def is_begun(directory: int) -> bool:
    """Tell whether a directory has files of a layout; directories may be other layouts."""
    for name in (INDEX, MARKER):
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return True
    return False


def _file_status(name: str, directory: int) -> os.stat_result | None:
    """Return the attributes of a regular file, if there is one."""
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return status if stat.S_ISREG(status.st_mode) else None
    return None
