"""The headers of tar archives, with the bytes that Go's archive/tar gives them.

What Go writes is ustar, or PAX with a record for each field that ustar cannot hold. Python's
`tarfile` differs in how it splits long names, in device numbers, in which records it adds, and
in what it puts at the end, so that a layer would have another diffID.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; Go 1.19 to 1.26, archive/tar.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple
from zlib import adler32

BLOCK = 512  # bytes
MTIME = 315532801  # 1980-01-01T00:00:01Z, in seconds since the epoch

REGULAR, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"2", b"3", b"4", b"5", b"6"
SOCKET = b""  # what no archive can hold, and is left out
_EXTENDED = b"x"

_NAME = 100  # bytes, of a name and of what a link leads to
_PREFIX = 155
_ID = 8**7  # what does not fit into a field of 8 bytes
_SIZE = 8**11


class Entry(NamedTuple):  # a tree has many: a dataclass takes four times as long to make
    """What one header says. The time is `MTIME`, and there are no names of users and groups.

    Attributes:
        name: an absolute path, directories without a slash at the end.
        kind: one of the constants of this module.
        mode: permissions, with setuid, setgid and the sticky bit.
        size: bytes of content; 0 for what is no regular file.
        target: where a symbolic link leads.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int = 0
    target: bytes = b""
    major: int = 0
    minor: int = 0


def entry_size(entry: Entry) -> int:
    """Return how many bytes an entry takes, with its content."""
    size = BLOCK + entry.size + -entry.size % BLOCK
    if not _is_plain(entry):
        records = len(_records(entry))
        size += records and BLOCK + records + -records % BLOCK
    return size


def header(entry: Entry) -> bytes:
    """Return what stands before an entry's content: one block, or more if that needs PAX."""
    if _is_plain(entry):
        return _block(entry, entry.name, entry.target)
    if not (records := _records(entry)):
        prefix, name = _split(entry.name)
        return _block(entry, name, entry.target, prefix)
    above, _, last = entry.name.rpartition(b"/")
    extended = _ascii(above + b"/PaxHeaders.0/" + last)[:_NAME].rstrip(b"/")
    length = b"%011o\0" % len(records)
    octal = _OCTAL % 0
    return b"".join(
        (
            _sealed(extended, octal, octal, octal, length, b"%011o\0" % 0, _EXTENDED),
            records,
            bytes(-len(records) % BLOCK),
            _block(entry, _cut(_ascii(entry.name)), _cut(_ascii(entry.target))),
        )
    )


_OCTAL = b"%07o\0"
_FORM = Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 8s 64x 8s 8s 155s 12x")
_MAGIC = b"ustar\00000"
_UNSUMMED = 8 * b" "


def _is_plain(entry: Entry) -> bool:
    """Tell whether one block holds it, without a prefix; false for few of those that do."""
    return (
        len(entry.name) <= _NAME
        and len(entry.target) <= _NAME
        and entry.size < _SIZE
        and 0 <= entry.uid < _ID
        and 0 <= entry.gid < _ID
        and entry.name.isascii()
        and entry.target.isascii()
    )


def _records(entry: Entry) -> bytes:
    """Return the PAX records of the fields that do not fit; they come in the order of names."""
    fields: list[tuple[bytes, bytes]] = []
    if not 0 <= entry.gid < _ID:
        fields.append((b"gid", b"%d" % entry.gid))
    if len(entry.target) > _NAME or not entry.target.isascii():
        fields.append((b"linkpath", entry.target))
    long = len(entry.name) > _NAME or not entry.name.isascii()
    splits = long and entry.name.isascii() and _split(entry.name) != (b"", b"")
    path = len(fields)
    if entry.size >= _SIZE:
        fields.append((b"size", b"%d" % entry.size))
    if not 0 <= entry.uid < _ID:
        fields.append((b"uid", b"%d" % entry.uid))
    if long and (fields or not splits):  # a name that can be split has a record beside another's
        fields.insert(path, (b"path", entry.name))
    return b"".join(_record(key, value) for key, value in fields)


def _record(key: bytes, value: bytes) -> bytes:
    """Return one record, which begins with its own length."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))  # with one digit more than the length without it has
    return b"%d %b=%b\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Divide a long name where the prefix is longest; both are empty where that cannot be."""
    slash = name.rfind(b"/", 0, _PREFIX + 1)
    prefix, rest = name[: max(slash, 0)], name[slash + 1 :]
    return (prefix, rest) if prefix and 0 < len(rest) <= _NAME else (b"", b"")


def _block(entry: Entry, name: bytes, target: bytes, prefix: bytes = b"") -> bytes:
    return _sealed(
        name,
        _OCTAL % entry.mode,
        _OCTAL % (entry.uid if 0 <= entry.uid < _ID else 0),
        _OCTAL % (entry.gid if 0 <= entry.gid < _ID else 0),
        b"%011o\0" % (entry.size if entry.size < _SIZE else 0),
        _TIME,
        entry.kind,
        target,
        _OCTAL % entry.major,
        _OCTAL % entry.minor,
        prefix,
    )


_TIME = b"%011o\0" % MTIME


def _sealed(
    name: bytes,
    mode: bytes,
    uid: bytes,
    gid: bytes,
    size: bytes,
    time: bytes,
    kind: bytes,
    target: bytes = b"",
    major: bytes = b"",
    minor: bytes = b"",
    prefix: bytes = b"",
) -> bytes:
    """Return a block with its checksum.

    Half of an Adler-32 is one more than the sum of all bytes: of ASCII that cannot overflow,
    and it takes a tenth of the time of `sum`.
    """
    fields = (kind, target, _MAGIC, major, minor, prefix)
    block = _FORM.pack(name, mode, uid, gid, size, time, _UNSUMMED, *fields)
    return b"%b%06o\0 %b" % (block[:148], (adler32(block) & 0xFFFF) - 1, block[156:])


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(byte for byte in text if byte < 0x80)


def _cut(text: bytes) -> bytes:
    """Cut a name to its field; what is cut after a slash loses it, since that means directories."""
    field = text[:_NAME]
    if len(text) <= _NAME or not field.endswith(b"/"):
        return field
    end = len(field.rstrip(b"/"))
    return field[:end] + b"\0" + field[end + 1 :]
