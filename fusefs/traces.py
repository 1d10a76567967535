"""What the mount remembers of directories, beside what is on the disk: pure."""

from __future__ import annotations

from typing import TypeVar

from .contents import Content
from .tree import Node

Names = TypeVar("Names")

_MOST = 10_000  # directories, of which the oldest are forgotten


class Traces:
    """Names that clients removed, and those that no client made.

    By directory, with the inode number that it has for the kernel, but longer than that remembers
    it. Lives on the event loop.
    """

    def __init__(self) -> None:
        self._unlinked: dict[int, set[bytes]] = {}
        self._made: dict[int, dict[bytes, frozenset[bytes]]] = {}

    def __len__(self) -> int:
        return len(self._unlinked) + len(self._made)

    def unlink(self, directory: int, name: bytes) -> None:
        """Remember that a client removed a blob, so that it is not shown because of the pool."""
        self._unlinked.setdefault(directory, set()).add(name)
        _bound(self._unlinked)

    def is_unlinked(self, directory: int, name: bytes) -> bool:
        """Tell whether a client removed a blob."""
        return name in self._unlinked.get(directory, ())

    def make(self, directory: int, name: bytes, linked: frozenset[bytes]) -> None:
        """Remember that a commit made a directory, and linked these blobs in it."""
        self._made.setdefault(directory, {})[name] = linked
        _bound(self._made)

    def made(self, directory: int, name: bytes) -> frozenset[bytes] | None:
        """Return what no client has written in a directory that a commit made; else None."""
        return self._made.get(directory, {}).get(name)

    def claim(self, directory: int, name: bytes) -> None:
        """Note that a directory is a client's now, or gone."""
        self._made.get(directory, {}).pop(name, None)

    def write(self, directory: Node[Content], name: bytes) -> None:
        """Note that a client made a file, whatever was unlinked or linked there before."""
        self._unlinked.get(directory.inode, set()).discard(name)
        above = directory.parent
        if above is not None and (linked := self.made(above.inode, directory.name)):
            self.make(above.inode, directory.name, linked - {name})

    def forget(self, directory: int) -> None:
        """Forget all of a directory that is gone."""
        self._unlinked.pop(directory, None)
        self._made.pop(directory, None)


def _bound(table: dict[int, Names]) -> None:
    if len(table) > _MOST:
        del table[next(iter(table))]
