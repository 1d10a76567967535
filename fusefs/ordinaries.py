"""Ordinary files: they lie on the disk by their own names, and may become blobs."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..store.files import is_shared
from .contents import Content, Found, Ordinary
from .tree import Node, looked_up, stale
from .view import View, refused

# How skopeo, podman and buildah call a blob that they write. They begin with 8 bytes, after which
# the page cache would split each of their writes into two requests: 1.9 s instead of 1.3 s.
# Where the kernel can, it writes them by itself, and they are hashed from the page cache when they
# are renamed: 0.3 s for 64 MiB in writes of 32 KiB, as on the disk, instead of 1.0 s.
STREAMED = b"oci-put-blob"


class Ordinaries:
    """Changes to files that are no blobs, of which descriptors are the caller's.

    Lives on the event loop.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def create(
        self, directory: Node[Content], name: bytes, mode: int, flags: int
    ) -> tuple[Node[Content], Ordinary, int]:
        """Create a file; returns its node, looked up, what is known of it, and a descriptor."""
        how = flags & os.O_ACCMODE | os.O_CREAT | os.O_EXCL
        try:
            with looked_up():
                file = self._view.files.open(directory.child(name), how, mode & 0o777 | 0o600)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            raise stale() from None  # another process made it just now: the kernel looks again
        status = os.fstat(file)
        content = self._view.ordinary(status, is_new=True)
        content.is_streamed = name.startswith(STREAMED)
        content.restart(file, self._view.files.begin_sync if content.is_streamed else None)
        node = self._view.enter(directory, name, Found(status.st_ino, content, status))
        return node, content, file

    async def open(
        self,
        node: Node[Content],
        content: Ordinary,
        mode: int,
        length: int | None = None,
        kept: int = -1,
    ) -> int:
        """Return a descriptor of a file in an access mode, after it got a `length` if there is one.

        What was `kept` is opened, if anything was, whatever has its name now.

        Raises:
            OSError: ESTALE, when it is another file than it was: the kernel looks again.
        """
        if mode == os.O_RDONLY and length is None:
            return self._open(node, mode, kept)
        async with content.lock:
            # O_RDONLY | O_TRUNC empties a file, too, which takes a descriptor to write.
            file = await self._open_writable(node, content, mode or os.O_RDWR, kept)
            try:
                if length is not None:
                    self._resize(content, file, length)
            except BaseException:
                os.close(file)
                raise
        return file

    async def write(
        self, content: Ordinary, file: int, offset: int, data: bytes | memoryview
    ) -> None:
        """Write all of `data` at `offset`."""
        async with _changing(content):
            await self._view.blocking(self._write, content, file, offset, data, size=len(data))

    async def copy(
        self, source: int, offset: int, content: Ordinary, file: int, at: int, length: int
    ) -> int:
        """Copy up to `length` bytes of an open file; returns how many."""
        async with _changing(content):
            content.give_up()
            copy_range = self._view.files.copy_range
            return await self._view.blocking(copy_range, source, offset, file, at, length)

    async def truncate(self, content: Ordinary, file: int, length: int) -> None:
        """Cut or extend what is open."""
        async with _changing(content):
            self._resize(content, file, length)

    def _write(self, content: Ordinary, file: int, offset: int, data: bytes | memoryview) -> None:
        self._view.files.write(file, offset, data)
        content.follow(file, offset, len(data))

    def _open(self, node: Node[Content], mode: int, kept: int) -> int:
        files = self._view.files
        if kept >= 0:
            return files.reopen(kept, mode)
        with looked_up():
            return files.open(node.path, mode)

    async def _open_writable(
        self, node: Node[Content], content: Ordinary, mode: int, kept: int
    ) -> int:
        """Open a file that may be written to; the caller holds its lock, and closes it.

        Raises:
            OSError: ESTALE, when it is another file than it was: the kernel looks again.
        """
        files = self._view.files
        if content.is_taken or node.content is not content:
            raise stale()
        if kept >= 0:
            shared = is_shared(os.fstat(kept))
        else:
            with looked_up():
                shared = is_shared(files.stat(node.path))
        if shared:  # its bytes are a blob's, and are copied
            os.close(await self._view.blocking(files.open, node.path, os.O_WRONLY))
            raise stale()
        file = self._open(node, mode, kept)
        status = os.fstat(file)
        if status.st_ino != content.inode or is_shared(status):
            os.close(file)
            raise stale()
        return file

    def _resize(self, content: Ordinary, file: int, length: int) -> None:
        self._view.files.resize(file, length)
        if length:
            content.give_up()
        else:
            content.restart(file)


@asynccontextmanager
async def _changing(content: Ordinary) -> AsyncGenerator[None]:
    """Let nobody else change a file for the block.

    Raises:
        OSError: EPERM, since it is a blob or an index now.
    """
    async with content.lock:
        if content.is_taken:
            raise refused(errno.EPERM)
        yield
