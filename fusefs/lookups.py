"""Names that clients look up: blobs are promised before, and fetched when they are opened."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import replace

from ..oci.digest import Digest
from .attributes import Attributes
from .clients import Clients
from .contents import Blob, Content, Found, Ordinary
from .places import Place
from .presence import missing
from .retries import Retries
from .tree import Node, stale
from .view import View

log = logging.getLogger(__name__)


class Lookups:
    """What clients hear of names, by what they are going to do. Lives on the event loop.

    Attributes:
        clients: who waits for an answer.
        retries: who looks once more for what others have just replaced.
    """

    def __init__(self, view: View) -> None:
        self.clients = Clients()
        self.retries = Retries()
        self._view = view

    async def find(self, parent: int, name: bytes, thread: int) -> Attributes:
        """Tell the kernel what a name is; `thread` is the client's.

        A blob is leased before a client may rely on it.

        Raises:
            OSError: ENOENT.
        """
        view = self._view
        directory = view.tree[parent]
        await self._look_elsewhere(directory, name)
        try:
            found = view.peek(directory, name)
        except FileNotFoundError:
            self.retries.end(thread)
            raise
        if self._is_ours(directory, name) and self.clients.may_make(thread):
            if await self.clients.make(thread, directory, name):
                raise missing()  # no client made it, so whoever insists on making it may
            found = view.peek(directory, name)
        if isinstance(found.content, Blob) and not view.promises.is_kept(found.content.digest):
            try:
                await view.blocking(view.gate.promise, found.content.digest, directory.path)
            except OSError as error:
                if not view.linked(directory, name):
                    log.warning("cannot promise %s: %s", found.content.digest, error)
                    raise missing() from error  # it can still be written
            found = view.peek(directory, name)  # it may have gone before
        if isinstance(found.content, Ordinary) and self.retries.is_expected(thread):
            return self._keep(directory, name, thread)
        blob, own = found.content, view.numbers.lent(thread, found.content)
        if own is None or not isinstance(blob, Blob):
            return view.introduce(directory, name, found)
        apart = found._replace(content=replace(blob, file=0))  # with pages of its own
        return view.introduce_beside(directory, name, apart, own)

    async def promise_listed(self, directory: Node[Content], names: Iterable[bytes]) -> None:
        """Lease the blobs of a directory that is about to be listed, if it can be done."""
        for name in names:
            if self._view.place(directory, name) is Place.BLOB:
                digest = self._view.digest(directory, name)
                if not self._view.promises.is_kept(digest):
                    with contextlib.suppress(OSError):  # who looks one up is told
                        await self._view.blocking(self._view.gate.promise, digest, directory.path)
                return

    async def bring(self, node: Node[Content], digest: Digest, thread: int) -> None:
        """Fetch a blob that is to be opened, if it is absent and may be fetched."""
        filling, last = self._view.filling, node.parent
        if filling is None or last is None:
            return
        if self._view.linked(last, node.name) or digest in self._view.store.blobs:
            return
        parent, name = await self.clients.opened_name(node, thread) or (last, node.name)
        if await self._look_elsewhere(parent, name):
            await filling.bring(parent, name, digest)

    def close(self) -> None:
        """End with the mount."""
        self.clients.close()
        self.retries.close()

    def _keep(self, directory: Node[Content], name: bytes, thread: int) -> Attributes:
        """Tell the kernel what the name of an ordinary file is, and keep that to be opened."""
        file = self._view.files.open(directory.child(name), os.O_PATH)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise stale()  # it was one just now
            found = Found(status.st_ino, self._view.ordinary(status), status)
            shown = self._view.introduce(directory, name, found)
        except BaseException:
            os.close(file)
            raise
        self.retries.keep(thread, shown.inode, file)
        return shown

    def _is_ours(self, parent: Node[Content], name: bytes) -> bool:
        """Tell whether a name may be there without any client having made it."""
        return (
            self._view.traces.made(parent.inode, name) is not None
            or self._view.place(parent, name) is Place.BLOB
        )

    async def _look_elsewhere(self, parent: Node[Content], name: bytes) -> bool:
        """Tell whether a name is a blob's that is absent and may be fetched."""
        view = self._view
        if view.filling is None or view.place(parent, name) is not Place.BLOB:
            return False
        return await view.presence.can_be_fetched(parent, name, view.digest(parent, name))
