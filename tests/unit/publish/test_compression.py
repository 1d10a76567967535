import bz2
import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.descriptor import DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_MANIFEST
from ocistow.oci.errors import InvalidContent
from ocistow.publish.compression import (
    GZIP,
    Compression,
    Inflated,
    inflated,
    layer_type,
    read_block,
)
from ocistow.publish.source import Stream


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


def checked(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


PACKERS = [gzip.compress, bz2.compress, lzma.compress, checked]
CHOICES = [
    Compression.parse(text) for text in ("gzip", "gzip:2", "gzip:6", "zstd", "zstd:9", "none")
]


def compressed(pieces: Stream, compression: Compression = GZIP) -> bytes:
    return b"".join(compression.compressed(pieces))


@pytest.mark.parametrize("compression", CHOICES, ids=str)
@given(pieces=st.lists(st.binary(max_size=3000)))
def test_the_bytes_are_the_same_however_they_are_read(
    pieces: list[bytes], compression: Compression
) -> None:
    content = b"".join(pieces)
    packed = compressed(Pieces(*pieces), compression)
    assert packed == compressed(io.BytesIO(content), compression)
    if compression.form:
        packed = read_block(Inflated(io.BytesIO(packed), compression.form), 1 << 20)
    assert packed == content


def test_gzip_tells_no_name_and_no_time() -> None:
    packed = compressed(io.BytesIO(b"content"))
    assert packed[4:8] == bytes(4)
    assert packed[3] == 0


@pytest.mark.parametrize("compression", CHOICES, ids=str)
def test_large_blocks_are_the_same_however_they_are_read(compression: Compression) -> None:
    """Small inputs do not show how ISA-L depends on the cut."""
    content = random.Random(1).randbytes(3 << 19) + b"0123456789abcdef" * 60_000
    expected = compressed(io.BytesIO(content), compression)
    for size in (1000, 65_536, (1 << 20) - 1):
        pieces = (content[at : at + size] for at in range(0, len(content), size))
        assert compressed(Pieces(*pieces), compression) == expected


@pytest.mark.parametrize(
    "text", ["", "gzip:", "gzip:0", "gzip:10", "gzip:x", "gzip:+1", "zstd:20", "none:1", "bzip2"]
)
def test_other_words_are_no_compression(text: str) -> None:
    with pytest.raises(InvalidContent, match=r"those are gzip\[:1-9\], zstd\[:1-19\], none"):
        Compression.parse(text)


def test_docker_manifests_have_their_own_types_and_no_zstd() -> None:
    assert layer_type(GZIP.media_type, OCI_MANIFEST) == GZIP.media_type
    assert layer_type(GZIP.media_type, DOCKER_MANIFEST) == DOCKER_LAYER_GZIP
    with pytest.raises(InvalidContent, match=r"tar\+zstd cannot be in a Docker manifest"):
        layer_type(Compression.parse("zstd").media_type, DOCKER_MANIFEST)


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


@pytest.mark.parametrize("pack", [*PACKERS, bytes])
def test_what_is_compressed_is_inflated(pack: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(100_000) + bytes(3 << 20)
    stream = inflated(io.BytesIO(pack(content) * 2))
    assert read_block(stream, 8 << 20) == content * 2


@pytest.mark.parametrize("pack", PACKERS)
def test_what_is_damaged_is_refused(pack: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(100_000)
    packed = bytearray(pack(content))
    for damaged in (packed[:-1], packed[:-40], packed[:5000], packed[:-6] + b"X" + packed[-5:]):
        with pytest.raises(InvalidContent):
            read_block(inflated(io.BytesIO(damaged)), 1 << 20)


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
)
def test_every_kind_of_zstd_frame_is_inflated(
    contents: list[bytes], checksum: bool, sized: bool, size: int
) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=sized)
    packed = b"".join(map(compressor.compress, contents))
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert read_block(Inflated(Pieces(*pieces), "zstd"), 1 << 20) == b"".join(contents)


@given(st.binary(max_size=200), st.integers(1, 64))
def test_any_zstd_is_inflated_or_refused(data: bytes, size: int) -> None:
    stream = Inflated(Pieces(checked(b"x" * 99)[:20], data), "zstd")
    with suppress(InvalidContent):
        while stream.read(size):
            pass


def test_little_zstd_that_is_much_takes_little_memory() -> None:
    packed = zstandard.ZstdCompressor(level=19).compressobj()
    bomb = b"".join(packed.compress(bytes(1 << 20)) for _ in range(256)) + packed.flush()
    assert len(bomb) < 40_000
    stream = inflated(io.BytesIO(bomb))
    tracemalloc.start()
    try:
        while stream.read(1 << 20):
            pass
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_that_asks_for_much_memory_is_refused() -> None:
    frame = bytes.fromhex("28b52ffd 00 88 090000 78")  # one byte, and a window of 128 MiB
    assert read_block(inflated(io.BytesIO(frame)), 9) == b"x"
    with pytest.raises(InvalidContent, match="too much memory"):
        read_block(inflated(io.BytesIO(frame.replace(b"\x88", b"\x90"))), 9)


def test_a_decoder_that_asks_for_much_memory_is_refused() -> None:
    huge = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 160 << 20}])
    with pytest.raises(InvalidContent, match=r"[Mm]emory"):
        read_block(inflated(io.BytesIO(huge)), 9)
