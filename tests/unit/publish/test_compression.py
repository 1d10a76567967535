import gzip
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent
from ocistow.publish.compression import Inflated, gzipped, read_block


class Pieces:
    """A stream that returns its content in given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size: int, /) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if piece[size:]:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def close(self) -> None:
        self._pieces = []


@given(st.lists(st.binary(max_size=3000)))
def test_the_bytes_are_the_same_however_they_are_read(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    packed = b"".join(gzipped(Pieces(*pieces)))
    assert packed == b"".join(gzipped(io.BytesIO(content)))
    assert gzip.decompress(packed) == content
    assert packed[4:8] == bytes(4)  # no time
    assert packed[3] == 0  # no name


def test_large_blocks_are_the_same_however_they_are_read() -> None:
    """Small inputs do not show how ISA-L depends on the cut."""
    content = random.Random(1).randbytes(3 << 19) + b"0123456789abcdef" * 60_000
    expected = b"".join(gzipped(io.BytesIO(content)))
    for size in (1000, 65_536, (1 << 20) - 1):
        pieces = (content[at : at + size] for at in range(0, len(content), size))
        assert b"".join(gzipped(Pieces(*pieces))) == expected


@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 900), st.integers(0, 20))
def test_all_members_are_inflated(contents: list[bytes], size: int, zeros: int) -> None:
    packed = b"".join(map(gzip.compress, contents)) + bytes(zeros)
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert read_block(Inflated(Pieces(*pieces)), 1 << 20) == b"".join(contents)


@given(st.binary(max_size=200), st.integers(1, 64))
def test_anything_is_inflated_or_refused(data: bytes, size: int) -> None:
    stream = Inflated(Pieces(gzip.compress(b"x" * 99), data))
    try:
        while stream.read(size):
            pass
    except InvalidContent:
        pass


@pytest.mark.parametrize("cut", [1, 5, 9, 30])
def test_an_early_end_is_refused(cut: int) -> None:
    packed = gzip.compress(bytes(range(256)) * 50)
    with pytest.raises(InvalidContent, match="ends early"):
        read_block(Inflated(io.BytesIO(packed[:-cut])), 1 << 20)


def test_skipping_may_reach_the_end() -> None:
    stream = Inflated(io.BytesIO(gzip.compress(b"abcdef")))
    stream.skip(4)
    assert stream.read(9) == b"ef"
    stream.skip(4)
    assert stream.read(9) == b""
