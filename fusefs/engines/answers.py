"""What the `kernel` engine answers to each request."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ...store.reading import Buffer
from ..attributes import Attributes
from ..filesystem import Changes, FileSystem
from ..handles import Opened
from ..requests import Refusal
from . import wire
from .backings import Backings
from .openings import Openings
from .wire import Opcode, Open, Request, Valid

Handler: TypeAlias = Callable[[Request], Awaitable[Buffer]]

NAMES: dict[int, str] = {number: number.name.lower().removesuffix("_64") for number in Opcode}
SILENT = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})  # have no answer


class Answers:
    """Unpack a request, call the file system, pack the answer. Lives on the event loop."""

    def __init__(self, filesystem: FileSystem, backings: Backings) -> None:
        self._filesystem = filesystem
        self._answering = filesystem.requests.answering
        self._backings = backings
        self._openings = Openings()
        self._handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename,
            Opcode.LINK: self._link,
            Opcode.OPEN: self._open,
            Opcode.CREATE: self._create,
            Opcode.ACCESS: self._access,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.COPY_FILE_RANGE: self._copy_file_range,
            Opcode.COPY_FILE_RANGE_64: self._copy_file_range,
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: self._release,
            Opcode.FSYNC: self._fsync,
            Opcode.FLUSH: self._flush,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.DESTROY: self._nothing,
            Opcode.BATCH_FORGET: self._batch_forget,
        }

    async def to(self, request: Request) -> Buffer:
        """Return the answer to a request, without its header.

        Raises:
            Refusal: it is answered with an errno; ENOSYS, after which the kernel asks no more, for
                what is unknown.
        """
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise Refusal(errno.ENOSYS)
        name = request.names[0] if request.names else b""
        with self._answering(NAMES[request.opcode], request.inode, name):
            return await handler(request)

    async def _lookup(self, request: Request) -> Buffer:
        (name,) = request.names
        return wire.entry(await self._filesystem.lookup(request.inode, name, request.thread))

    async def _forget(self, request: Request) -> Buffer:
        self._filesystem.forget(request.inode, *request.numbers)
        return b""

    async def _batch_forget(self, request: Request) -> Buffer:
        for inode, lookups in wire.forgotten(request.data):
            self._filesystem.forget(inode, lookups)
        return b""

    async def _getattr(self, request: Request) -> Buffer:
        return wire.attributes(await self._filesystem.getattr(request.inode))

    async def _setattr(self, request: Request) -> Buffer:
        valid, handle, size, atime, mtime, atime_ns, mtime_ns, mode = request.numbers
        changes = Changes(
            size=size if valid & Valid.SIZE else None,
            mode=mode if valid & Valid.MODE else None,
            atime_ns=atime * 1_000_000_000 + atime_ns if valid & Valid.ATIME else None,
            mtime_ns=mtime * 1_000_000_000 + mtime_ns if valid & Valid.MTIME else None,
        )
        own = handle if valid & Valid.FH else None
        return wire.attributes(await self._filesystem.setattr(request.inode, changes, own))

    async def _readlink(self, request: Request) -> Buffer:
        return await self._filesystem.readlink(request.inode)

    async def _symlink(self, request: Request) -> Buffer:
        name, target = request.names
        return wire.entry(await self._filesystem.symlink(request.inode, name, target))

    async def _mknod(self, request: Request) -> Buffer:
        await self._filesystem.mknod(request.inode, *request.names)
        return b""

    async def _mkdir(self, request: Request) -> Buffer:
        (name,) = request.names
        return wire.entry(await self._filesystem.mkdir(request.inode, name, request.thread))

    async def _unlink(self, request: Request) -> Buffer:
        await self._filesystem.unlink(request.inode, *request.names)
        return b""

    async def _rmdir(self, request: Request) -> Buffer:
        await self._filesystem.rmdir(request.inode, *request.names)
        return b""

    async def _rename(self, request: Request) -> Buffer:
        (name, new_name), (new_parent, *flags) = request.names, request.numbers
        await self._filesystem.rename(request.inode, name, new_parent, new_name, sum(flags))
        return b""

    async def _link(self, request: Request) -> Buffer:
        (name,), (inode,) = request.names, request.numbers
        return wire.entry(await self._filesystem.link(inode, request.inode, name))

    async def _open(self, request: Request) -> Buffer:
        (flags,) = request.numbers
        opening = self._filesystem.open(request.inode, flags, request.thread)
        opened = await self._openings.finish(opening, number=request.unique)
        writable = flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY
        try:
            how, backing = self._backings.add(request.inode, opened, writable=writable)
        except OSError:
            await self._filesystem.release(opened.handle)
            raise
        self._tell(opened, how)
        if not writable:
            how |= Open.NOFLUSH  # its close decides about nothing, and costs a request less
        return wire.opened(opened.handle, how, backing)

    async def _create(self, request: Request) -> Buffer:
        (flags, mode), (name,) = request.numbers, request.names
        opened, found = await self._filesystem.create(request.inode, name, mode, flags)
        how, backing = self._backings.add(found.inode, opened, writable=True)
        self._tell(opened, how)
        return wire.entry(found) + wire.opened(opened.handle, how, backing)

    def _tell(self, opened: Opened, how: Open) -> None:
        if opened.backing >= 0 and not how & Open.PASSTHROUGH:
            self._filesystem.keep(opened.handle)

    async def _access(self, request: Request) -> Buffer:
        if not await self._filesystem.access(request.inode, *request.numbers):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return b""

    async def _read(self, request: Request) -> Buffer:
        return await self._filesystem.read(*request.numbers)

    async def _write(self, request: Request) -> Buffer:
        handle, offset, _ = request.numbers
        return wire.count(await self._filesystem.write(handle, offset, request.data))

    async def _copy_file_range(self, request: Request) -> Buffer:
        source, offset, _, target, target_offset, length = request.numbers
        size = await self._filesystem.copy(source, offset, target, target_offset, length)
        if request.opcode == Opcode.COPY_FILE_RANGE_64:
            return wire.long_count(size)
        return wire.count(size)

    async def _statfs(self, request: Request) -> Buffer:
        return wire.statfs(await self._filesystem.statfs())

    async def _release(self, request: Request) -> Buffer:
        (handle,) = request.numbers
        self._backings.remove(request.inode, handle)
        await self._filesystem.release(handle)
        return b""

    async def _flush(self, request: Request) -> Buffer:
        await self._filesystem.flush(*request.numbers)
        return b""

    async def _fsync(self, request: Request) -> Buffer:
        await self._filesystem.fsync(*request.numbers)
        return b""

    async def _opendir(self, request: Request) -> Buffer:
        return wire.opened(await self._filesystem.opendir(request.inode), Open(0), 0)

    async def _readdirplus(self, request: Request) -> Buffer:
        handle, start, size = request.numbers
        answer = bytearray()

        def take(name: bytes, found: Attributes, after: int) -> bool:
            entry = wire.directory_entry(name, found, after)
            if len(answer) + len(entry) > size:
                return False
            answer.extend(entry)
            return True

        await self._filesystem.readdir(handle, start, take)
        return answer

    async def _fsyncdir(self, request: Request) -> Buffer:
        await self._filesystem.fsyncdir(*request.numbers)
        return b""

    async def _releasedir(self, request: Request) -> Buffer:
        await self._filesystem.releasedir(*request.numbers)
        return b""

    async def _interrupt(self, request: Request) -> Buffer:
        self._openings.interrupt(*request.numbers)
        return b""

    async def _nothing(self, request: Request) -> Buffer:
        return b""
