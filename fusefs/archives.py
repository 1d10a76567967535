"""`.archives`: the images of the mount as archives, which nobody wrote and nobody can change.

An inode is one generation of an archive: whoever has it open reads the same to the end, and the
kernel may keep its pages as long as it likes.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
from dataclasses import replace
from pathlib import PurePosixPath

from ..oci.errors import InvalidContent, NotFound
from ..store.reading import BLOCK, Buffer, Portion, read_cached
from .attributes import DAY, Attributes, Presentation
from .contents import ArchiveDirectory, ArchiveFile, Content
from .filesystem import Changes, FileSystem, Take
from .handles import Opened
from .presence import missing
from .shelf import Archived, OpenArchive, Shelf
from .tree import ROOT, Node, stale
from .view import View, refused

log = logging.getLogger(__name__)

NAME = b".archives"  # in the root; not listed there, or copying a mount would copy all images twice

_FIRST = 1 << 62  # handle; those of other files start from 1


class Archives:
    """The files below `.archives`. Lives on the event loop."""

    def __init__(self, view: View, shelf: Shelf, presentation: Presentation) -> None:
        self._view = view
        self._shelf = shelf
        self._presentation = presentation
        self._open: dict[int, ArchiveFile] = {}
        self._numbers = itertools.count(_FIRST)

    def close(self) -> None:
        """Close what clients left open."""
        for number in list(self._open):
            self.release(number)

    def is_here(self, inode: int) -> bool:
        """Tell whether an inode is an archive, or a directory of some."""
        node = self._view.tree.get(inode)
        return node is not None and isinstance(node.content, (ArchiveDirectory, ArchiveFile))

    def is_open(self, number: int) -> bool:
        """Tell whether a handle is that of an archive."""
        return number in self._open

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Tell the kernel what a name is.

        Raises:
            OSError: ENOENT.
        """
        tree = self._view.tree
        directory = tree[parent]
        if isinstance(directory.content, ArchiveDirectory):
            path = directory.content.path / os.fsdecode(name)
            found = await self._find(path, tree.find(directory, name))
        else:
            path, found = PurePosixPath(), self._view.files.stat(b".")
        before = tree.find(directory, name)
        known = before.content if before else None
        content: Content
        if isinstance(found, os.stat_result):
            content, is_known = ArchiveDirectory(path, found), isinstance(known, ArchiveDirectory)
        elif isinstance(known, ArchiveFile) and known.archived.digest == found.digest:
            known.archived = found
            content, is_known = known, True
        else:
            content, is_known = ArchiveFile(path, found), False
        node = tree.enter(
            before.inode if before and is_known else self._view.numbers.new(), content
        )
        tree.name(node, directory, name)
        return self.attributes(node)

    def attributes(self, node: Node[Content]) -> Attributes:
        """Return what stat answers."""
        content, shown = node.content, self._presentation
        if isinstance(content, ArchiveDirectory):
            there = shown.of_directory(content.status, node.inode)
            return replace(there, mode=stat.S_IFDIR | 0o555)
        assert isinstance(content, ArchiveFile)
        archive = content.archived
        return replace(
            shown.of_file(archive.index, node.inode),
            mode=stat.S_IFREG | 0o444,
            links=1,
            size=archive.size,
            blocks=-(-archive.size // BLOCK),  # with none, tar --sparse would take it for a hole
            entry_timeout=0.0,
            attr_timeout=DAY,
        )

    async def list(self, node: Node[Content]) -> list[bytes]:
        """Return the names that there may be in a directory."""
        assert isinstance(node.content, ArchiveDirectory)
        try:
            names = await self._view.blocking(self._shelf.list, node.content.path)
        except NotFound:
            raise missing() from None
        return [os.fsencode(name) for name in names]

    async def open(self, node: Node[Content], flags: int) -> Opened:
        """Open an archive.

        Raises:
            OSError: ENODATA, since its image lacks a blob; ESTALE, since it is another by now.
        """
        content = node.content
        if not isinstance(content, ArchiveFile):
            raise refused(errno.EISDIR)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise refused(errno.EROFS)
        async with content.lock:
            if content.archive is None:
                content.archive = await self._opened(content)
        content.handles += 1
        number = next(self._numbers)
        self._open[number] = content
        return Opened(number, direct=False, keep=True)

    async def read(self, number: int, offset: int, size: int) -> bytes | bytearray:
        """Return up to `size` bytes from `offset`."""
        archive = self._open[number].archive
        assert archive is not None
        pieces = [await self._read(piece) for piece in archive.pieces(offset, size)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self, number: int) -> None:
        """Close an open archive."""
        content = self._open.pop(number)
        content.handles -= 1
        if content.handles == 0 and content.archive is not None:
            content.archive.close()
            content.archive = None

    async def _find(
        self, path: PurePosixPath, node: Node[Content] | None = None
    ) -> Archived | os.stat_result:
        known = node.content.archived if node and isinstance(node.content, ArchiveFile) else None
        try:
            if known is not None:  # one look at the index, which a thread would make no faster
                found = self._shelf.find(path, known.index)
            else:
                found = await self._view.blocking(self._shelf.find, path)
        except (NotFound, InvalidContent) as error:
            log.debug("no archive %s: %s", path, error)
            raise missing() from error
        if found is None:
            assert known is not None
            return known
        return found

    async def _opened(self, content: ArchiveFile) -> OpenArchive:
        path = content.path
        try:
            if self._view.filling is not None:
                image, lacking = await self._view.blocking(self._shelf.lacking, path)
                await self._view.filling.fetch(image, lacking)
            archive = await self._view.blocking(self._shelf.open, path)
        except NotFound as error:
            now = await self._find(path)
            if isinstance(now, os.stat_result) or now.digest != content.archived.digest:
                raise stale() from error
            log.warning("no archive %s: %s", path, error)
            raise refused(errno.ENODATA) from error
        if archive.digest != content.archived.digest:
            archive.close()
            raise stale()
        return archive

    async def _read(self, piece: bytes | Portion) -> bytes | bytearray:
        if isinstance(piece, bytes):
            return piece
        data = bytearray(piece.size)
        count = read_cached(piece.file, piece.offset, data)
        if count is None:
            count = await self._view.blocking(os.preadv, piece.file, [data], piece.offset)
        if count != piece.size:
            raise refused(errno.EIO)  # the disk lost some of it, and all after would be shifted
        return data


class ArchivingFileSystem(FileSystem):
    """A file system with `.archives` in its root."""

    def __init__(self, view: View, archives: Archives) -> None:
        super().__init__(view)
        self._archives = archives

    async def close(self) -> None:
        """Close what clients left open."""
        self._archives.close()
        await super().close()

    async def lookup(self, parent: int, name: bytes, thread: int) -> Attributes:
        """Find a name."""
        if self._has(parent, name):
            return await self._archives.lookup(parent, name)
        return await super().lookup(parent, name, thread)

    async def getattr(self, inode: int) -> Attributes:
        """Answer stat(2)."""
        if self._archives.is_here(inode):
            return self._archives.attributes(self._view.tree[inode])
        return await super().getattr(inode)

    async def access(self, inode: int, mode: int) -> bool:
        """Tell whether a client may."""
        if not self._archives.is_here(inode):
            return await super().access(inode, mode)
        if mode & os.W_OK:
            raise refused(errno.EROFS)
        shown = self._archives.attributes(self._view.tree[inode])
        return not mode & os.X_OK or stat.S_ISDIR(shown.mode)

    async def setattr(self, inode: int, changes: Changes, handle: int | None) -> Attributes:
        """Change nothing of an archive."""
        if self._archives.is_here(inode):
            raise refused(errno.EROFS)
        return await super().setattr(inode, changes, handle)

    async def mkdir(self, parent: int, name: bytes, thread: int) -> Attributes:
        """Make a directory."""
        self._keep(parent, name)
        return await super().mkdir(parent, name, thread)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self._keep(parent, name)
        await super().rmdir(parent, name)

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Attributes:
        """Make a symbolic link."""
        self._keep(parent, name)
        return await super().symlink(parent, name, target)

    async def link(self, inode: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name."""
        self._keep(parent, name)
        return await super().link(inode, parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name."""
        self._keep(parent, name)
        await super().unlink(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Move a name."""
        self._keep(parent, name)
        self._keep(new_parent, new_name)
        await super().rename(parent, name, new_parent, new_name, flags)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attributes]:
        """Create and open a file."""
        self._keep(parent, name)
        return await super().create(parent, name, mode, flags)

    async def open(self, inode: int, flags: int, thread: int) -> Opened:
        """Open what exists."""
        if self._archives.is_here(inode):
            return await self._archives.open(self._view.tree[inode], flags)
        return await super().open(inode, flags, thread)

    async def read(self, handle: int, offset: int, size: int) -> Buffer:
        """Return up to `size` bytes."""
        if self._archives.is_open(handle):
            return await self._archives.read(handle, offset, size)
        return await super().read(handle, offset, size)

    async def copy(
        self, source: int, offset: int, target: int, target_offset: int, length: int
    ) -> int:
        """Copy between two open files."""
        if self._archives.is_open(source) or self._archives.is_open(target):
            raise refused(errno.EXDEV)  # the kernel reads and writes instead
        return await super().copy(source, offset, target, target_offset, length)

    async def flush(self, handle: int) -> None:
        """Answer close(2)."""
        if not self._archives.is_open(handle):
            await super().flush(handle)

    async def fsync(self, handle: int) -> None:
        """Return once the file survives power loss: of an archive, its blobs do."""
        if not self._archives.is_open(handle):
            await super().fsync(handle)

    async def release(self, handle: int) -> None:
        """Forget an open file."""
        if self._archives.is_open(handle):
            self._archives.release(handle)
        else:
            await super().release(handle)

    async def readdir(self, handle: int, start: int, take: Take) -> None:
        """Hand out the entries of a directory; those that can be no archive are left out."""
        listing = self._listings[handle]
        if not self._archives.is_here(listing.inode):
            await super().readdir(handle, start, take)
            return
        if start == 0:
            listing.names = await self._archives.list(self._view.tree[listing.inode])
        for position in range(start, len(listing.names)):
            name = listing.names[position]
            try:
                shown = await self._archives.lookup(listing.inode, name)
            except FileNotFoundError:
                continue
            if not take(name, shown, position + 1):
                self._view.tree.forget(shown.inode, 1)
                break

    def _has(self, parent: int, name: bytes) -> bool:
        return (parent == ROOT and name == NAME) or self._archives.is_here(parent)

    def _keep(self, parent: int, name: bytes) -> None:
        """Refuse to change a name in `.archives`, or that itself."""
        if self._has(parent, name):
            raise refused(errno.EROFS)
