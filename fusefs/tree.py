"""The inode table: what the kernel knows of, and where it lies now. Pure, no I/O.

Every inode that is handed to the kernel counts one lookup, and stays in the
table until the kernel has forgotten as many (libfuse, `fuse_reply_entry`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ROOT = 1  # FUSE_ROOT_ID

_DEEPEST = 2048  # names in a path of PATH_MAX bytes

Content = TypeVar("Content")


@dataclass(eq=False, slots=True)
class Node(Generic[Content]):
    """An inode, what it is, and the names it has: a file may have several, a directory has one."""

    inode: int
    content: Content
    lookups: int = 0
    below: int = 0  # nodes that lie in this one, and others who need its path
    names: dict[tuple[int, bytes], Node[Content]] = field(
        default_factory=dict["tuple[int, bytes]", "Node[Content]"]
    )

    @property
    def name(self) -> bytes:
        """The last element of the path; empty for the root and for what has no name any more."""
        return next(reversed(self.names))[1] if self.names else b""

    @property
    def parent(self) -> Node[Content] | None:
        """The directory that the path leads through."""
        return self.names[next(reversed(self.names))] if self.names else None

    @property
    def path(self) -> bytes:
        """The path below the root, without a leading slash; the root's is `.`.

        Raises:
            OSError: ESTALE, since the node has no name any more, or one below itself: on the disk,
                another process has moved what lies around it.
        """
        parts: list[bytes] = []
        node = self
        while node.inode != ROOT:
            above = node.parent
            if above is None or len(parts) == _DEEPEST:
                raise stale()
            parts.append(node.name)
            node = above
        return b"/".join(reversed(parts)) or b"."

    def child(self, name: bytes) -> bytes:
        """Return the path of a name in this directory."""
        return name if self.inode == ROOT else b"%b/%b" % (self.path, name)


class Tree(Generic[Content]):
    """Nodes by inode and by name. Not thread-safe: its owner is the event loop."""

    def __init__(
        self, root: Content, dropped: Callable[[Node[Content]], None] = lambda node: None
    ) -> None:
        """Begin with a root; `dropped` hears of each node that leaves the table."""
        self._dropped = dropped
        self._nodes: dict[int, Node[Content]] = {ROOT: Node(ROOT, root, lookups=1)}
        self._names: dict[tuple[int, bytes], Node[Content]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node[Content]]:
        return iter(self._nodes.values())

    def __getitem__(self, inode: int) -> Node[Content]:
        """Return a node.

        Raises:
            OSError: ESTALE, since the kernel was never told of this inode or forgot it.
        """
        node = self._nodes.get(inode)
        if node is None:
            raise stale()
        return node

    def get(self, inode: int) -> Node[Content] | None:
        """Return a node if the kernel knows of it."""
        return self._nodes.get(inode)

    def find(self, parent: Node[Content], name: bytes) -> Node[Content] | None:
        """Return the node that was last known by this name."""
        return self._names.get((parent.inode, name))

    def enter(self, inode: int, content: Content) -> Node[Content]:
        """Return the node for an inode that the kernel is about to be told of, counting that."""
        node = self._nodes.get(inode)
        if node is None:
            node = self._nodes[inode] = Node(inode, content)
        node.content = content
        node.lookups += 1
        return node

    def name(self, node: Node[Content], parent: Node[Content], name: bytes) -> None:
        """Record that a node has this name, and that nothing else has it."""
        self.hold(parent)
        self.unname(parent, name)
        node.names[parent.inode, name] = parent
        self._names[parent.inode, name] = node

    def name_beside(self, node: Node[Content], parent: Node[Content], name: bytes) -> None:
        """Record that a node has this name, as long as it is known, whatever else has it."""
        if (parent.inode, name) not in node.names:
            self.hold(parent)
            node.names[parent.inode, name] = parent

    def unname(self, parent: Node[Content], name: bytes) -> None:
        """Record that nothing has this name any more."""
        node = self._names.pop((parent.inode, name), None)
        if node is not None:
            self.let_go(node.names.pop((parent.inode, name)))

    def name_only(self, node: Node[Content], parent: Node[Content], name: bytes) -> None:
        """Record that a node, a directory, has this name and no other one."""
        self.name(node, parent, name)
        for key, above in list(node.names.items()):
            if key != (parent.inode, name):
                self.unname(above, key[1])

    def hold(self, node: Node[Content]) -> None:
        """Keep a node in the table, so that its path stays true, until as many `let_go`."""
        node.below += 1

    def let_go(self, node: Node[Content]) -> None:
        """Take back a `hold`."""
        node.below -= 1
        self._drop_if_unknown(node)

    def move(
        self, parent: Node[Content], name: bytes, new_parent: Node[Content], new_name: bytes
    ) -> None:
        """Record a rename; what had the new name loses it."""
        node = self._names.get((parent.inode, name))
        self.unname(parent, name)
        self.unname(new_parent, new_name)
        if node is not None:
            self.name(node, new_parent, new_name)

    def forget(self, inode: int, lookups: int) -> None:
        """Take back lookups.

        A node without any leaves the table, once nothing lies below it. The root never does.
        """
        node = self._nodes.get(inode)
        if node is not None:
            node.lookups -= lookups
            self._drop_if_unknown(node)

    def _drop_if_unknown(self, node: Node[Content]) -> None:
        left = [node]
        while left:
            node = left.pop()
            if node.inode == ROOT or node.lookups > 0 or node.below > 0:
                continue
            if self._nodes.get(node.inode) is node:
                del self._nodes[node.inode]
                self._dropped(node)
            for key, parent in list(node.names.items()):
                if self._names.get(key) is node:
                    del self._names[key]
                del node.names[key]
                parent.below -= 1
                left.append(parent)


def path_of(node: Node[Content]) -> str:
    """Return the path of a node for people, whatever has become of it."""
    try:
        return os.fsdecode(node.path)
    except OSError:
        return f"inode {node.inode}, which has no name"


@contextmanager
def looked_up() -> Generator[None]:
    """Let the kernel look again for what it knows and another process has removed.

    It does so once after ESTALE. After ENOENT it does not, and then a client that asks for a file
    to be created if there is none is told that there is none.
    """
    try:
        yield
    except FileNotFoundError:
        raise stale() from None


def stale() -> OSError:
    """Return the error for an inode that means nothing any more."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
