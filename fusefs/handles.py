"""Open files: reading, writing, and the moment when what was written counts."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from dataclasses import dataclass, replace

from ..oci.digest import CANONICAL, Digest
from ..oci.errors import InvalidContent, NotFound, OcistowError
from ..store.files import is_shared
from .attributes import Attributes
from .contents import Blob, Content, Directory, Guarded, Ordinary, Staged
from .places import Place
from .staging import Staging
from .tree import Node, stale
from .view import View, refused

log = logging.getLogger(__name__)

# How skopeo, podman and buildah call a blob that they write. They begin with 8 bytes, after which
# the page cache would split each of their writes into two requests: 1.9 s instead of 1.3 s.
STREAMED = b"oci-put-blob"


@dataclass(slots=True, eq=False)
class Handle:
    """What one open(2) gave: a descriptor of the disk, or a generation of its own."""

    node: Node[Content]
    file: int = -1
    staged: Staged | None = None
    ordinary: Ordinary | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to open and create."""

    handle: int
    direct: bool  # past the page cache, which all opens of an inode share
    keep: bool  # the page cache may keep what it has: content never changes


class Handles:
    """Open files by number. Lives on the event loop."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._waiting: set[Staged] = set()  # indexes whose manifests are still to come

    def __len__(self) -> int:
        return len(self._handles)

    async def open(self, inode: int, flags: int, thread: int = 0) -> Opened:
        """Open a file that exists; `thread` is the client's, if that is known."""
        node = self._view.tree[inode]
        content = node.content
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if isinstance(content, Staged):
            async with content.lock:
                if content.staging.is_discarded:
                    raise stale()
                if flags & os.O_TRUNC:
                    content.staging.truncate(0)
                content.staging.handles += 1
            return self._add(Handle(node, staged=content), direct=True)
        if isinstance(content, Blob):
            if not flags & os.O_TRUNC:
                await self._view.bring(node, content.digest, thread)
            if not writing:
                file = self._view.open_blob(node, content.digest)
                return self._add(Handle(node, file), keep=content.is_same(file))
            return self._regenerate(node, Place.BLOB, flags)
        if isinstance(content, Guarded):
            if not writing:
                return self._add(Handle(node, self._open_file(node)), direct=True)
            return self._regenerate(node, content.place, flags)
        if isinstance(content, Ordinary):
            return await self._open_ordinary(node, content, flags & (os.O_ACCMODE | os.O_TRUNC))
        raise refused(errno.EISDIR if isinstance(content, Directory) else errno.ELOOP)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attributes]:
        """Create a file and open it; the name may become visible only when it is settled."""
        directory = self._view.tree[parent]
        place = self._view.place_for(directory, name)
        if place is Place.ORDINARY:
            return self._create_ordinary(directory, name, mode, flags)
        staged = self._stage(directory, name, place, mode)
        node = staged.node = self._view.tree.enter(self._view.new_inode(), staged)
        if place is Place.TEMPORARY:
            self._view.tree.name(node, directory, name)
            self._view.staged[directory.inode, name] = staged
        return self._add(Handle(node, staged=staged), direct=True), self._view.attributes(node)

    async def read(self, number: int, offset: int, size: int) -> bytes | bytearray:
        """Return up to `size` bytes from `offset`."""
        handle = self._handles[number]
        if handle.staged is not None:
            return handle.staged.staging.read(offset, size)
        if (data := read_cached(handle.file, offset, size)) is not None:
            return data
        return await self._view.blocking(os.pread, handle.file, size, offset)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Write `data` at `offset`."""
        handle = self._handles[number]
        if handle.staged is not None:
            async with handle.staged.lock:
                staging = handle.staged.staging
                size = -1 if staging.is_copied_next else len(data)
                return await self._view.blocking(staging.write, offset, data, size=size)
        content = handle.ordinary
        if content is None:
            raise refused(errno.EBADF)
        async with content.lock:
            if content.is_blob:
                raise refused(errno.EPERM)  # it belongs to the pool now
            write = self._write_ordinary
            await self._view.blocking(write, content, handle.file, offset, data, size=len(data))
        return len(data)

    def _write_ordinary(self, content: Ordinary, file: int, offset: int, data: bytes) -> None:
        self._view.files.write(file, offset, data)
        content.follow(file, offset, data)

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
            async with content.lock:
                if content.staging.is_discarded:
                    raise stale()
                content.staging.truncate(length)
        elif handle is not None and handle.ordinary is not None:  # it may have no name any more
            async with handle.ordinary.lock:
                if handle.ordinary.is_blob:
                    raise refused(errno.EPERM)  # it belongs to the pool now
                self._resize(handle.ordinary, handle.file, length)
        elif isinstance(content, Ordinary):
            async with content.lock:
                file = await self._open_writable(node, content, os.O_WRONLY)
                try:
                    self._resize(content, file, length)
                finally:
                    os.close(file)
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
            await self._settle(handle.staged)

    async def fsync(self, number: int) -> None:
        """Return once what was written survives power loss."""
        handle = self._handles[number]
        staged = handle.staged
        if staged is None:
            await self._view.blocking(self._view.files.sync, handle.file)
        elif staged.staging.place in (Place.INDEX, Place.MARKER):
            await self._settle(staged)
            if staged.missing is not None:
                raise InvalidContent(_wait(staged))
        else:
            await self._view.blocking(self._view.files.sync, staged.staging.ingest.file)

    async def release(self, number: int) -> None:
        """Forget an open file; what it wrote and nobody accepted is gone."""
        handle = self._handles.pop(number)
        if handle.staged is not None:
            handle.staged.staging.handles -= 1
            self._drop_if_over(handle.staged)
        else:
            if handle.ordinary is not None:
                handle.ordinary.files.remove(handle.file)
            os.close(handle.file)

    async def settled(self) -> None:
        """Tell waiting indexes that a blob arrived, which may be what they waited for."""
        for staged in list(self._waiting):
            if staged.missing is not None and staged.missing in self._view.store.blobs:
                try:
                    await self._settle(staged, again=True)
                except (OcistowError, OSError) as error:
                    log.warning("refused %s: %s", _path(staged), error)
                    staged.staging.unsettled = False
                    self.drop(staged)
                self._drop_if_over(staged)

    def close(self) -> None:
        """End with the mount: close everything, and say what was never accepted."""
        for staged in list(self._waiting):
            log.warning("gave up %s", _wait(staged))
        for handle in self._handles.values():
            if handle.staged is not None:
                handle.staged.staging.discard()
            else:
                os.close(handle.file)
        self._handles.clear()
        for staged in self._view.staged.values():
            staged.staging.discard()

    def drop(self, staged: Staged) -> None:
        """Take the name from a visible staged file, and the content when nobody has it open."""
        self._view.staged.pop((staged.parent.inode, staged.name), None)
        self._view.tree.unname(staged.parent, staged.name)
        self._waiting.discard(staged)
        staged.missing = None
        self._drop_if_over(staged)

    async def _settle(self, staged: Staged, *, again: bool = False) -> None:
        staging = staged.staging
        async with staged.lock:
            if not (staging.unsettled or (again and staged in self._waiting)):
                return  # perhaps somebody settled it while we waited
            try:
                if staging.place is Place.BLOB:
                    await self._settle_blob(staged)
                elif staging.place is Place.MARKER:
                    raw = staging.document()
                    await self._view.blocking(self._view.gate.marker, raw, staged.parent.path)
                    self._accept(staged, self._guarded(staged))
                elif staging.place is Place.INDEX:
                    await self._settle_index(staged)
            except InvalidContent as error:
                staging.refusal = str(error)
                raise
        if staging.place is Place.BLOB:
            await self.settled()

    async def _settle_blob(self, staged: Staged) -> None:
        if staged.digest is None:
            raise refused(errno.EINVAL)
        path = staged.parent.child(staged.name)
        ingest = staged.staging.ingest
        await self._view.blocking(self._view.gate.blob, ingest, staged.digest, path)
        self._accept(staged, Blob(staged.digest))

    async def _settle_index(self, staged: Staged) -> None:
        try:
            await self._commit_index(staged.staging.document(), staged.parent)
        except NotFound as error:
            if self._view.has_index(staged.parent) or staged.node is None:
                raise InvalidContent(f"index.json mentions {error.name}, which is absent") from None
            self._wait_for(staged, error)
        else:
            self._accept(staged, self._guarded(staged))

    async def put_index(self, raw: bytes, directory: Node[Content], name: bytes) -> None:
        """Let a document that has been written elsewhere become a directory's index, or wait.

        Raises:
            InvalidContent: it or what it reaches is malformed, or is absent although there is
                an index already.
        """
        try:
            await self._commit_index(raw, directory)
        except NotFound as error:
            if self._view.has_index(directory):
                raise InvalidContent(f"index.json mentions {error.name}, which is absent") from None
            waiting = self._stage(directory, name, Place.INDEX, 0o644)
            waiting.staging.handles = 0
            waiting.staging.write(0, raw)
            waiting.node = Node(self._view.new_inode(), waiting)  # of which nobody knows yet
            self._end_waiting(directory, name)
            self._wait_for(waiting, error)
        else:
            self._end_waiting(directory, name)

    def _end_waiting(self, directory: Node[Content], name: bytes) -> None:
        replaced = self._view.staged.get((directory.inode, name))
        if replaced is not None:
            self.drop(replaced)

    async def _commit_index(self, raw: bytes, directory: Node[Content]) -> None:
        absent = self._view.missing_directories(directory)
        await self._view.blocking(self._view.gate.index, raw, directory.path)
        self._view.note_made(directory, absent)

    def _wait_for(self, staged: Staged, error: NotFound) -> None:
        """Show an index whose manifests are still to come, as `cp -a` and tar order them.

        Only where there is no index yet: a good one is never replaced by a hope.
        """
        staged.missing = error.name if isinstance(error.name, Digest) else None
        staged.staging.unsettled = False
        self._waiting.add(staged)
        self._view.staged[staged.parent.inode, staged.name] = staged
        if staged.node is not None:
            self._view.tree.name(staged.node, staged.parent, staged.name)

    def _accept(self, staged: Staged, content: Content) -> None:
        staged.staging.unsettled = False
        staged.staging.refusal = ""
        staged.missing = None
        self._waiting.discard(staged)
        key = (staged.parent.inode, staged.name)
        self._view.note_written(staged.parent, staged.name)
        if staged.node is not None:
            if self._view.staged.get(key) is staged:
                del self._view.staged[key]
            staged.node.content = content
            self._view.tree.name(staged.node, staged.parent, staged.name)

    def _guarded(self, staged: Staged) -> Guarded:
        return Guarded(staged.staging.place, os.fstat(staged.staging.ingest.file))

    def _drop_if_over(self, staged: Staged) -> None:
        key = (staged.parent.inode, staged.name)
        if staged.staging.handles or self._view.staged.get(key) is staged:
            return
        if staged.staging.unsettled and staged.staging.refusal:
            log.warning("refused %s: %s", _path(staged), staged.staging.refusal)
        if not staged.is_over:
            staged.is_over = True
            staged.staging.discard()
            self._view.tree.let_go(staged.parent)

    def _stage(self, parent: Node[Content], name: bytes, place: Place, mode: int) -> Staged:
        digest = self._view.digest(parent, name) if place is Place.BLOB else None
        ingest = self._view.store.blobs.ingest(digest.algorithm if digest else CANONICAL)
        self._view.tree.hold(parent)  # whose path is needed when all is written
        return Staged(Staging(ingest, place, mode & 0o777), parent, name, digest=digest)

    def _regenerate(self, node: Node[Content], place: Place, flags: int) -> Opened:
        """Open a committed file for writing: a new generation, its content until changed."""
        parent = node.parent
        if parent is None:
            raise stale()
        staged = self._stage(parent, node.name, place, 0o644)
        if not flags & os.O_TRUNC:
            staged.staging.start_from(self._open_file(node))
        return self._add(Handle(node, staged=staged), direct=True)

    def _create_ordinary(
        self, directory: Node[Content], name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attributes]:
        how = flags & os.O_ACCMODE | os.O_CREAT | os.O_EXCL
        try:
            file = self._view.files.open(directory.child(name), how, mode & 0o777 | 0o600)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            raise stale() from None  # another process made it just now: the kernel looks again
        status = os.fstat(file)
        content = self._view.ordinary(status, is_new=True)
        content.restart(file)
        node = self._view.enter(directory, name, status.st_ino, content)
        opened = self._add_ordinary(node, content, file, direct=name.startswith(STREAMED))
        return opened, self._view.attributes(node)

    async def _open_ordinary(self, node: Node[Content], content: Ordinary, flags: int) -> Opened:
        if flags == os.O_RDONLY:
            file = self._view.files.open(node.path, flags)
        else:
            async with content.lock:
                # O_RDONLY | O_TRUNC empties a file, too, which takes a descriptor to write.
                file = await self._open_writable(node, content, flags & os.O_ACCMODE or os.O_RDWR)
                try:
                    if flags & os.O_TRUNC:
                        self._resize(content, file, 0)
                except BaseException:
                    os.close(file)
                    raise
        return self._add_ordinary(node, content, file)

    async def _open_writable(self, node: Node[Content], content: Ordinary, flags: int) -> int:
        """Open a file that may be written to; the caller holds its lock, and closes it.

        Raises:
            OSError: ESTALE, when it is another file than it was: the kernel looks again.
        """
        path = node.path
        if content.is_blob or node.content is not content:
            raise stale()
        if is_shared(self._view.files.stat(path)):  # its bytes are a blob's, and are copied
            os.close(await self._view.blocking(self._view.files.open, path, os.O_WRONLY))
            raise stale()
        file = self._view.files.open(path, flags)
        status = os.fstat(file)
        if status.st_ino != content.inode or is_shared(status):
            os.close(file)
            raise stale()
        return file

    def _resize(self, content: Ordinary, file: int, length: int) -> None:
        self._view.files.resize(file, length)
        if length:
            content.hash = None
        else:
            content.restart(file)

    def _add_ordinary(
        self, node: Node[Content], content: Ordinary, file: int, *, direct: bool = False
    ) -> Opened:
        content.files.append(file)
        return self._add(Handle(node, file, ordinary=content), direct=direct)

    def _open_file(self, node: Node[Content]) -> int:
        if isinstance(node.content, Blob):
            return self._view.open_blob(node, node.content.digest)
        return self._view.files.open(node.path, os.O_RDONLY)

    def _add(self, handle: Handle, *, direct: bool = False, keep: bool = False) -> Opened:
        number = next(self._numbers)
        self._handles[number] = handle
        return Opened(number, direct, keep)


def read_cached(file: int, offset: int, size: int) -> bytearray | None:
    """Return the bytes if the page cache holds them all; None instead of waiting for a disk.

    As they came, since a copy of 1 MiB would triple the time that a read takes.
    """
    buffer = bytearray(size)
    try:
        count = os.preadv(file, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached.  EOPNOTSUPP: this file system cannot tell.
        return None
    return buffer if count == size else None


def _path(staged: Staged) -> str:
    try:
        return os.fsdecode(staged.parent.child(staged.name))
    except OSError:  # its directory is gone
        return os.fsdecode(staged.name)


def _wait(staged: Staged) -> str:
    return f"{_path(staged)}: it mentions {staged.missing}, which never came"
