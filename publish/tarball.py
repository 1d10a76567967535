"""The files of a tar archive: found once, read in place.

The format is that of POSIX pax with GNU's long names. The standard library's reader
is not used: what it reads of a header is not bounded, and its patterns and sizes can
be made to loop by a hostile file (CVE-2024-6232, CVE-2025-8194).
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent, NotFound
from .compression import GZIP_MAGIC, Inflated, read_block
from .source import Blob, Stream

BLOCK = 512
MAX_RECORD = 1 << 20  # bytes of a pax record or long name; real ones have a few hundred
MAX_MEMBERS = 65_536
MAX_NAME = 4096  # bytes
MAX_LINKS = 8  # symbolic links on the way to one file

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


class Tarball:
    """An open archive, plain or compressed by gzip. Thread-safe.

    Of a compressed one, all that precedes a file is inflated whenever that is opened.
    """

    def __init__(self, file: int, name: str, members: Mapping[str, Member], *, packed: bool):
        self._file = file
        self._members = members
        self._packed = packed
        self.name = name

    @classmethod
    def open(cls, path: Path, *, links: bool) -> Self:
        """Find the files of the archive; the caller closes it.

        `links` allows symbolic links to other members.

        Raises:
            InvalidContent: it is no archive, or has members that could not be unpacked
                safely: absolute names, `..`, devices, hard links, one name twice.
        """
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidContent(f"{path} is not a regular file")
            packed = os.pread(file, len(GZIP_MAGIC), 0) == GZIP_MAGIC
            whole = Section(file, 0, status.st_size)
            stream = Inflated(whole) if packed else whole
            members = _Headers(stream, str(path)).members(links=links)
            return cls(file, str(path), members, packed=packed)
        except BaseException:
            os.close(file)
            raise

    def find(self, name: str) -> str:
        """Return the member that `name` stands for, after symbolic links.

        Raises:
            NotFound: there is none.
            InvalidContent: links lead out of the archive or nowhere.
        """
        found = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            member = self._members.get(found)
            if member is None:
                raise NotFound(f"{found!r} in {self.name}")
            if not member.target:
                return found
            where = posixpath.join(posixpath.dirname(found), member.target)
            target = posixpath.normpath(where)
            if target.startswith(("/", "../")):
                raise InvalidContent(f"{self.name}: {found!r} links out of the archive")
            found = target
        raise InvalidContent(f"{self.name}: {name!r} is over {MAX_LINKS} links away")

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._members[self.find(name)].size

    def open_member(self, name: str) -> Stream:
        """Open a file; the caller closes it."""
        member = self._members[self.find(name)]
        if not self._packed:
            return Section(self._file, member.offset, member.size)
        stream = Inflated(Section(self._file, 0, os.fstat(self._file).st_size))
        stream.skip(member.offset)
        return _Limited(stream, member.size)

    def read(self, name: str, limit: int) -> bytes:
        """Return a file of at most `limit` bytes."""
        size = self.size(name)
        if size > limit:
            raise InvalidContent(f"{self.name}: {name!r} has {size} bytes, at most {limit} go")
        stream = self.open_member(name)
        try:
            return read_block(stream, size)
        finally:
            stream.close()

    def close(self) -> None:
        """Close the archive."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Skippable(Stream, Protocol):
    def skip(self, size: int) -> None: ...


class Section:
    """A part of an open file that stays somebody else's."""

    def __init__(self, file: int, offset: int, size: int) -> None:
        self._file = file
        self._at = offset
        self._end = offset + size

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        data = os.pread(self._file, max(0, min(size, self._end - self._at)), self._at)
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        """Leave bytes out; the end may come first."""
        self._at += size

    def close(self) -> None:
        """Leave the file open."""


class _Limited:
    """The next bytes of a stream, which it closes."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int, /) -> bytes:
        if self._left == 0:
            return b""
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._stream.close()


def member_blob(tar: Tarball, name: str, descriptor: Descriptor) -> Blob:
    """Open a member as a blob.

    Raises:
        NotFound: there is none of that name.
        InvalidContent: it has another size.
    """
    size = tar.size(name)
    if size != descriptor.size:
        raise InvalidContent(
            f"blob {descriptor.digest} has {size} bytes, {descriptor.size} were announced"
        )
    return Blob(tar.open_member(name), descriptor)


class _Headers:
    """Reads the headers of an archive; between them it skips."""

    def __init__(self, stream: _Skippable, name: str) -> None:
        self._stream = stream
        self._name = name
        self._at = 0

    def members(self, *, links: bool) -> dict[str, Member]:
        """Return all files, and symbolic links if they are allowed, by normal name."""
        found: dict[str, Member] = {}
        for kind, name, member in self._entries():
            path = self._checked(name)
            if kind in _REFUSED:
                raise self._invalid(f"{path!r} is {_REFUSED[kind]}")
            if kind == _SYMLINK and not links:
                raise self._invalid(f"{path!r} is a symbolic link")
            if kind == _DIRECTORY or name.endswith("/"):
                continue
            if kind not in _REGULAR and kind != _SYMLINK:
                raise self._invalid(f"{path!r} is of the unknown type {kind!r}")
            if path in found:
                raise self._invalid(f"{path!r} is there twice")
            if len(found) >= MAX_MEMBERS:
                raise self._invalid(f"over {MAX_MEMBERS} members")
            found[path] = member
        return found

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
                self._skip(-(-member.size // BLOCK) * BLOCK)
                name, target, pax = b"", b"", {}

    def _header(self) -> bytes:
        """Return the next header, or nothing at the end of the archive."""
        header = self._read(BLOCK)
        if not header.strip(b"\0"):
            return b""
        if len(header) < BLOCK:
            raise self._invalid("it ends in the middle of a header")
        stated = self._number(header[148:156])
        if stated != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
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


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _ustar_name(header: bytes) -> bytes:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name
