"""What an inode can be, and what is known of it while clients have it open."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

import trio

from ..oci.digest import CANONICAL, Digest
from ..store.hashing import Hashing, Seen
from .places import Place
from .shelf import Archived, OpenArchive
from .staging import Staging
from .tree import Node


@dataclass(slots=True, eq=False)
class Directory:
    """A directory on disk.

    Attributes:
        inode: of the disk, 0 for the root; another one is another directory.
        last: what it was when it was removed, for who has it open; None while it is there.
    """

    inode: int = 0
    last: os.stat_result | None = None


@dataclass(slots=True, eq=False)
class Symlink:
    """A symbolic link on disk, where it has the number `inode`."""

    inode: int


@dataclass(slots=True, eq=False, weakref_slot=True)
class Ordinary:
    """A plain file on disk, with the digest of what was written to it in order.

    There is one for each file, however many names and nodes it has. Whoever changes its content,
    or decides what that is, holds the lock.
    """

    inode: int  # of the disk
    shared: bool = False  # it is a blob's file too
    is_streamed: bool = False  # the kernel may write it by itself: nothing of that is seen here
    is_lost: bool = False  # a sync failed, and the next one may not say so: see `View.lose`
    is_taken: bool = False  # as a blob or index: nobody writes to what was open then
    lock: trio.Lock = field(default_factory=trio.Lock)
    files: list[int] = field(default_factory=list[int])
    hashing: Hashing | None = None
    length: int = 0  # bytes that were written in order
    changed_ns: int = 0  # ctime after the last change; another one means another writer

    def follow(self, file: int, offset: int, size: int) -> None:
        """Hash what was just written, or give up when it did not come in order."""
        if self.hashing is not None and offset == self.length:
            self.length += size
            self.hashing.follow(file, self.length)
            self.note(os.fstat(file))
        else:
            self.give_up()

    def give_up(self) -> None:
        """Hash no more: not all that is written is seen in order."""
        if self.hashing is not None:
            self.hashing.stop()
            self.hashing = None

    def restart(self, file: int, seen: Seen | None = None) -> None:
        """Begin to hash again: the file is empty now; `seen` as in `Hashing`."""
        self.give_up()
        self.hashing, self.length = Hashing([CANONICAL], seen), 0
        self.note(os.fstat(file))

    def note(self, status: os.stat_result) -> None:
        """Remember what the file looks like after a change of ours."""
        self.changed_ns = status.st_ctime_ns

    def is_followed(self, status: os.stat_result) -> bool:
        """Tell whether all that `status` tells of was seen. Nobody can set a ctime."""
        seen = (self.inode, self.length, self.changed_ns)
        return self.hashing is not None and seen == (
            status.st_ino,
            status.st_size,
            status.st_ctime_ns,
        )

    def digest(self, file: int, algorithm: str) -> Digest | None:
        """Return the digest taken on the way, if it is of this algorithm and of all there is."""
        status = os.fstat(file)
        if self.hashing is None or algorithm != CANONICAL or not self.is_followed(status):
            return None
        return Digest(CANONICAL, self.hashing.finish(file, status.st_size)[0])


@dataclass(slots=True, eq=False)
class Guarded:
    """An index or marker on disk, which is only ever replaced whole.

    Its status is that of one generation: a reader may have it open when the name is another's.
    Whoever opens it then gets that other one, as if it had looked the name up later.
    """

    place: Place
    status: os.stat_result
    name: Name


@dataclass(slots=True)
class Blob:
    """Content of the pool, or of one layout alone.

    Attributes:
        file: the inode on disk whose pages the kernel may have; 0 before it was opened.
        pooled: what the pool's file was like when it was seen; whoever watches the pool empties
            it when that goes.
    """

    digest: Digest
    file: int = field(default=0, compare=False)
    pooled: os.stat_result | None = field(default=None, compare=False)

    def is_same(self, file: int) -> bool:
        """Tell whether an open file is what was opened before, and remember it.

        Another one was put in the place of a bad file, whose pages must go.
        """
        before, self.file = self.file, os.fstat(file).st_ino
        return before in (0, self.file)


@dataclass(slots=True, eq=False)
class Staged:
    """A generation that is still being written, and the name it is meant for."""

    staging: Staging
    parent: Node[Content]
    name: bytes
    node: Node[Content] | None = None  # of a file that was created, not opened again
    digest: Digest | None = None  # that the name of a blob is
    missing: Digest | None = None  # what an index waits for that cannot be committed yet
    is_named: bool = True  # else nobody knows which layout's blob was opened: none gets a link
    was_shown: bool = False  # by its name, which it can lose from then on
    is_moved: bool = False  # what it was opened by has another name: what is written is refused
    is_over: bool = False  # its content is gone, or about to go
    lock: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True, eq=False)
class ArchiveDirectory:
    """A directory of archives: `.archives`, and each in it. It is nowhere on disk."""

    path: PurePosixPath  # of the directory with their images
    status: os.stat_result  # of that


@dataclass(slots=True, eq=False)
class ArchiveFile:
    """One generation of an archive; it is open as long as it has handles."""

    path: PurePosixPath
    archived: Archived
    archive: OpenArchive | None = None
    handles: int = 0
    lock: trio.Lock = field(default_factory=trio.Lock)


class Found(NamedTuple):
    """What a name is on disk or in the pool, with what was learned when looking.

    Attributes:
        inode: its number there, which may not be that by which the kernel knows it; 0 of what is
            nowhere yet.
        status: None of what is being written, and of a blob that is absent.
    """

    inode: int
    content: Content
    status: os.stat_result | None = None


Content: TypeAlias = (
    Directory | Symlink | Ordinary | Guarded | Blob | Staged | ArchiveDirectory | ArchiveFile
)
Name: TypeAlias = tuple[Node[Content], bytes]  # in a directory
