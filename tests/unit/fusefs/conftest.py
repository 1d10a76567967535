"""A view of a store without a kernel before it."""

import errno
import os
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from ocistow.fusefs.attributes import Presentation
from ocistow.fusefs.generations import Generations
from ocistow.fusefs.handles import Handles
from ocistow.fusefs.lookups import Lookups
from ocistow.fusefs.namespace import Namespace
from ocistow.fusefs.tree import ROOT
from ocistow.fusefs.view import View
from ocistow.store.store import Store
from ocistow.testing.disk import WatchedDisk

TIMEOUT = 60.0  # seconds; nothing here waits for anything but another thread


class PausingDisk(WatchedDisk):
    """A disk that stops at a call until it is let go, or that fails once.

    Attributes:
        calls: all that were made.
        synced: inodes of the disk, one for each sync.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.synced: list[int] = []
        self._call = self._failing = ""
        self._reached = threading.Event()
        self._resumed = threading.Event()

    def pause_at(self, call: str) -> None:
        """Stop whoever makes this call next."""
        self._reached.clear()
        self._resumed.clear()
        self._call = call

    def fail_at(self, call: str) -> None:
        """Let whoever makes this call next fail."""
        self._failing = call

    async def reached(self) -> None:
        """Return once somebody has stopped."""
        assert await trio.to_thread.run_sync(self._reached.wait, TIMEOUT), "nobody came"

    def resume(self) -> None:
        """Let it go."""
        self._resumed.set()

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        """Write, and stop at "written" too: the bytes are there, and nobody has been told."""
        super().write(file, data, offset)
        self.about_to("written")

    def sync(self, file: int) -> None:
        self.synced.append(os.fstat(file).st_ino)
        super().sync(file)

    def close(self, file: int) -> None:
        self.about_to("close")
        super().close(file)

    def about_to(self, call: str) -> None:
        self.calls.append(call)
        if call == self._failing:
            self._failing = ""
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if call == self._call:
            self._call = ""
            self._reached.set()
            assert self._resumed.wait(TIMEOUT), "nobody let go"


@dataclass(frozen=True, slots=True)
class Client:
    """What the kernel would call, with paths for inodes."""

    disk: PausingDisk
    store: Store
    view: View
    lookups: Lookups
    generations: Generations
    handles: Handles
    names: Namespace

    async def inode(self, path: str) -> int:
        """Look a path up from the root."""
        inode = ROOT
        for name in os.fsencode(path).split(b"/"):
            if name:
                inode = (await self.lookups.find(inode, name, 0)).inode
        return inode

    async def mkdir(self, path: str) -> None:
        """Make a directory and those above it."""
        os.makedirs(self.store.layouts / path, exist_ok=True)

    async def create(self, path: str, flags: int = os.O_RDWR) -> tuple[int, int]:
        """Create a file; returns inode and handle."""
        above, _, name = path.rpartition("/")
        opened, shown = await self.handles.create(
            await self.inode(above), name.encode(), 0o644, flags
        )
        return shown.inode, opened.handle

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file that exists; returns a handle."""
        try:
            return (await self.handles.open(await self.inode(path), flags)).handle
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return (await self.handles.open(await self.inode(path), flags)).handle  # as the kernel does

    async def close(self, handle: int) -> None:
        """Flush and release a handle."""
        try:
            await self.handles.flush(handle)
        finally:
            await self.handles.release(handle)

    async def write_file(self, path: str, content: bytes) -> None:
        """Create a file with this content."""
        _, handle = await self.create(path, os.O_WRONLY)
        await self.handles.write(handle, 0, content)
        await self.close(handle)

    async def read_file(self, path: str) -> bytes:
        """Return what a file holds, as far as one request can."""
        handle = await self.open(path)
        content = bytes(await self.handles.read(handle, 0, 1 << 20))
        await self.close(handle)
        return content

    async def rename(self, old: str, new: str) -> None:
        """Rename a file or directory."""
        (above, _, name), (new_above, _, new_name) = old.rpartition("/"), new.rpartition("/")
        inodes = await self.inode(above), await self.inode(new_above)
        await self.lookups.find(inodes[0], name.encode(), 0)
        await self.names.rename(inodes[0], name.encode(), inodes[1], new_name.encode(), 0)


@pytest.fixture
def client(tmp_path: Path) -> Generator[Client]:
    disk = PausingDisk()
    with Store.create(tmp_path / "store", disk) as store:
        view = View(store, Presentation(0, 0, 0o022))
        generations = Generations(view)
        lookups = Lookups(view)
        handles = Handles(view, generations, lookups)
        names = Namespace(view, generations)
        yield Client(disk, store, view, lookups, generations, handles, names)
        handles.close()
        generations.close()
