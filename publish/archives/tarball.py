"""The members of a tar archive, in the order of its bytes.

The format is that of POSIX pax with GNU's long names. The standard library's reader
is not used: what it reads of a header is not bounded, and its patterns and sizes can
be made to loop by a hostile file (CVE-2024-6232, CVE-2025-8194).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ...oci.errors import InvalidContent
from ...store.blobs import READ_SIZE
from ..compression import read_block
from ..source import Stream

BLOCK = 512
MAX_RECORD = 1 << 20  # bytes of a pax record or long name; real ones have a few hundred
MAX_MEMBERS = 65_536
MAX_NAME = 4096  # bytes

_REGULAR = {b"0", b"\0", b"7"}
_DIRECTORY = b"5"
_SYMLINK = b"2"
_REFUSED = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}
_PAX = re.compile(rb"([1-9][0-9]{0,9}) ")


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file or symbolic link in the archive."""

    offset: int
    size: int
    target: str = ""


class Skippable(Stream, Protocol):
    """A stream that can leave bytes out, which may cost nothing."""

    def skip(self, size: int) -> None:
        """Leave bytes out; the end may come first."""
        ...


class Forward:
    """A stream that is read once from start to end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        return self._stream.read(size)

    def skip(self, size: int) -> None:
        """Read on without returning anything; the end may come first."""
        while size > 0 and (data := self._stream.read(min(size, READ_SIZE))):
            size -= len(data)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Members:
    """The files of an archive, and symbolic links if they are allowed, in the order of its bytes.

    Each comes with its normal name and, until the next one is asked for, a stream of
    its content. The stream below is not closed.
    """

    def __init__(self, stream: Skippable, name: str, *, links: bool) -> None:
        self._stream = stream
        self._name = name
        self._links = links
        self._at = 0

    def __iter__(self) -> Iterator[tuple[str, Member, Stream]]:
        """Yield them.

        Raises:
            InvalidContent: this is no archive, or has a member that could not be unpacked safely.
        """
        found: set[str] = set()
        for kind, name, member in self._entries():
            path = self._checked(name)
            if kind in _REFUSED:
                raise self._invalid(f"{path!r} is {_REFUSED[kind]}")
            if kind == _SYMLINK and not self._links:
                raise self._invalid(f"{path!r} is a symbolic link")
            if kind == _DIRECTORY or name.endswith("/"):
                continue
            if kind not in _REGULAR and kind != _SYMLINK:
                raise self._invalid(f"{path!r} is of the unknown type {kind!r}")
            if path in found:
                raise self._invalid(f"{path!r} is there twice")
            if len(found) >= MAX_MEMBERS:
                raise self._invalid(f"over {MAX_MEMBERS} members")
            found.add(path)
            yield path, member, _Content(self, path, member)

    def read_content(self, path: str, member: Member, size: int) -> bytes:
        """Return the next bytes of a member that was yielded last.

        Raises:
            InvalidContent: the archive ends before the member does.
        """
        left = member.offset + member.size - self._at
        data = self._stream.read(min(size, left)) if left > 0 else b""
        if not data and left > 0 and size > 0:
            raise self._invalid(f"it ends {left} bytes before the end of {path!r}")
        self._at += len(data)
        return data

    def _entries(self) -> Iterator[tuple[bytes, str, Member]]:
        """Yield type, name and place of each member, with what long forms say of it."""
        name, target, pax = b"", b"", dict[bytes, bytes]()
        while header := self._header():
            kind = header[156:157]
            size = self._number(header[124:136])
            if kind == b"x":
                pax = self._pax(self._record(size))
            elif kind == b"g":
                self._refuse_sparse(self._pax(self._record(size)))
            elif kind == b"L":
                name = self._record(size).partition(b"\0")[0]
            elif kind == b"K":
                target = self._record(size).partition(b"\0")[0]
            else:
                self._refuse_sparse(pax)
                size = self._decimal(pax.get(b"size"), size)
                link = pax.get(b"linkpath") or target or _text(header[157:257])
                shown = pax.get(b"path") or name or _ustar_name(header)
                is_file = kind not in {b"1", _SYMLINK, b"3", b"4", _DIRECTORY, b"6"}
                member = Member(
                    self._at,
                    size if is_file else 0,
                    os.fsdecode(link) if kind == _SYMLINK else "",
                )
                yield kind, os.fsdecode(shown), member
                self._skip(member.offset + -(-member.size // BLOCK) * BLOCK - self._at)
                name, target, pax = b"", b"", {}

    def _header(self) -> bytes:
        """Return the next header, or nothing at the end of the archive."""
        header = self._read(BLOCK)
        if not header.strip(b"\0"):
            return b""
        if len(header) < BLOCK:
            raise self._invalid("it ends in the middle of a header")
        if not is_header(header):
            raise self._invalid(f"there is no tar header at byte {self._at - BLOCK}")
        return header

    def _record(self, size: int) -> bytes:
        if size > MAX_RECORD:
            raise self._invalid(f"a header has {size} bytes, at most {MAX_RECORD} are accepted")
        record = self._read(size)
        if len(record) < size:
            raise self._invalid("it ends in the middle of a header")
        self._skip(-size % BLOCK)
        return record

    def _pax(self, record: bytes) -> dict[bytes, bytes]:
        """Return the members of a pax record: `length key=value` and a line feed each."""
        found: dict[bytes, bytes] = {}
        at = 0
        while at < len(record):
            match = _PAX.match(record, at)
            end = at + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(record):
                raise self._invalid("a pax header is malformed")
            key, equals, value = record[match.end() : end - 1].partition(b"=")
            if not equals or record[end - 1 : end] != b"\n":
                raise self._invalid("a pax header is malformed")
            found[key] = value
            at = end
        return found

    def _refuse_sparse(self, pax: Mapping[bytes, bytes]) -> None:
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise self._invalid("a member is a sparse file")

    def _number(self, field: bytes) -> int:
        """Read octal digits, or the base 256 that follows a byte 0x80."""
        if field[0] == 0x80:
            number = int.from_bytes(field[1:])
        else:
            digits = field.strip(b" \0")
            if digits.strip(b"01234567"):
                raise self._invalid(f"a header has the number {field!r}")
            number = int(digits or b"0", 8)
        return self._bounded(number)

    def _decimal(self, text: bytes | None, otherwise: int) -> int:
        if text is None:
            return otherwise
        if not text.isdigit() or len(text) > 20:
            raise self._invalid(f"a header has the number {text[:40]!r}")
        return self._bounded(int(text))

    def _bounded(self, number: int) -> int:
        if number >= 1 << 62:
            raise self._invalid(f"a header has the number {number}")
        return number

    def _checked(self, name: str) -> str:
        """Return the normal form of a name that stays inside."""
        if len(os.fsencode(name)) > MAX_NAME or "\0" in name:
            raise self._invalid(f"{name[:80]!r}… is no name")
        if name.startswith("/") or ".." in name.split("/"):
            raise self._invalid(f"{name[:200]!r} leads out of the archive")
        return posixpath.normpath(name)

    def _read(self, size: int) -> bytes:
        data = read_block(self._stream, size)
        self._at += len(data)
        return data

    def _skip(self, size: int) -> None:
        self._stream.skip(size)
        self._at += size

    def _invalid(self, what: str) -> InvalidContent:
        return InvalidContent(f"{self._name}: {what}")


def is_header(block: bytes) -> bool:
    """Tell whether a block begins a member: its checksum is right."""
    digits = block[148:156].strip(b" \0")
    stated = int(digits, 8) if digits and not digits.strip(b"01234567") else -1
    return stated == sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


class _Content:
    """What is left of the member that was yielded last."""

    def __init__(self, members: Members, path: str, member: Member) -> None:
        self._members = members
        self._path = path
        self._member = member

    def read(self, size: int, /) -> bytes:
        return self._members.read_content(self._path, self._member, size)

    def close(self) -> None:
        pass


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _ustar_name(header: bytes) -> bytes:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name
