import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent
from ocistow.publish.compression import Inflated, gzipped, inflated, read_block


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


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_what_is_compressed_is_inflated(pack: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(100_000) + bytes(3 << 20)
    stream = inflated(io.BytesIO(pack(content) * 2), "it")
    assert read_block(stream, 8 << 20) == content * 2


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_damaged_is_refused(pack: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(100_000)
    packed = bytearray(pack(content))
    for damaged in (packed[:-1], packed[:-40], packed[:5000], packed[:-6] + b"X" + packed[-5:]):
        with pytest.raises(InvalidContent):
            read_block(inflated(io.BytesIO(damaged), "it"), 1 << 20)


def test_zstd_is_refused_with_advice() -> None:
    with pytest.raises(InvalidContent, match=r"it is compressed by zstd: .*zstd -dc"):
        inflated(io.BytesIO(b"\x28\xb5\x2f\xfd..."), "it")


def test_a_decoder_that_asks_for_much_memory_is_refused() -> None:
    huge = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 160 << 20}])
    with pytest.raises(InvalidContent, match=r"[Mm]emory"):
        read_block(inflated(io.BytesIO(huge), "it"), 9)
