"""FUSE's messages, against the kernel's own header and against anything at all."""

import os
import re
import stat
from pathlib import Path
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.fusefs.attributes import Attributes
from ocistow.fusefs.engines import wire
from ocistow.fusefs.engines.wire import FORMS, Opcode

HEADER = Path("/usr/include/linux/fuse.h")
HEAD = Struct("=IIQQIIIHH")
SIZES = {"uint64_t": 8, "int64_t": 8, "uint32_t": 4, "int32_t": 4, "uint16_t": 2, "char": 1}
STRUCTS = {
    Opcode.FORGET: "forget_in",
    Opcode.GETATTR: "getattr_in",
    Opcode.SETATTR: "setattr_in",
    Opcode.MKNOD: "mknod_in",
    Opcode.MKDIR: "mkdir_in",
    Opcode.RENAME: "rename_in",
    Opcode.LINK: "link_in",
    Opcode.OPEN: "open_in",
    Opcode.READ: "read_in",
    Opcode.WRITE: "write_in",
    Opcode.RELEASE: "release_in",
    Opcode.FSYNC: "fsync_in",
    Opcode.FLUSH: "flush_in",
    Opcode.OPENDIR: "open_in",
    Opcode.RELEASEDIR: "release_in",
    Opcode.FSYNCDIR: "fsync_in",
    Opcode.ACCESS: "access_in",
    Opcode.CREATE: "create_in",
    Opcode.INTERRUPT: "interrupt_in",
    Opcode.BATCH_FORGET: "batch_forget_in",
    Opcode.READDIRPLUS: "read_in",
    Opcode.RENAME2: "rename2_in",
    Opcode.COPY_FILE_RANGE: "copy_file_range_in",
    Opcode.COPY_FILE_RANGE_64: "copy_file_range_in",
}
FOUND = Attributes(9, stat.S_IFREG | 0o644, 1, 2, 3, 4, 5, 6, 7, -8, 1.5, 86_400.0)

u64 = st.integers(0, 2**64 - 1)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)


def message(opcode: int, body: bytes, *, length: int | None = None) -> memoryview:
    size = HEAD.size + len(body) if length is None else length
    return memoryview(HEAD.pack(size, opcode, 77, 5, 1000, 1000, 4242, 0, 0) + body)


def size_of(name: str, header: str) -> int:
    """Return how many bytes a struct of the header takes."""
    match = re.search(rf"struct fuse_{name} \{{(.*?)\n\}};", header, re.DOTALL)
    assert match, name
    total = 0
    fields = re.sub(r"/\*.*?\*/", "", match[1], flags=re.DOTALL)
    for kind, many in re.findall(r"(struct fuse_\w+|\w+)\s+\w+(\[\d*\])?;", fields):
        size = SIZES.get(kind) or size_of(kind.removeprefix("struct fuse_"), header)
        total += size * int(many.strip("[]") or (0 if many else 1))
    return total


@pytest.fixture(scope="module")
def header() -> str:
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not installed")
    return HEADER.read_text()


def test_requests_are_as_long_as_the_header_says(header: str) -> None:
    told = {opcode: size_of(name, header) for opcode, name in STRUCTS.items()}
    assert told == {opcode: FORMS[opcode].numbers.size for opcode in STRUCTS}
    without = {opcode for opcode in FORMS if opcode not in STRUCTS}
    assert {FORMS[opcode].numbers.size for opcode in without - {Opcode.INIT}} == {0}


def test_opcodes_are_the_headers(header: str) -> None:
    told = dict(re.findall(r"FUSE_(\w+)\s*= (\d+),", header))
    assert {o.name: int(told[o.name]) for o in Opcode if o.name in told} == {
        o.name: o.value for o in Opcode if o.name in told
    }


def test_answers_are_as_long_as_the_header_says(header: str) -> None:
    request = wire.parse(message(Opcode.INIT, Struct("=IIII").pack(7, 45, 131072, 0) + bytes(48)))
    greeting = wire.accepted(request, wire.Init(0), max_write=1 << 20, background=9, depth=1)
    dirent = wire.directory_entry(b"seven77", FOUND, 1)
    sizes = {
        "out_header": len(wire.reply(1, 0)),
        "entry_out": len(wire.entry(FOUND)),
        "attr_out": len(wire.attributes(FOUND)),
        "open_out": len(wire.opened(1, wire.Open(0), 0)),
        "write_out": len(wire.count(1)),
        "kstatfs": len(wire.statfs(os.statvfs("/"))),
        "init_out": len(greeting),
        "direntplus": len(dirent) - 8,
    }
    assert sizes == {name: size_of(name, header) for name in sizes}


@given(st.data())
def test_a_request_is_what_was_asked(data: st.DataObject) -> None:
    opcode = data.draw(st.sampled_from(sorted(FORMS)))
    form = FORMS[opcode]
    numbers = form.numbers.unpack(
        data.draw(st.binary(min_size=(n := form.numbers.size), max_size=n))
    )
    told = data.draw(st.lists(names, min_size=form.names, max_size=form.names))
    payload = data.draw(st.binary(max_size=64)) if form.has_data else b""
    body = form.numbers.pack(*numbers) + b"".join(name + b"\0" for name in told) + payload
    request = wire.parse(message(opcode, body))
    assert (request.opcode, request.unique, request.inode, request.thread) == (opcode, 77, 5, 4242)
    assert (request.numbers, request.names) == (numbers, told)
    assert bytes(request.data) == payload


@given(
    st.one_of(st.sampled_from(sorted(FORMS)), st.integers(0, 2**32 - 1)), st.binary(max_size=200)
)
def test_whatever_comes_is_understood_or_refused(opcode: int, body: bytes) -> None:
    for told in (message(opcode, body), message(opcode, body, length=len(body)), memoryview(body)):
        try:
            request = wire.parse(told)
        except ValueError:
            continue
        form = FORMS.get(request.opcode)
        assert form is None or len(request.names) == form.names
        assert all(b"\0" not in name for name in request.names)


@given(st.lists(st.tuples(u64, u64), max_size=20), st.binary(max_size=15))
def test_what_is_forgotten(pairs: list[tuple[int, int]], rest: bytes) -> None:
    raw = b"".join(Struct("=QQ").pack(*pair) for pair in pairs)
    assert wire.forgotten(memoryview(raw)) == pairs
    if rest:
        with pytest.raises(ValueError, match="bytes"):
            wire.forgotten(memoryview(raw + rest))


@given(names, st.integers(0, 2**62))
def test_entries_of_directories_begin_at_multiples_of_eight(name: bytes, after: int) -> None:
    packed = wire.directory_entry(name, FOUND, after)
    assert len(packed) % 8 == 0
    inode, told, size, kind = Struct("=QQII").unpack_from(packed, len(wire.entry(FOUND)))
    assert (inode, told, size, kind) == (FOUND.inode, after, len(name), stat.S_IFREG >> 12)
    assert packed[len(wire.entry(FOUND)) + 24 :].rstrip(b"\0") == name.rstrip(b"\0")


def test_flags_have_two_halves() -> None:
    offered = wire.Init.PASSTHROUGH | wire.Init.INIT_EXT | wire.Init.BIG_WRITES
    low, high = offered & 0xFFFFFFFF, offered >> 32
    body = Struct("=IIIII").pack(7, 45, 131072, low, high) + bytes(44)
    request = wire.parse(message(Opcode.INIT, body))
    assert wire.offered(request) == offered
    old = wire.parse(message(Opcode.INIT, body[:16]))  # of Linux before 5.17
    assert wire.offered(old) & wire.Init.PASSTHROUGH == 0
    answer = wire.accepted(request, offered, max_write=1 << 20, background=64, depth=1)
    assert Struct("=IIIIHHIIHHII").unpack_from(answer) == (
        *(7, 45, 131072, low),
        *(64, 48, 1 << 20, 1, 256, 0),
        *(high, 1),
    )
