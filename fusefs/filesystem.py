"""What a mount answers to each request of FUSE, whichever engine brings it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import trio

from ..store.reading import Buffer
from .attributes import Attributes
from .calls import Calls, NoThread, in_thread
from .contents import Directory, Ordinary
from .counters import Counters
from .generations import Generations
from .handles import Handles, Opened
from .lookups import Lookups
from .namespace import Namespace
from .requests import Requests
from .view import View, refused
from .watch import Watch

if TYPE_CHECKING:
    from .engines.engine import Engine

log = logging.getLogger(__name__)

_PAUSE = 0.1  # seconds until there may be a thread
_MOST_COPIED = 0x7FFFF000  # bytes a request, as of a system call: the answer has 32 bits

Take = Callable[[bytes, Attributes, int], bool]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a SETATTR is to change; None for what stays. Owners are the mount's to show."""

    size: int | None = None
    mode: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(slots=True)
class Listing:
    """An open directory, and the names in it when it was last read from the start."""

    inode: int
    names: list[bytes] = field(default_factory=list[bytes])


class FileSystem:
    """The requests of one mount, in terms of inodes and handles.

    Lives on the event loop: requests run one at a time from await to await, so tables need no
    locks. `thread` is the client's thread that waits, 0 if nobody knows. Every `Attributes`
    that is returned counts a lookup where FUSE counts one, until `forget` takes it back.
    All raise what `errno_of` translates; anything else is a bug. The engine calls each in a
    block of `requests.answering`.
    """

    def __init__(self, view: View) -> None:
        self.requests = Requests()
        self._view = view
        generations = Generations(view)
        self._generations = generations
        self._lookups = Lookups(view)
        self._handles = Handles(view, generations, self._lookups)
        self._names = Namespace(view, generations)
        self._listings: dict[int, Listing] = {}
        self._numbers = itertools.count(1)

    def pass_through(self) -> None:
        """Offer descriptors that the kernel may read from by itself: `Opened.backing`."""
        self._view.passthrough = True

    async def serve(self, engine: Engine) -> None:
        """Let an engine answer requests, and keep the kernel from believing what is over."""
        with Watch(self._view.store.blobs.path) as watch:
            self._view.presence.watch = watch
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._attend, watch, engine)
                await engine.serve()
                nursery.cancel_scope.cancel()

    async def _attend(self, watch: Watch, engine: Engine) -> None:
        while True:
            for inode in self._view.presence.lost(await watch.next()):
                await self._invalidate(engine, inode)

    async def _invalidate(self, engine: Engine, inode: int) -> None:
        """Tell the kernel, be it later: only a thread may wait for it, which may wait for us."""
        try:
            while True:
                with contextlib.suppress(NoThread):
                    await in_thread(engine.invalidate_inode, inode)
                    return
                await trio.sleep(_PAUSE)
        except OSError as error:
            log.warning("the kernel was not told of inode %d: %s", inode, error)

    def give_up(self) -> None:
        """Let no client wait for the network any more: the mount ends."""
        if self._view.filling is not None:
            self._view.filling.give_up()

    @property
    def calls(self) -> Calls:
        """The calls that worker threads make for requests."""
        return self._view.calls

    @property
    def counters(self) -> Counters:
        """What became of content."""
        return self._view.counters

    @property
    def sizes(self) -> Mapping[str, int]:
        """How much a mount keeps, by what that is. From any thread."""
        return {
            "handles": len(self._handles),
            "directories": len(self._listings),
            "staged": len(self._view.staged),
            "waitingIndexes": len(self._generations),
            "inodes": len(self._view.tree),
        }

    def describe(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Yield what a mount keeps, each kind with a line for every entry. From any thread."""
        yield "open files", self._handles.describe()
        yield "staged files", self._generations.describe_staged()
        yield "indexes that wait", self._generations.describe_waiting()
        yield (
            "open directories",
            (f"{number}: inode {open_.inode}" for number, open_ in list(self._listings.items())),
        )

    async def close(self) -> None:
        """Close what clients left open; the mount is gone."""
        self._handles.close()
        self._generations.close()
        self._lookups.close()
        await self._view.close()

    async def lookup(self, parent: int, name: bytes, thread: int) -> Attributes:
        """Find a name."""
        return await self._lookups.find(parent, name, thread)

    def forget(self, inode: int, lookups: int) -> None:
        """Take back lookups."""
        self._view.tree.forget(inode, lookups)

    async def getattr(self, inode: int) -> Attributes:
        """Answer stat(2)."""
        return self._view.attributes(self._view.tree[inode])

    async def access(self, inode: int, mode: int) -> bool:
        """Tell whether a client may: everything, but execute what is no program."""
        shown = await self.getattr(inode)  # or it is gone
        return not mode & os.X_OK or not stat.S_ISREG(shown.mode) or bool(shown.mode & 0o111)

    async def setattr(self, inode: int, changes: Changes, handle: int | None) -> Attributes:
        """Truncate; change mode and times of ordinary files."""
        node = self._view.tree[inode]
        own: Attributes | None = None
        if changes.size is not None:
            own = await self._handles.truncate(inode, handle, changes.size)
        if isinstance(node.content, Ordinary):
            known = self._view.status(node)
            is_followed = node.content.is_followed(known)
            file = node.content.files[-1] if node.content.files else node.path
            if changes.mode is not None:
                self._view.files.chmod(file, changes.mode)
            if changes.atime_ns is not None or changes.mtime_ns is not None:
                now = self._view.attributes(node)
                atime = now.atime_ns if changes.atime_ns is None else changes.atime_ns
                mtime = now.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
                self._view.files.utime(file, atime, mtime)
            if is_followed:
                node.content.note(self._view.status(node))
        return own or self._view.attributes(node)

    async def readlink(self, inode: int) -> bytes:
        """Return where a symbolic link leads."""
        return self._names.readlink(inode)

    async def mknod(self, parent: int, name: bytes) -> NoReturn:
        """Refuse: there are only files, directories and symbolic links."""
        raise refused(errno.EPERM)

    async def mkdir(self, parent: int, name: bytes, thread: int) -> Attributes:
        """Make a directory."""
        return self._names.mkdir(parent, name, thread)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self._names.rmdir(parent, name)

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attributes:
        """Make a symbolic link."""
        return self._names.symlink(parent, name, target)

    async def link(self, inode: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name."""
        return await self._names.link(inode, parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name."""
        self._names.unlink(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Move a name."""
        await self._names.rename(parent, name, new_parent, new_name, flags)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attributes]:
        """Create and open a file."""
        return await self._handles.create(parent, name, mode, flags)

    async def open(self, inode: int, flags: int, thread: int) -> Opened:
        """Open what exists."""
        return await self._handles.open(inode, flags, thread)

    def keep(self, handle: int) -> None:
        """Hear that the kernel does not read and write `Opened.backing` by itself, but asks."""
        self._handles.keep(handle)

    async def read(self, handle: int, offset: int, size: int) -> Buffer:
        """Return up to `size` bytes from byte `offset`; they are there until the next await."""
        return await self._handles.read(handle, offset, size)

    async def write(self, handle: int, offset: int, data: bytes | memoryview) -> int:
        """Write at byte `offset`; returns how many bytes."""
        return await self._handles.write(handle, offset, data)

    async def copy(
        self, source: int, offset: int, target: int, target_offset: int, length: int
    ) -> int:
        """Copy between two open files, as copy_file_range(2): returns how many bytes.

        That may be fewer than `length`, and is below 2 GiB; 0 at the source's end.
        """
        length = min(length, _MOST_COPIED)
        return await self._handles.copy(source, offset, target, target_offset, length)

    async def flush(self, handle: int) -> None:
        """Answer close(2): may what was written be seen?"""
        await self._handles.flush(handle)

    async def fsync(self, handle: int) -> None:
        """Return once the file survives power loss."""
        await self._handles.fsync(handle)

    async def release(self, handle: int) -> None:
        """Forget an open file."""
        await self._handles.release(handle)

    async def opendir(self, inode: int) -> int:
        """Open a directory; its listing is taken at the first read, and again after a rewind."""
        await self.getattr(inode)  # or it is another one by now
        number = next(self._numbers)
        self._listings[number] = Listing(inode)
        return number

    async def readdir(self, handle: int, start: int, take: Take) -> None:
        """Hand the entries from number `start` on to `take`, until that refuses one.

        It gets name, attributes and the number of the entry after, and counts a lookup of what
        it takes.
        """
        listing = self._listings[handle]
        directory = self._view.tree[listing.inode]
        if start == 0:
            listing.names = await self._names.list(listing.inode)
            await self._lookups.promise_listed(directory, listing.names)
        for position in range(start, len(listing.names)):
            name = listing.names[position]
            try:
                shown = self._view.introduce(directory, name, self._view.peek(directory, name))
            except FileNotFoundError:
                continue  # removed since it was listed
            if not take(name, shown, position + 1):
                self._view.tree.forget(shown.inode, 1)
                break

    async def fsyncdir(self, handle: int) -> None:
        """Return once the names in a directory survive power loss."""
        inode = self._listings[handle].inode
        await self.getattr(inode)  # or it is another one by now
        directory = self._view.tree[inode]
        content = directory.content
        if isinstance(content, Directory) and content.last is None:  # it is on the disk
            await self._view.blocking(self._view.files.sync_names, directory.path)

    async def releasedir(self, handle: int) -> None:
        """Close a directory."""
        del self._listings[handle]

    async def statfs(self) -> os.statvfs_result:
        """Tell about the file system that the store lies on."""
        return self._view.files.statvfs()
