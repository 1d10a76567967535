"""Inode numbers by which the kernel knows what the mount shows: pure."""

from __future__ import annotations

import itertools
from typing import TypeAlias

from ..oci.digest import Digest
from .contents import Blob, Content, Directory, Found, Guarded, Ordinary, Staged, Symlink
from .tree import Node, Tree

_FIRST = 1 << 62  # of those that are on no disk; no file system gets there

Identity: TypeAlias = Digest | tuple[int, bytes]


class Numbers:
    """Which number stands for what, as long as the kernel may know it. Lives on the event loop."""

    def __init__(self, tree: Tree[Content]) -> None:
        self._tree = tree
        self._inodes = itertools.count(_FIRST)
        self._aliases: dict[Identity, int] = {}
        self._identities: dict[int, Identity] = {}  # the other way round
        # By the thread that is to open it; by the blob where the kernel cannot name that to us.
        self._loans: dict[int | Digest, tuple[Digest, int]] = {}
        self._lent: set[int] = set()  # what was opened

    def __len__(self) -> int:
        return len(self._aliases)

    def new(self) -> int:
        """Return a number for a file that is on no disk yet."""
        return next(self._inodes)

    def number(self, parent: Node[Content], name: bytes, found: Found) -> int:
        """Return the inode number by which the kernel is to know what a name is.

        That of the disk, unless the kernel knows something else by it: a file system
        gives the number of a file that is gone to the next one, and the kernel, which forgets
        later, would serve the pages of the one as the other's.
        """
        inode, content, _ = found
        if (known := self._tree.find(parent, name)) and is_same(known.content, content):
            return known.inode  # wherever it was when it got that
        identity = content.digest if isinstance(content, Blob) else (parent.inode, name)
        alias = self._aliases.get(identity)
        if alias is not None and self._may_be(alias, content):
            return alias
        # A blob under an ordinary name must not be mistaken for the blob when it is opened.
        shared = isinstance(content, Ordinary) and content.shared
        if inode and not shared and self._may_be(inode, content):
            return inode
        return self._alias(identity)

    def lend(self, thread: int, digest: Digest) -> None:
        """Let one client's thread know a blob by a number of its own, when it looks again.

        Threads of PID namespaces that we do not see are all 0, and share it.
        """
        self._loans[thread or digest] = digest, self.new()

    def take(self, thread: int, inode: int, digest: Digest) -> bool:
        """End what was lent to a thread, which opens a blob for writing now.

        Returns whether it does so by a number of its own, or cannot: who opens a descriptor of
        /proc/self/fd does not look again.
        """
        known, number = self._loans.pop(thread or digest, (None, 0))
        if (known, number) == (digest, inode):
            self._lent.add(inode)
        return known == digest or inode in self._lent

    def lent(self, thread: int, content: Content) -> int | None:
        """Return the number that was lent to a thread, by which only it is to know this."""
        if not isinstance(content, Blob):
            return None
        digest, number = self._loans.get(thread or content.digest, (None, 0))
        return number if content.digest == digest else None

    def is_lent(self, inode: int) -> bool:
        """Tell whether a writer has opened a blob by this number, which others do not know."""
        return inode in self._lent

    def _alias(self, identity: Identity) -> int:
        before = self._aliases.get(identity)
        if before is not None:
            self._identities.pop(before, None)
        alias = self._aliases[identity] = self.new()
        self._identities[alias] = identity
        return alias

    def forget(self, inode: int) -> None:
        """Forget a number that the kernel does not know any more.

        But not one that is to be opened yet: the kernel looks twice when a number changed, and
        forgets the first answer in between.
        """
        self._lent.discard(inode)
        identity = self._identities.pop(inode, None)
        if identity is not None and self._aliases.get(identity) == inode:
            del self._aliases[identity]

    def _may_be(self, number: int, content: Content) -> bool:
        """Tell whether what the kernel knows by a number, if anything, is this."""
        node = self._tree.get(number)
        if node is None:
            return True
        if isinstance(content, Blob):
            return node.content == content
        if not node.names:
            return False  # it is gone, and only not forgotten yet
        if isinstance(content, Guarded):
            return isinstance(node.content, Guarded)
        if isinstance(content, Ordinary):
            return node.content is content
        return is_same(node.content, content)


def is_same(known: Content, content: Content) -> bool:
    """Tell whether what had a name is what has it; never of blobs and indexes.

    An ordinary file that only got a second name, or lost it, is the same, although it may be
    a blob's file with two: git compares the numbers of what it links.
    """
    if isinstance(known, Directory):
        return isinstance(content, Directory) and known.inode == content.inode
    if isinstance(known, Symlink):
        return isinstance(content, Symlink) and known.inode == content.inode
    if isinstance(known, Ordinary) and isinstance(content, Ordinary):
        relinked = known.inode == content.inode and known.shared != content.shared
        return known is content or (relinked and not known.is_taken)
    return known is content and isinstance(content, Staged)
