"""Blobs by the names of a layout: its own, those of the pool, and those that can be fetched."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..store.store import Store
from .attributes import SECOND, Attributes, Presentation
from .contents import Blob, Content, Directory, Found
from .filling import Filling
from .promises import Promises
from .traces import Traces
from .tree import Node, Tree, stale
from .watch import Watch


class Presence:
    """Which blobs are there for clients, and for how long. Lives on the event loop.

    With `virtual` all of the pool are there in every layout, but for those that a client removed.

    Attributes:
        watch: tells which blobs leave the pool; without it the kernel asks every second.
    """

    def __init__(
        self,
        store: Store,
        tree: Tree[Content],
        traces: Traces,
        promises: Promises,
        filling: Filling | None,
        *,
        virtual: bool,
    ) -> None:
        self.watch: Watch | None = None
        self._blobs = store.blobs
        self._files = store.files
        self._tree = tree
        self._traces = traces
        self._promises = promises
        self._filling = filling
        self._virtual = virtual

    def peek(self, parent: Node[Content], name: bytes, digest: Digest) -> Found:
        """Return what a name is now, after at most two system calls; none if we would hear.

        Raises:
            OSError: ENOENT.
        """
        known = self._known(parent, name, digest)
        if known is not None and known.pooled is not None and self._is_lasting(digest):
            return Found(known.pooled.st_ino, known, known.pooled)
        own = self._own(parent, name)
        if own is not None and stat.S_ISDIR(own.st_mode):
            return Found(own.st_ino, Directory(own.st_ino), own)
        key = (parent.inode, name)
        may_be_fetched = own is None and self._absent_size([key]) is not None
        if own is None and (
            self._traces.is_unlinked(*key) or not (self._virtual or may_be_fetched)
        ):
            raise missing()
        blob = known or Blob(digest)
        try:
            blob.pooled = self._blobs.stat(digest)
        except NotFound:
            blob.pooled = None
            if own is not None and stat.S_ISREG(own.st_mode):
                return Found(own.st_ino, blob, own)
            if not may_be_fetched:
                raise missing() from None
            return Found(0, blob)
        return Found(blob.pooled.st_ino, blob, blob.pooled)

    def attributes(
        self, node: Node[Content], blob: Blob, status: os.stat_result | None, shown: Presentation
    ) -> Attributes:
        """Return what stat answers for a blob; `status` is what was just learned of it.

        Raises:
            OSError: ESTALE, since it is gone: the kernel looks its name up again.
        """
        is_lasting = self._virtual and self._is_watched(blob.digest)
        if status is None and is_lasting:
            status = blob.pooled
        try:
            status = status or self._status(node, blob.digest)
        except FileNotFoundError:
            size = self._absent_size(node.names)
            if size is None:
                raise stale() from None
            return shown.of_absent(node.inode, size)
        # The kernel may not ask again while the promise lasts, and must before it is renewed.
        rest = self._promises.rest(blob.digest) if is_lasting and blob.pooled else 0.0
        return shown.of_blob(status, node.inode, rest or SECOND)

    def open(self, node: Node[Content], digest: Digest) -> int:
        """Return a descriptor of a blob, which may be in the pool or in this layout alone."""
        try:
            return self._blobs.open(digest)
        except NotFound:
            return self._files.open(node.path, os.O_RDONLY)

    def lost(self, digests: frozenset[Digest] | None) -> list[int]:
        """Note that the pool lost blobs, or some that nobody knows for None.

        Returns the inodes of which the kernel knows too much.
        """
        known: list[int] = []
        if digests is None or any(self._promises.rest(digest) for digest in digests):
            for node in self._tree:
                blob = node.content
                if isinstance(blob, Blob) and (digests is None or blob.digest in digests):
                    blob.pooled = None
                    known.append(node.inode)
        return known

    async def can_be_fetched(self, parent: Node[Content], name: bytes, digest: Digest) -> bool:
        """Find out whether a blob is absent and may be fetched."""
        if self._filling is None or self._own(parent, name) is not None or digest in self._blobs:
            return False
        await self._filling.look(parent, name, digest)
        return self._absent_size([(parent.inode, name)]) is not None

    def _known(self, parent: Node[Content], name: bytes, digest: Digest) -> Blob | None:
        """Return what was known of a blob when the kernel was last told of this name."""
        node = self._tree.find(parent, name)
        content = node.content if node is not None else None
        return content if isinstance(content, Blob) and content.digest == digest else None

    def _own(self, parent: Node[Content], name: bytes) -> os.stat_result | None:
        """Return what the layout itself has by a name."""
        try:
            return self._files.stat(parent.child(name))
        except FileNotFoundError:
            return None

    def _status(self, node: Node[Content], digest: Digest) -> os.stat_result:
        try:
            return self._blobs.stat(digest)
        except NotFound:
            return self._files.stat(node.path)

    def _absent_size(self, names: Iterable[tuple[int, bytes]]) -> int | None:
        """Return the size of a blob that is absent, and may be fetched by one of its names."""
        sizes = map(self._filling.size, names) if self._filling else ()
        return next((size for size in sizes if size is not None), None)

    def _is_lasting(self, digest: Digest) -> bool:
        """Tell whether a blob of the pool stays for now, and we hear of it if it does not."""
        return self._virtual and self._promises.is_kept(digest) and self._is_watched(digest)

    def _is_watched(self, digest: Digest) -> bool:
        return self.watch is not None and self.watch.covers(digest.algorithm)


def missing() -> OSError:
    """Return the error for a name that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
