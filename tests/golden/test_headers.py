"""Every header has the bytes that Go gives it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.golang.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    REGULAR,
    SYMLINK,
    Entry,
    entry_size,
    header,
)
from ocistow.lifecycle.layers.tarball import LayerTar

from .conftest import Golden

pytestmark = pytest.mark.golang

CHARACTERS = st.sampled_from([b"a", b"b", b" ", b"\n", b"=", "é".encode(), "€".encode(), b"\xff"])
PLAIN = st.sampled_from([b"a", b"b", b"."])


def repeated(piece: bytes, length: int) -> bytes:
    return (piece * length)[:length]


def segments(longest: int, pieces: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    names = st.builds(repeated, pieces, st.integers(1, longest))
    return names.filter(lambda name: name not in (b".", b".."))


PATHS = st.one_of(
    *(
        st.lists(segments(longest, pieces), min_size=1, max_size=most).map(
            lambda names: b"/" + b"/".join(names)
        )
        for pieces in (PLAIN, CHARACTERS)
        for longest, most in ((3, 90), (110, 4), (260, 2))
    )
)
IDS = st.one_of(st.integers(0, 3000), st.sampled_from([-1, 2097151, 2097152, 2**32 - 2]))
SIZES = st.one_of(st.integers(0, 9999), st.sampled_from([2**33 - 1, 2**33, 10**18]))
MODES = st.integers(0, 0o7777)
NO_SIZE, NO_TARGET, NO_DEVICE = st.just(0), st.just(b""), st.just(0)


def entries(
    *kinds: bytes,
    sizes: st.SearchStrategy[int] = NO_SIZE,
    targets: st.SearchStrategy[bytes] = NO_TARGET,
    majors: st.SearchStrategy[int] = NO_DEVICE,
    minors: st.SearchStrategy[int] = NO_DEVICE,
) -> st.SearchStrategy[Entry]:
    kind = st.sampled_from(kinds)
    return st.builds(Entry, PATHS, kind, MODES, IDS, IDS, sizes, targets, majors, minors)


ENTRIES = st.one_of(
    entries(DIRECTORY, FIFO),
    entries(REGULAR, sizes=SIZES),
    entries(SYMLINK, targets=PATHS),
    entries(
        CHARACTER,
        BLOCK_DEVICE,
        majors=st.integers(0, 4095),
        minors=st.integers(0, 2**20 - 1),
    ),
)


@settings(max_examples=150)
@given(some=st.lists(ENTRIES, min_size=1, max_size=20))
def test_headers_are_gos(golden: Golden, some: list[Entry]) -> None:
    for entry, expected in zip(some, golden.headers(some), strict=True):
        assert header(entry) == expected
        assert entry_size(entry) == len(expected) + -(-entry.size // BLOCK) * BLOCK


LENGTHS = [*range(95, 106), *range(250, 262), 1000, 4000]


@pytest.mark.parametrize("slash", [2, 50, 99, 100, 101, 155, 156])
@pytest.mark.parametrize("kind", [REGULAR, DIRECTORY, SYMLINK])
def test_names_of_every_length(golden: Golden, slash: int, kind: bytes) -> None:
    entries = [entry for length in LENGTHS for entry in entries_of(length, slash, kind)]
    assert list(map(header, entries)) == golden.headers(entries)


def entries_of(length: int, slash: int, kind: bytes) -> list[Entry]:
    name = b"/" + b"n" * (length - 1)
    if slash < length - 1:
        name = name[:slash] + b"/" + name[slash + 1 :]
    return [
        Entry(name, kind, 0o644, 0, 0),
        Entry(name, kind, 0o644, 0, 2**21),
        Entry(name, kind, 0o644, 0, 0, 0, b"/t" if kind == SYMLINK else b""),
        Entry(b"/" + "é".encode() + name, kind, 0o644, 0, 0),
        Entry(name + "/é".encode(), kind, 0o644, 0, 0),
        Entry(b"/l", SYMLINK, 0o777, 0, 0, 0, name),
        Entry(name, SYMLINK, 0o777, 0, 0, 0, name),
    ]


@pytest.mark.parametrize("digits", [7, 8, 86, 87, 88, 89, 985, 986, 987, 988, 9984, 9985, 9986])
def test_records_that_count_their_own_digits(golden: Golden, digits: int) -> None:
    entries = [Entry(b"/" + "é".encode() + b"n" * digits, REGULAR, 0o644, 0, 0)]
    assert list(map(header, entries)) == golden.headers(entries)


def test_the_root_is_a_name_too(golden: Golden) -> None:
    entries = [Entry(b"/", DIRECTORY, 0o755, 0, 0)]
    assert list(map(header, entries)) == golden.headers(entries)


def test_an_archive_of_nothing_is_its_end() -> None:
    empty = LayerTar.of("slice-1", ())
    assert (empty.size, empty.open().read(1 << 20)) == (1024, bytes(1024))
