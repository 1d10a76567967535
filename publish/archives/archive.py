"""The files of an archive, wherever their bytes are."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Protocol, Self

from ...oci.descriptor import Descriptor
from ...oci.errors import InvalidContent, NotFound
from ...oci.wording import quoted
from ..compression import read_block
from ..packing import Packed
from ..source import Blob, Section, Stream
from .tarball import Member, Members

MAX_LINKS = 8  # symbolic links on the way to one file


class Archive(Protocol):
    """The files of an archive by their names. Thread-safe."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def find(self, name: str) -> str:
        """Return the member that `name` stands for, after symbolic links.

        Raises:
            NotFound: there is none.
            InvalidContent: links lead out of the archive or nowhere.
        """
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def open(self, name: str) -> Stream:
        """Open a file; the caller closes it."""
        ...

    def open_blob(self, name: str, descriptor: Descriptor) -> Blob:
        """Open a file as a blob.

        Raises:
            NotFound: there is none of that name.
            InvalidContent: it has another size.
        """
        ...

    def packed(self, name: str) -> Packed | None:
        """Return a file that was compressed when it was read, and waits as a layer."""
        ...


def read_member(archive: Archive, name: str, limit: int) -> bytes:
    """Return a file of at most `limit` bytes."""
    size = archive.size(name)
    if size > limit:
        raise InvalidContent(f"{archive.name}: {quoted(name)} has {size} bytes, at most {limit} go")
    stream = archive.open(name)
    try:
        return read_block(stream, size)
    finally:
        stream.close()


class ArchiveFile:
    """An archive in a regular file that is not compressed; its members are read in place."""

    def __init__(self, file: int, name: str, members: Mapping[str, Member]) -> None:
        self._file = file
        self._members = members
        self._targets = {path: member.target for path, member in members.items()}
        self.name = name

    @classmethod
    def of(cls, file: int, name: str, *, links: bool) -> Self:
        """Find the members of the archive in an open file, which stays the caller's.

        `links` allows symbolic links to other members.

        Raises:
            InvalidContent: it is no archive, ends within a member, or has some that could not
                be unpacked safely: absolute names, `..`, devices, hard links, one name twice.
        """
        end = os.fstat(file).st_size
        members: dict[str, Member] = {}
        for path, member, _ in Members(Section(file, 0, end), name, links=links):
            if (lost := member.offset + member.size - end) > 0:  # or it would pass for a sparse one
                raise InvalidContent(f"{name}: it ends {lost} bytes before the end of {path!r}")
            members[path] = member
        return cls(file, name, members)

    def find(self, name: str) -> str:
        """Return the member that `name` stands for."""
        return follow(self._targets, name, self.name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._members[self.find(name)].size

    def open(self, name: str) -> Stream:
        """Open a file."""
        member = self._members[self.find(name)]
        return Section(self._file, member.offset, member.size)

    def open_blob(self, name: str, descriptor: Descriptor) -> Blob:
        """Open a file as a blob."""
        check_size(self.size(name), descriptor)
        return Blob(self.open(name), descriptor)

    def packed(self, name: str) -> Packed | None:
        """Return nothing: members stay what they are."""
        return None


def follow(members: Mapping[str, str], name: str, archive: str) -> str:
    """Return the member that `name` stands for; each has the target of its symbolic link, or none.

    Raises:
        NotFound: there is none.
        InvalidContent: links lead out of the archive or nowhere.
    """
    found = posixpath.normpath(name)
    for _ in range(MAX_LINKS):
        target = members.get(found)
        if target is None:
            raise NotFound(f"{quoted(found)} in {archive}")
        if not target:
            return found
        path = posixpath.normpath(posixpath.join(posixpath.dirname(found), target))
        if path.startswith(("/", "../")):
            raise InvalidContent(f"{archive}: {quoted(found)} links out of the archive")
        found = path
    raise InvalidContent(f"{archive}: {quoted(name)} is over {MAX_LINKS} links away")


def check_size(size: int, descriptor: Descriptor) -> None:
    """Refuse a blob that does not have the announced size.

    Raises:
        InvalidContent: it has another.
    """
    if size != descriptor.size:
        raise InvalidContent(
            f"blob {descriptor.digest} has {size} bytes, {descriptor.size} were announced"
        )
