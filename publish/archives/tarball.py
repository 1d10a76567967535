"""The files of a tar archive that holds an image, in the order of its bytes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from ...oci.errors import InvalidContent
from ..source import Stream
from .entries import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entries, Entry, Skippable

MAX_MEMBERS = 65_536
MAX_NAME = 4096  # bytes

_REFUSED = {
    HARD_LINK: "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file or symbolic link in the archive."""

    offset: int
    size: int
    target: str = ""


class Members:
    """The files of an archive, and symbolic links if they are allowed, in the order of its bytes.

    Each comes with its normal name and, until the next one is asked for, a stream of
    its content. The stream below is not closed.
    """

    def __init__(self, stream: Skippable, name: str, *, links: bool) -> None:
        self._entries = Entries(stream, name)
        self._links = links

    def __iter__(self) -> Iterator[tuple[str, Member, Stream]]:
        """Yield them.

        Raises:
            InvalidContent: this is no archive, or has a member that could not be unpacked safely.
        """
        found: set[str] = set()
        for entry in self._entries:
            path, kind = self._checked(entry.name), entry.kind
            if kind in _REFUSED:
                raise self._invalid(f"{path!r} is {_REFUSED[kind]}")
            if kind == SYMLINK and not self._links:
                raise self._invalid(f"{path!r} is a symbolic link")
            if kind == DIRECTORY or entry.name.endswith("/"):
                continue
            if kind not in REGULAR and kind != SYMLINK:
                raise self._invalid(f"{path!r} is of the unknown type {kind!r}")
            if path in found:
                raise self._invalid(f"{path!r} is there twice")
            if len(found) >= MAX_MEMBERS:
                raise self._invalid(f"over {MAX_MEMBERS} members")
            found.add(path)
            target = entry.target if kind == SYMLINK else ""
            yield path, Member(entry.offset, entry.size, target), _Content(self._entries, entry)

    def _checked(self, name: str) -> str:
        """Return the normal form of a name that stays inside."""
        if len(os.fsencode(name)) > MAX_NAME or "\0" in name:
            raise self._invalid(f"{name[:80]!r}… is no name")
        if name.startswith("/") or ".." in name.split("/"):
            raise self._invalid(f"{name[:200]!r} leads out of the archive")
        return posixpath.normpath(name)

    def _invalid(self, what: str) -> InvalidContent:
        return self._entries.invalid(what)


class _Content:
    """What is left of the entry that was yielded last."""

    def __init__(self, entries: Entries, entry: Entry) -> None:
        self._entries = entries
        self._entry = entry

    def read(self, size: int, /) -> bytes:
        return self._entries.read(self._entry, size)

    def close(self) -> None:
        pass
