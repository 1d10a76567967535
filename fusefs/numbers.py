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

    def renumber(self, node: Node[Content], digest: Digest) -> None:
        """Let the kernel know a blob by another number when it looks it up again."""
        alias = self._alias(digest)
        del self._identities[alias]  # for good: the kernel forgets it once before it opens it
        for (_, name), parent in list(node.names.items()):
            self._tree.unname(parent, name)

    def _alias(self, identity: Identity) -> int:
        before = self._aliases.get(identity)
        if before is not None:
            self._identities.pop(before, None)
        alias = self._aliases[identity] = self.new()
        self._identities[alias] = identity
        return alias

    def forget(self, inode: int) -> None:
        """Forget a number that the kernel does not know any more."""
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
        return known is content or (relinked and not known.is_blob)
    return known is content and isinstance(content, Staged)
