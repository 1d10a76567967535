"""Open files: reading, writing, and the moment when what was written counts."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import trio

from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from ..store.reading import READ_SIZE, Buffer, read_cached
from .attributes import Attributes
from .contents import Blob, Content, Directory, Guarded, Name, Ordinary, Staged
from .generations import Generations, current, why_waiting
from .lookups import Lookups
from .ordinaries import Ordinaries
from .places import Place, digest_in
from .tree import Node, looked_up, path_of, stale
from .view import View, refused

log = logging.getLogger(__name__)

_INLINE = 64 << 10  # bytes; comparing them takes less than asking a thread


@dataclass(slots=True, eq=False)
class Handle:
    """What one open(2) gave: a descriptor of the disk, or a generation of its own."""

    node: Node[Content]
    file: int = -1
    staged: Staged | None = None
    ordinary: Ordinary | None = None
    appends: bool = False  # O_APPEND; the kernel's offset is after what was last committed

    @property
    def blob(self) -> Digest | None:
        """The digest of what is read here, if that is known and will not change."""
        content = self.node.content
        is_committed = self.staged is None and self.ordinary is None
        return content.digest if is_committed and isinstance(content, Blob) else None


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to open and create."""

    handle: int
    direct: bool  # past the page cache, which all opens of an inode share
    keep: bool  # the page cache may keep what it has: content never changes
    backing: int = -1  # a descriptor that the kernel may read from by itself, if the engine can


class Handles:
    """Open files by number. Lives on the event loop."""

    def __init__(self, view: View, generations: Generations, lookups: Lookups) -> None:
        self._view = view
        self._generations = generations
        self._lookups = lookups
        self._ordinaries = Ordinaries(view)
        self._handles: dict[int, Handle] = {}
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._handles)

    async def open(self, inode: int, flags: int, thread: int = 0) -> Opened:
        """Open a file that exists; `thread` is the client's, if that is known."""
        node = self._view.tree[inode]
        content = node.content
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if isinstance(content, Staged):
            async with current(content):
                if flags & os.O_TRUNC:
                    content.staging.truncate(0)
                content.staging.handles += 1
            return self._add_staged(node, content, flags)
        if isinstance(content, Blob):
            if not flags & os.O_TRUNC:
                await self._lookups.bring(node, content.digest, thread)
            if not writing:
                with looked_up():
                    file = self._open_file(node)
                keep = content.is_same(file)
                backing = -1 if self._view.numbers.is_lent(inode) else file
                return self._add(Handle(node, file), keep=keep, backing=backing)
            self._set_apart(node, content.digest, flags, thread)
            name = await self._lookups.clients.opened_name(node, thread)
            return self._regenerate(node, Place.BLOB, flags, name, content.digest)
        if isinstance(content, Guarded):
            if not writing:
                with looked_up():
                    return self._add(Handle(node, self._open_file(node)), direct=True)
            return self._regenerate(node, content.place, flags, content.name)
        if isinstance(content, Ordinary):
            mode, length = flags & os.O_ACCMODE, 0 if flags & os.O_TRUNC else None
            with self._lookups.retries.opening(thread, inode) as kept:
                file = await self._ordinaries.open(node, content, mode, length, kept)
            return self._add_ordinary(node, content, file)
        raise refused(errno.EISDIR if isinstance(content, Directory) else errno.ELOOP)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attributes]:
        """Create a file and open it; the name may become visible only when it is settled."""
        directory = self._view.tree[parent]
        place = self._view.place_for(directory, name)
        if place is Place.ORDINARY:
            node, content, file = self._ordinaries.create(directory, name, mode, flags)
            opened = self._add_ordinary(node, content, file, direct=content.is_streamed)
            return opened, self._view.attributes(node)
        digest = self._view.digest(directory, name) if place is Place.BLOB else None
        self._view.status(directory)  # or another process has removed it
        staged = self._generations.stage(directory, name, place, mode, digest)
        node = staged.node = self._view.tree.enter(self._view.numbers.new(), staged)
        if place is Place.TEMPORARY:
            self._view.tree.name(node, directory, name)
            self._view.staged[directory.inode, name] = staged
            is_known = self._expect(staged, digest_in(directory.name, name))
            staged.staging.is_passed = self._view.passthrough and not is_known
        return self._add_staged(node, staged, flags), self._view.attributes(node)

    def keep(self, number: int) -> None:
        """Hear that the kernel asks for all that is done with an open file."""
        handle = self._handles[number]
        if handle.staged is not None and handle.staged.staging.handles == 1:
            handle.staged.staging.is_passed = False

    async def read(self, number: int, offset: int, size: int) -> Buffer:
        """Return up to `size` bytes from `offset`; they are there until the next await."""
        handle = self._handles[number]
        if handle.staged is not None:
            if handle.staged.staging.is_copied_next:  # and then closes what is read here
                async with handle.staged.lock:
                    return handle.staged.staging.read(offset, size)
            return handle.staged.staging.read(offset, size)
        # one buffer for all: a new one of 1 MiB is cleared first, and misses the processor's cache
        buffer = self._buffer[:size] if size <= READ_SIZE else memoryview(bytearray(size))
        if (count := read_cached(handle.file, offset, buffer)) is not None:
            self._view.counters.cached_reads += 1
            return buffer[:count]
        self._view.counters.disk_reads += 1
        return await self._view.blocking(os.pread, handle.file, size, offset)

    async def write(self, number: int, offset: int, data: bytes | memoryview) -> int:
        """Write `data` at `offset`."""
        handle = self._handles[number]
        if handle.staged is not None:
            async with handle.staged.lock:
                staging = handle.staged.staging
                offset = staging.size if handle.appends else offset
                # In 32 KiB a write, to ask a thread each time took ten times as long as this.
                if len(data) <= _INLINE and staging.take(offset, data):
                    return len(data)
                size = -1 if staging.is_copied_next else len(data)
                return await self._view.blocking(staging.write, offset, data, size=size)
        if handle.ordinary is None:
            raise refused(errno.EBADF)
        await self._ordinaries.write(handle.ordinary, handle.file, offset, data)
        return len(data)

    async def copy(self, source: int, offset: int, target: int, at: int, length: int) -> int:
        """Copy up to `length` bytes between open files; returns how many, 0 at the source's end.

        A whole blob is not copied, where the target may become a blob.
        """
        given, taker = self._handles[source], self._handles[target]
        if given.staged is not None:
            async with given.staged.lock:
                file = given.staged.staging.dup()
                length = max(0, min(length, given.staged.staging.size - offset))
        else:
            file = os.dup(given.file)
        try:
            if taker.staged is not None:
                async with taker.staged.lock:
                    copy, name = taker.staged.staging.copy, given.blob
                    return await self._view.blocking(copy, file, offset, at, length, name)
            if taker.ordinary is None:
                raise refused(errno.EBADF)
            taken = taker.ordinary, taker.file
            return await self._ordinaries.copy(file, offset, *taken, at, length)
        finally:
            os.close(file)

    async def truncate(self, inode: int, number: int | None, length: int) -> Attributes | None:
        """Cut or extend an open file, or one that is not open; returns the writer's own view."""
        handle = self._handles[number] if number is not None else None
        if handle is not None and handle.staged is not None:
            async with handle.staged.lock:
                await self._view.blocking(handle.staged.staging.truncate, length)
            shown = self._view.attributes(handle.node)
            return replace(shown, size=length, attr_timeout=0.0)
        node = self._view.tree[inode]
        content = node.content
        if isinstance(content, Staged):
            async with current(content):
                await self._view.blocking(content.staging.truncate, length)
        elif handle is not None and handle.ordinary is not None:  # it may have no name any more
            await self._ordinaries.truncate(handle.ordinary, handle.file, length)
        elif isinstance(content, Ordinary):
            os.close(await self._ordinaries.open(node, content, os.O_WRONLY, length))
        else:
            raise refused(errno.EPERM)
        return None

    async def flush(self, number: int) -> None:
        """Decide about what was written: the only answer that reaches close(2).

        Raises:
            InvalidContent: it is refused; nobody but its writer ever saw it.
        """
        handle = self._handles[number]
        if handle.staged is not None:
            if handle.staged.staging.is_passed:
                self._begin_sync(handle.staged.staging.ingest.file)
            await self._generations.settle(handle.staged)
        elif self._view.passthrough and handle.ordinary and handle.ordinary.is_streamed:
            self._begin_sync(handle.file)

    async def fsync(self, number: int) -> None:
        """Return once what was written survives power loss."""
        handle = self._handles[number]
        staged = handle.staged
        if staged is None:
            await self._sync(handle)
        elif staged.staging.place in (Place.INDEX, Place.MARKER):
            await self._generations.settle(staged)
            if staged.missing is not None:
                raise InvalidContent(why_waiting(staged))
        else:
            await self._view.blocking(staged.staging.ingest.sync)

    async def _sync(self, handle: Handle) -> None:
        try:
            await self._view.blocking(self._view.files.sync, handle.file)
        except OSError:
            if handle.ordinary is not None:
                self._view.lose(handle.ordinary)
            raise

    async def release(self, number: int) -> None:
        """Forget an open file; what it wrote and nobody accepted is gone."""
        handle = self._handles.pop(number)
        if handle.staged is not None:
            handle.staged.staging.handles -= 1
            self._generations.drop_if_over(handle.staged)
        else:
            if handle.ordinary is not None:
                handle.ordinary.files.remove(handle.file)
            os.close(handle.file)

    def describe(self) -> Iterator[str]:
        """Yield a line for every open file. From any thread."""
        for number, handle in list(self._handles.items()):
            kind = "staged" if handle.staged is not None else type(handle.node.content).__name__
            yield f"{number}: {kind.lower()} {path_of(handle.node)}"

    def close(self) -> None:
        """End with the mount: close everything."""
        for handle in self._handles.values():
            if handle.staged is not None:
                handle.staged.staging.discard()
            else:
                os.close(handle.file)
        self._handles.clear()

    def _regenerate(
        self,
        node: Node[Content],
        place: Place,
        flags: int,
        name: Name | None,
        digest: Digest | None = None,
    ) -> Opened:
        """Open a committed file for writing: a new generation, its content until changed."""
        parent, last = name or _name(node) or (None, b"")
        if parent is None:
            raise stale()
        if name is not None:
            self._view.status(parent)  # or another process has removed it
        staged = self._generations.stage(parent, last, place, digest=digest)
        staged.is_named = staged.was_shown = name is not None
        try:
            if not flags & os.O_TRUNC:
                with looked_up():
                    staged.staging.start_from(self._open_file(node))
            elif staged.digest is not None:
                with suppress(FileNotFoundError):  # what is absent can be written all the same
                    staged.staging.expect(self._open_file(node), staged.digest)
        except BaseException:
            staged.staging.handles = 0
            self._generations.drop_if_over(staged)
            raise
        return self._add_staged(node, staged, flags)

    def _begin_sync(self, file: int) -> None:
        """Let the disk begin with what the kernel wrote, if that can be done.

        Most writers now rename it, which takes a third less time if it is hashed meanwhile.
        """
        with suppress(OSError):  # there are too many open files
            own = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
            trio.lowlevel.spawn_system_task(self._started_sync, own)

    async def _started_sync(self, file: int) -> None:
        with trio.CancelScope(shield=True):
            try:
                await self._view.blocking(self._view.files.begin_sync, file, 0, 0)
            finally:
                os.close(file)

    def _expect(self, staged: Staged, digest: Digest | None) -> bool:
        """Tell whether a temporary file is called for a blob of the pool, and look for that.

        Some writers name what they write so.
        """
        if digest is None:
            return False
        try:
            staged.staging.expect(self._view.store.blobs.open(digest), digest)
        except NotFound:
            return False
        return True

    def _add_ordinary(
        self, node: Node[Content], content: Ordinary, file: int, *, direct: bool = False
    ) -> Opened:
        content.files.append(file)
        backing = file if content.is_streamed else -1
        return self._add(Handle(node, file, ordinary=content), direct=direct, backing=backing)

    def _add_staged(self, node: Node[Content], staged: Staged, flags: int) -> Opened:
        handle = Handle(node, staged=staged, appends=bool(flags & os.O_APPEND))
        staging = staged.staging
        backing = staging.ingest.file if staging.is_passed else -1
        return self._add(handle, direct=True, backing=backing)

    def _open_file(self, node: Node[Content]) -> int:
        if isinstance(node.content, Blob):
            try:
                return self._view.presence.open(node, node.content.digest)
            except OSError:
                node.content.pooled = None  # or the next lookup would believe in it, too
                raise
        if isinstance(node.content, Guarded):
            directory, name = node.content.name
            return self._view.files.open(directory.child(name), os.O_RDONLY)
        return self._view.files.open(node.path, os.O_RDONLY)

    def _set_apart(self, node: Node[Content], digest: Digest, flags: int, thread: int) -> None:
        """See to it that a writer opens a blob by an inode that no reader has.

        When the kernel has opened something with O_TRUNC, it believes for a moment that it is
        empty, and so does whoever reads that inode then. When the kernel reads a blob by itself,
        all that opens its inode has the pool's file behind it, and could change that through a
        mapping.

        Raises:
            OSError: ESTALE, for the kernel to look again.
        """
        handles = self._handles.values() if self._view.passthrough else ()
        is_passed = any(handle.node is node and handle.file >= 0 for handle in handles)
        numbers = self._view.numbers
        was_lent = numbers.take(thread, node.inode, digest)
        if is_passed or (flags & os.O_TRUNC and not was_lent):
            numbers.lend(thread, digest)
            raise stale()

    def _add(
        self, handle: Handle, *, direct: bool = False, keep: bool = False, backing: int = -1
    ) -> Opened:
        number = next(self._numbers)
        self._handles[number] = handle
        return Opened(number, direct, keep, backing if self._view.passthrough else -1)


def _name(node: Node[Content]) -> Name | None:
    return (node.parent, node.name) if node.parent is not None else None
