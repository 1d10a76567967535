"""The store as a tree of files: what each name is, and what stat answers for it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from ..oci.digest import HEX_LENGTHS, Digest
from ..store.files import is_shared
from ..store.store import Store
from .attributes import Attributes, Presentation
from .calls import Calls, NoThread, in_thread
from .contents import (
    Blob,
    Content,
    Directory,
    Found,
    Guarded,
    Ordinary,
    Staged,
    Symlink,
)
from .counters import Counters
from .filling import Fill, Filling
from .gate import Gate
from .numbers import Numbers
from .places import Place, digest_of, is_hidden, place_of
from .presence import Presence, missing
from .promises import Promises
from .traces import Traces
from .tree import ROOT, Node, Tree, stale

log = logging.getLogger(__name__)

_MOST_LOST = 1000  # files; a disk that loses more has lost everything
_INLINE = 64 << 10  # bytes; a thread costs 60 us, copying and hashing this much less

Result = TypeVar("Result")


class View:
    """State of one mount, and the questions about names. Lives on the event loop.

    Attributes:
        passthrough: the kernel reads and writes `Opened.backing` by itself; for the engine to
            set before the first request.
        filling: what is fetched from elsewhere; None if nothing is.
        presence: which blobs are there.
        promises: that blobs stay.
        staged: what can be seen of it by its name.
    """

    def __init__(
        self,
        store: Store,
        presentation: Presentation,
        *,
        virtual: bool = True,
        read_only: bool = False,
        fill: Fill | None = None,
    ) -> None:
        self.passthrough = False
        self.calls = Calls()
        self.store = store
        self.files = store.files
        self.promises = Promises(None if read_only else store.leases)
        self.counters = Counters()
        self.gate = Gate(store, self.promises, self.counters, sparse=not virtual)
        self.filling = Filling(fill, self.gate, self.files) if fill else None
        self.tree: Tree[Content] = Tree(Directory(), self._dropped)
        self.numbers = Numbers(self.tree)
        self.traces = Traces()
        self.presence = Presence(
            store, self.tree, self.traces, self.promises, self.filling, virtual=virtual
        )
        self.staged: dict[tuple[int, bytes], Staged] = {}  # by directory and name
        self._presentation = presentation
        self._ordinaries: WeakValueDictionary[int, Ordinary] = WeakValueDictionary()
        self._lost = deque[Ordinary](maxlen=_MOST_LOST)
        self._threads = trio.CapacityLimiter(2 * (os.cpu_count() or 1))
        self._is_alone = False  # no thread could be started

    async def blocking(self, call: Callable[..., Result], *args: object, size: int = -1) -> Result:
        """Make a call that may wait for the disk in a worker thread.

        A call that only moves `size` bytes in memory is made here when they are few, and any
        where no thread can be started: that others wait is better than an error.
        """
        if 0 <= size <= _INLINE:
            return call(*args)
        task = trio.lowlevel.current_task()
        try:
            result = await in_thread(
                lambda: self.calls.make(task, call, *args), limiter=self._threads
            )
        except NoThread:
            if not self._is_alone:
                log.warning("no thread can be started: requests wait for each other")
            self._is_alone = True
            return call(*args)
        self._is_alone = False
        return result

    def place(self, parent: Node[Content], name: bytes) -> Place:
        """Return the rules for a file with this name."""
        above = parent.parent
        return place_of(above.name if above else b"", parent.name, name)

    def place_for(self, parent: Node[Content], name: bytes) -> Place:
        """Return the rules for a file that is to be made with this name.

        Raises:
            OSError: EPERM, since the store uses the name itself, or the root is no image.
        """
        place = self.place(parent, name)
        if is_hidden(name) or (
            parent.inode == ROOT
            and not self.store.prefix.parts
            and place in (Place.INDEX, Place.MARKER)
        ):
            raise refused(errno.EPERM)
        return place

    def digest(self, parent: Node[Content], name: bytes) -> Digest:
        """Return the digest that a name in a BLOB place is.

        Raises:
            OSError: ESTALE, since that directory is gone: it has no name any more.
        """
        if parent.parent is None:
            raise stale()
        return digest_of(parent.name, name)

    async def close(self) -> None:
        """End the promises that were made."""
        await self.blocking(self.promises.end)

    def introduce(self, parent: Node[Content], name: bytes, found: Found) -> Attributes:
        """Tell the kernel of what `peek` found, counting a lookup of that inode."""
        return self._introduced(self.enter(parent, name, found), found)

    def introduce_beside(
        self, parent: Node[Content], name: bytes, found: Found, number: int
    ) -> Attributes:
        """Tell the kernel of a blob by a number of its own, which only one client gets."""
        node = self.tree.enter(number, found.content)
        self.tree.name_beside(node, parent, name)
        return replace(self._introduced(node, found), entry_timeout=0.0)

    def _introduced(self, node: Node[Content], found: Found) -> Attributes:
        try:
            return self.attributes(node, found.status)
        except OSError:
            self.tree.forget(node.inode, 1)  # the kernel is not told
            raise

    def enter(self, parent: Node[Content], name: bytes, found: Found) -> Node[Content]:
        """Put what `peek` found into the inode table, counting a lookup."""
        number, before = self.numbers.number(parent, name, found), self.tree.find(parent, name)
        if before is not None and before.inode != number:
            self.forget_directory(before.inode)  # if it was one, another process has replaced it
        node = self.tree.enter(number, found.content)
        if isinstance(found.content, Staged):
            found.content.node = node
        if isinstance(found.content, Directory):  # its number may be that of one which is gone
            self.tree.name_only(node, parent, name)
        else:
            self.tree.name(node, parent, name)
        return node

    def ordinary(self, status: os.stat_result, *, is_new: bool = False) -> Ordinary:
        """Return what is known of a plain file: what is open on it, and its hash."""
        shared = is_shared(status)
        known = self._ordinaries.get(status.st_ino)
        if known is None or is_new or known.is_taken or known.shared != shared:
            was_lost = known is not None and known.is_lost and not is_new
            known = Ordinary(status.st_ino, shared)
            self._ordinaries[status.st_ino] = known
            if was_lost:
                self.lose(known)
        return known

    def lose(self, content: Ordinary) -> None:
        """Remember that the disk may have lost some of a file, longer than the kernel knows it.

        What is read of it may still be right, but the system does not try to write that again.
        """
        if not content.is_lost:
            content.is_lost = True
            self._lost.append(content)

    def peek(self, parent: Node[Content], name: bytes) -> Found:
        """Return what a name is now, after at most two system calls.

        Raises:
            OSError: ENOENT.
        """
        staged = self.staged.get((parent.inode, name))
        if staged is not None and staged.node is not None:
            return Found(staged.node.inode, staged)
        place = self.place(parent, name)
        if place is Place.BLOB:
            return self.presence.peek(parent, name, self.digest(parent, name))
        if is_hidden(name):
            raise missing()
        status = self.files.stat(parent.child(name))
        number, kind = status.st_ino, stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            return Found(number, Directory(number), status)
        if kind == stat.S_IFLNK:
            return Found(number, Symlink(number), status)
        if kind != stat.S_IFREG:
            raise missing()
        if place in (Place.INDEX, Place.MARKER):
            return Found(number, Guarded(place, status, (parent, name)), status)
        return Found(number, self.ordinary(status), status)

    def attributes(self, node: Node[Content], status: os.stat_result | None = None) -> Attributes:
        """Return what stat answers for a node; `status` is what was just learned of it.

        Raises:
            OSError: ESTALE, since it is gone: the kernel looks its name up again.
        """
        content, shown, inode = node.content, self._presentation, node.inode
        if isinstance(content, Blob):
            return self.presence.attributes(node, content, status, shown)
        if isinstance(content, Staged):
            if content.is_over:
                raise stale()
            status = os.fstat(content.staging.ingest.file)
            return shown.of_staged(status, inode, content.staging.mode, content.staging.size)
        if isinstance(content, Guarded):
            return shown.of_guarded(content.status, inode)
        if isinstance(content, Directory) and content.last is not None:
            return replace(shown.of_directory(content.last, inode), links=0)
        status = status or self.status(node)
        if isinstance(content, Directory):
            return shown.of_directory(status, inode)
        return shown.of_file(status, inode)

    def status(self, node: Node[Content]) -> os.stat_result:
        """Return what the disk says of a file or directory that is on it by its own name.

        Raises:
            OSError: ESTALE, since the name is gone, or another's.
        """
        content = node.content
        if isinstance(content, Ordinary) and content.files:
            return os.fstat(content.files[-1])
        try:
            status = self.files.stat(node.path)
        except FileNotFoundError:
            raise stale() from None
        if isinstance(content, (Directory, Ordinary)) and content.inode not in (0, status.st_ino):
            raise stale()
        return status

    def has_index(self, directory: Node[Content]) -> bool:
        """Tell whether a directory has a committed index."""
        return self._exists(directory.child(b"index.json"))

    def linked(self, parent: Node[Content], name: bytes) -> bool:
        """Tell whether the disk has this name, whatever the pool has."""
        return self._exists(parent.child(name))

    def missing_directories(self, directory: Node[Content]) -> list[bytes]:
        """Return the paths of the directories for blobs that a layout does not have yet."""
        blobs = directory.child(b"blobs")
        below = [b"%b/%b" % (blobs, name.encode()) for name in HEX_LENGTHS]
        return [path for path in (blobs, *below) if not self._exists(path)]

    def note_made(self, directory: Node[Content], paths: list[bytes]) -> None:
        """Remember which of these paths are there now, since a commit made them, and with what."""
        for path in paths:
            if self._exists(path):
                above, _, name = path.rpartition(b"/")
                parent, linked = directory.inode, frozenset[bytes]()
                if name != b"blobs":
                    inode = self.files.stat(above).st_ino
                    found = Found(inode, Directory(inode))
                    parent = self.numbers.number(directory, b"blobs", found)
                    linked = frozenset(self.files.list(path))
                self.traces.make(parent, name, linked)

    def forget_directory(self, inode: int) -> None:
        """Forget what was remembered of names in a directory that is gone."""
        self.traces.forget(inode)
        if self.filling is not None:
            self.filling.forget_directory(inode)

    def _dropped(self, node: Node[Content]) -> None:
        """Forget what only matters while the kernel remembers."""
        self.numbers.forget(node.inode)
        if self.filling is not None:
            self.filling.forget_directory(node.inode)

    def _exists(self, path: bytes) -> bool:
        try:
            self.files.stat(path)
        except FileNotFoundError:
            return False
        return True


def refused(code: int) -> OSError:
    """Return the error for what the rules of the mount do not allow."""
    return OSError(code, os.strerror(code))
