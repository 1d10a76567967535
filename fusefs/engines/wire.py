"""The messages of FUSE as bytes: pure.

Source: include/uapi/linux/fuse.h, protocol 7.45; all numbers are in the machine's byte order.
"""

from __future__ import annotations

import enum
import os
import stat
import sys
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from ..attributes import Attributes

MAJOR, MINOR = 7, 45


class Opcode(enum.IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    COPY_FILE_RANGE_64 = 53


class Init(enum.IntFlag):
    """What an INIT offers and its answer accepts."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37


class Valid(enum.IntFlag):
    """Which numbers of a SETATTR count."""

    MODE = 1 << 0
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6


class Open(enum.IntFlag):
    """How the kernel is to treat an open file."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


@dataclass(frozen=True, slots=True)
class Form:
    """What follows the header of a request: numbers, then names that end in NUL, then data."""

    numbers: Struct
    names: int = 0
    has_data: bool = False


_NOTHING = Struct("=")
_HANDLE = Struct("=Q16x")  # a handle, flags, the owner of locks
_SYNC = Struct("=Q8x")  # a handle, flags
_RANGE = Struct("=QQI20x")  # handle, offset, size, flags, the owner of locks
_COPY = Struct("=QQQQQQ8x")  # handle, offset, inode to, handle to, offset to, length, flags

FORMS: dict[int, Form] = {
    Opcode.LOOKUP: Form(_NOTHING, names=1),
    Opcode.FORGET: Form(Struct("=Q")),  # lookups
    Opcode.GETATTR: Form(Struct("=16x")),
    # valid, handle, size, atime, mtime, their nanoseconds, mode
    Opcode.SETATTR: Form(Struct("=I4xQQ8xqq8xII4xI16x")),
    Opcode.READLINK: Form(_NOTHING),
    Opcode.SYMLINK: Form(_NOTHING, names=2),  # name, target
    Opcode.MKNOD: Form(Struct("=16x"), names=1),
    Opcode.MKDIR: Form(Struct("=8x"), names=1),
    Opcode.UNLINK: Form(_NOTHING, names=1),
    Opcode.RMDIR: Form(_NOTHING, names=1),
    Opcode.RENAME: Form(Struct("=Q"), names=2),  # new parent; old name, new name
    Opcode.LINK: Form(Struct("=Q"), names=1),  # inode
    Opcode.OPEN: Form(Struct("=I4x")),  # flags
    Opcode.READ: Form(_RANGE),
    Opcode.WRITE: Form(_RANGE, has_data=True),
    Opcode.STATFS: Form(_NOTHING),
    Opcode.RELEASE: Form(_HANDLE),
    Opcode.FSYNC: Form(_SYNC),
    Opcode.FLUSH: Form(_HANDLE),
    # major, minor, read-ahead, flags; then, if there is more, the high half of the flags
    Opcode.INIT: Form(Struct("=IIII"), has_data=True),
    Opcode.OPENDIR: Form(Struct("=8x")),
    Opcode.RELEASEDIR: Form(_HANDLE),
    Opcode.FSYNCDIR: Form(_SYNC),
    Opcode.ACCESS: Form(Struct("=I4x")),  # mode
    Opcode.CREATE: Form(Struct("=II8x"), names=1),  # flags, mode
    Opcode.INTERRUPT: Form(Struct("=Q")),  # unique
    Opcode.DESTROY: Form(_NOTHING),
    Opcode.BATCH_FORGET: Form(Struct("=I4x"), has_data=True),  # count; inode and lookups each
    Opcode.READDIRPLUS: Form(_RANGE),
    Opcode.RENAME2: Form(Struct("=QI4x"), names=2),  # new parent, flags
    Opcode.COPY_FILE_RANGE: Form(_COPY),
    Opcode.COPY_FILE_RANGE_64: Form(_COPY),
}

# length, opcode, unique, inode, uid, gid, thread, extensions
_REQUEST = Struct("=IIQQ8xI4x")
_REPLY = Struct("=IiQ")  # length, negative errno, unique
_FORGET = Struct("=QQ")
_ATTRIBUTES = "QQQqqqIIIIIIIIII"
_ENTRY = Struct("=QQQQII" + _ATTRIBUTES)
_GETATTR = Struct("=QI4x" + _ATTRIBUTES)
_DIRENT = Struct("=QQII")
_OPENED = Struct("=QIi")
_COUNT = Struct("=I4x")
_LONG_COUNT = Struct("=Q")
_STATFS = Struct("=QQQQQIII28x")
_INIT = Struct("=IIIIHHIIHHII24x")
_INVALIDATE_INODE = Struct("=Qqq")
BACKING = Struct("=iI8x")  # a descriptor, flags: of the ioctl that makes a backing file

_NOTIFY_INODE = 2
_TIME_GRAN = 1  # nanoseconds


class Request(NamedTuple):  # made in a third of the time of a frozen dataclass
    """A request; `data` is part of the buffer that it was parsed from."""

    opcode: int
    unique: int
    inode: int
    thread: int
    numbers: tuple[int, ...]
    names: list[bytes]
    data: memoryview


def parse(message: memoryview) -> Request:
    """Return what a message asks; of an unknown opcode only what all requests have.

    Raises:
        ValueError: its length is not what it says, or too short for what it asks.
    """
    if len(message) < _REQUEST.size:
        raise ValueError(f"a request of {len(message)} bytes")
    length, opcode, unique, inode, thread = _REQUEST.unpack_from(message)
    form = FORMS.get(opcode)
    if form is None:
        return Request(opcode, unique, inode, thread, (), [], message[_REQUEST.size :])
    start = _REQUEST.size + form.numbers.size
    if length != len(message) or length < start:
        raise ValueError(f"request {opcode} of {len(message)} bytes, {length} announced")
    names: list[bytes] = []
    if form.names:
        *names, rest = bytes(message[start:]).split(b"\0")
        if len(names) != form.names or rest:
            raise ValueError(f"request {opcode} with {len(names)} names")
        start = length
    elif start != length and not form.has_data:
        raise ValueError(f"request {opcode} with {length - start} bytes too many")
    numbers = form.numbers.unpack_from(message, _REQUEST.size)
    return Request(opcode, unique, inode, thread, numbers, names, message[start:])


def forgotten(data: memoryview) -> list[tuple[int, int]]:
    """Return the pairs of inode and lookups in a BATCH_FORGET.

    Raises:
        ValueError: it ends within one.
    """
    if len(data) % _FORGET.size:
        raise ValueError(f"{len(data)} bytes of pairs to forget")
    return [(inode, lookups) for inode, lookups in _FORGET.iter_unpack(data)]


def reply(unique: int, size: int, error: int = 0) -> bytes:
    """Return what comes before an answer of `size` bytes; an error has no other answer."""
    return _REPLY.pack(_REPLY.size + size, -error, unique)


def entry(found: Attributes) -> bytes:
    """Return the answer to a lookup, and to what makes a name."""
    name, name_ns = _seconds(found.entry_timeout)
    valid, valid_ns = _seconds(found.attr_timeout)
    return _ENTRY.pack(found.inode, 0, name, valid, name_ns, valid_ns, *_attributes(found))


def attributes(found: Attributes) -> bytes:
    """Return the answer to GETATTR and SETATTR."""
    return _GETATTR.pack(*_seconds(found.attr_timeout), *_attributes(found))


def directory_entry(name: bytes, found: Attributes, after: int) -> bytes:
    """Return one of the entries in the answer to READDIRPLUS; `after` is the next one's number."""
    head = _DIRENT.pack(found.inode, after, len(name), stat.S_IFMT(found.mode) >> 12)
    return entry(found) + head + name + bytes(-len(name) % 8)


def opened(handle: int, flags: Open, backing: int) -> bytes:
    """Return the answer to OPEN and OPENDIR, and the end of that to CREATE."""
    return _OPENED.pack(handle, flags, backing)


def count(size: int) -> bytes:
    """Return the answer to WRITE and COPY_FILE_RANGE."""
    return _COUNT.pack(size)


def long_count(size: int) -> bytes:
    """Return the answer to COPY_FILE_RANGE_64."""
    return _LONG_COUNT.pack(size)


def statfs(below: os.statvfs_result) -> bytes:
    """Return the answer to STATFS."""
    return _STATFS.pack(
        below.f_blocks,
        below.f_bfree,
        below.f_bavail,
        below.f_files,
        below.f_ffree,
        below.f_bsize,
        below.f_namemax,
        below.f_frsize,
    )


def offered(request: Request) -> Init:
    """Return what an INIT offers."""
    flags = request.numbers[3]
    high = int.from_bytes(request.data[:4], sys.byteorder) if flags & Init.INIT_EXT else 0
    return Init(flags | high << 32)


def accepted(
    request: Request, flags: Init, *, max_write: int, background: int, depth: int
) -> bytes:
    """Return the answer to INIT.

    `background` requests may wait at once of those that no client waits for; `depth` is how
    many file systems may lie on each other for passthrough, this one included.
    """
    _, minor, read_ahead, _ = request.numbers
    return _INIT.pack(
        MAJOR,
        min(minor, MINOR),
        read_ahead,
        flags & 0xFFFFFFFF,
        background,
        background * 3 // 4,
        max_write,
        _TIME_GRAN,
        max_write // os.sysconf("SC_PAGE_SIZE"),
        0,
        flags >> 32,
        depth,
    )


def invalid_inode(inode: int) -> bytes:
    """Return the message that makes the kernel drop an inode's attributes, and no pages."""
    return _notification(_NOTIFY_INODE, _INVALIDATE_INODE.pack(inode, -1, 0))


def _notification(code: int, body: bytes) -> bytes:
    return _REPLY.pack(_REPLY.size + len(body), code, 0) + body


def _attributes(found: Attributes) -> tuple[int, ...]:
    atime, atime_ns = divmod(found.atime_ns, 1_000_000_000)
    mtime, mtime_ns = divmod(found.mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(found.ctime_ns, 1_000_000_000)
    return (
        found.inode,
        found.size,
        found.blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        found.mode,
        found.links,
        found.uid,
        found.gid,
        0,  # no devices
        4096,
        0,
    )


def _seconds(timeout: float) -> tuple[int, int]:
    return int(timeout), int(timeout % 1 * 1_000_000_000)
