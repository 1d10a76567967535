"""The entries of a tar archive: what its headers say, in the order of its bytes.

The format is that of POSIX pax with GNU's long names. The standard library's reader
is not used: what it reads of a header is not bounded, and its patterns and sizes can
be made to loop by a hostile file (CVE-2024-6232, CVE-2025-8194).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ...oci.errors import InvalidContent
from ...store.reading import READ_SIZE
from ..compression import read_block
from ..source import Stream

BLOCK = 512
MAX_RECORD = 1 << 20  # bytes of a pax record or long name; real ones have a few hundred

REGULAR = frozenset({b"0", b"\0", b"7"})
HARD_LINK = b"1"
SYMLINK = b"2"
DIRECTORY = b"5"

_WITHOUT_CONTENT = {HARD_LINK, SYMLINK, b"3", b"4", DIRECTORY, b"6"}
_PAX = re.compile(rb"([1-9][0-9]{0,9}) ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as its header and the long forms before it describe it.

    Attributes:
        kind: the type flag, one byte.
        name: unchecked; surrogates stand for what is not UTF-8.
        mode: the permission bits with setuid, setgid and sticky.
        target: of a link; unchecked.
        offset: where its content begins.
        size: of its content, in bytes.
    """

    kind: bytes
    name: str
    mode: int
    target: str
    offset: int
    size: int


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


class Entries:
    """The entries of an archive. The stream below is not closed.

    `what` names the archive in messages.
    """

    def __init__(self, stream: Skippable, what: str) -> None:
        self._stream = stream
        self._what = what
        self._at = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield each; until the next one is asked for, its content can be read.

        Raises:
            InvalidContent: this is no archive, or has a sparse file.
        """
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
                size = 0 if kind in _WITHOUT_CONTENT else self._decimal(pax.get(b"size"), size)
                link = pax.get(b"linkpath") or target or _text(header[157:257])
                shown = pax.get(b"path") or name or _ustar_name(header)
                mode = self._number(header[100:108]) & 0o7777
                entry = Entry(kind, os.fsdecode(shown), mode, os.fsdecode(link), self._at, size)
                yield entry
                self._skip(entry.offset + -(-size // BLOCK) * BLOCK - self._at)
                name, target, pax = b"", b"", {}

    def read(self, entry: Entry, size: int) -> bytes:
        """Return the next bytes of the entry that was yielded last, at most `size`.

        Raises:
            InvalidContent: the archive ends before the entry does.
        """
        left = entry.offset + entry.size - self._at
        data = self._stream.read(min(size, left)) if left > 0 else b""
        if not data and left > 0 and size > 0:
            raise self.invalid(f"it ends {left} bytes before the end of {entry.name!r}")
        self._at += len(data)
        return data

    def invalid(self, why: str) -> InvalidContent:
        """Return the error that says what is wrong with this archive."""
        return InvalidContent(f"{self._what}: {why}")

    def _header(self) -> bytes:
        """Return the next header, or nothing at the end of the archive."""
        header = self._read(BLOCK)
        if not header.strip(b"\0"):
            return b""
        if len(header) < BLOCK:
            raise self.invalid("it ends in the middle of a header")
        if not is_header(header):
            raise self.invalid(f"there is no tar header at byte {self._at - BLOCK}")
        return header

    def _record(self, size: int) -> bytes:
        if size > MAX_RECORD:
            raise self.invalid(f"a header has {size} bytes, at most {MAX_RECORD} are accepted")
        record = self._read(size)
        if len(record) < size:
            raise self.invalid("it ends in the middle of a header")
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
                raise self.invalid("a pax header is malformed")
            key, equals, value = record[match.end() : end - 1].partition(b"=")
            if not equals or record[end - 1 : end] != b"\n":
                raise self.invalid("a pax header is malformed")
            found[key] = value
            at = end
        return found

    def _refuse_sparse(self, pax: Mapping[bytes, bytes]) -> None:
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise self.invalid("a member is a sparse file")

    def _number(self, field: bytes) -> int:
        """Read octal digits, or the base 256 that follows a byte 0x80."""
        if field[0] == 0x80:
            number = int.from_bytes(field[1:])
        else:
            digits = field.strip(b" \0")
            if digits.strip(b"01234567"):
                raise self.invalid(f"a header has the number {field!r}")
            number = int(digits or b"0", 8)
        return self._bounded(number)

    def _decimal(self, text: bytes | None, otherwise: int) -> int:
        if text is None:
            return otherwise
        if not text.isdigit() or len(text) > 20:
            raise self.invalid(f"a header has the number {text[:40]!r}")
        return self._bounded(int(text))

    def _bounded(self, number: int) -> int:
        if number >= 1 << 62:
            raise self.invalid(f"a header has the number {number}")
        return number

    def _read(self, size: int) -> bytes:
        data = read_block(self._stream, size)
        self._at += len(data)
        return data

    def _skip(self, size: int) -> None:
        self._stream.skip(size)
        self._at += size


def is_header(block: bytes) -> bool:
    """Tell whether a block begins a member: its checksum is right."""
    digits = block[148:156].strip(b" \0")
    stated = int(digits, 8) if digits and not digits.strip(b"01234567") else -1
    return stated == sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _ustar_name(header: bytes) -> bytes:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name
