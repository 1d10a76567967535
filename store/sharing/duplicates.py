"""Files that could share their bytes, and a plan for them: values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ...oci.digest import Digest
from ..reading import BLOCK
from .foreign import ForeignBlob, ForeignLayout

_READABLE = 0o444


class Mode(StrEnum):
    """How files come to share their bytes."""

    AUTO = "auto"  # reflinks where the file system has them
    HARDLINK = "hardlink"
    REFLINK = "reflink"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is left alone.

    Attributes:
        is_wrong: whether its content is not what its name says.
    """

    path: Path
    why: str
    is_wrong: bool = False


@dataclass(slots=True)
class File:
    """An inode that has the name of a blob below the directories, at least once.

    Attributes:
        taken: bytes on disk.
        private: those that no other file shares; all, where nobody can tell.
        modified: nanoseconds since the epoch, as `changed` and `accessed`.
        links: names it has; `names` are those that were found.
    """

    digest: Digest
    device: int
    inode: int
    size: int
    taken: int
    private: int
    accessed: int
    modified: int
    changed: int
    mode: int
    user: int
    group: int
    links: int
    names: list[ForeignLayout]

    @classmethod
    def of(cls, blob: ForeignBlob) -> File:
        """Return a file that has no names yet."""
        status = blob.status
        taken = status.st_blocks * BLOCK
        return cls(
            blob.digest,
            status.st_dev,
            status.st_ino,
            status.st_size,
            taken,
            taken,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            [],
        )

    @property
    def path(self) -> Path:
        """One of its names."""
        return self.names[0].blob_path(self.digest)

    @property
    def is_all_here(self) -> bool:
        """Tell whether nothing is left of it once its names stand for something else."""
        return len(self.names) >= self.links

    def is_still(self, status: os.stat_result) -> bool:
        """Tell whether an inode is this one, and nothing about it has changed."""
        return (self.device, self.inode, self.size, self.modified, self.changed) == (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )


@dataclass(slots=True)
class Group:
    """The files of one blob that could share the bytes of the pool's.

    Attributes:
        source: which of them becomes the pool's, if that lacks the blob; None for a copy of one.
        is_present: whether the pool has it.
    """

    digest: Digest
    files: list[File]
    is_present: bool
    source: File | None = None


@dataclass(slots=True)
class Tally:
    """What becomes of one layout, or of all.

    Attributes:
        path: of the layout; None for all.
        blobs: names of blobs that it has.
        shared: those that share the pool's bytes already.
        links: those that will.
        freed: bytes on disk, counted where an inode was found first.
    """

    path: Path | None = None
    blobs: int = 0
    shared: int = 0
    links: int = 0
    freed: int = 0


@dataclass(slots=True)
class Plan:
    """What to do, and what is left alone.

    Attributes:
        mode: hard links or reflinks.
        copied: bytes on disk of blobs that have to be copied into the pool.
        taken_in: how many blobs the pool gets.
    """

    mode: Mode
    layouts: list[Tally] = field(default_factory=list[Tally])
    groups: list[Group] = field(default_factory=list[Group])
    left: list[Left] = field(default_factory=list[Left])
    copied: int = 0
    taken_in: int = 0

    @property
    def total(self) -> Tally:
        """The sums of all layouts."""
        return Tally(
            None,
            sum(tally.blobs for tally in self.layouts),
            sum(tally.shared for tally in self.layouts),
            sum(tally.links for tally in self.layouts),
            sum(tally.freed for tally in self.layouts),
        )

    @property
    def freed(self) -> int:
        """The bytes on disk that there will be more."""
        return self.total.freed - self.copied

    @property
    def exposed(self) -> int:
        """How many files will be readable for users who may not read them now."""
        if self.mode is Mode.REFLINK:
            return 0
        files = (file for group in self.groups for file in group.files)
        return sum(file.mode & _READABLE != _READABLE for file in files)


class Watch(Protocol):
    """Hears how far something is. Several threads call it."""

    def begins(self, total: int) -> None:
        """Hear how many bytes there are."""
        ...

    def moves(self, count: int) -> None:
        """Hear that these were done."""
        ...
