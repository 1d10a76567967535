"""Compressed streams: gzip by ISA-L, which is twice as fast to inflate as zlib; bzip2 and xz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

from isal import igzip_lib, isal_zlib

from ..oci.errors import InvalidContent
from ..store.blobs import READ_SIZE
from .source import Stream

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAGICS = {"gzip": GZIP_MAGIC, "bzip2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": ZSTD_MAGIC}
LEVEL = 1  # of 0 to 3: 656 MB/s to 40 % of the size; 3 takes half as long again for 39 %
XZ_MEMORY = 128 << 20  # bytes a decoder may ask for; `xz -9` makes it ask for 65 MiB

_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # the stub takes it for an instance
_INPUT = 256 << 10  # bytes
_GZIP = 31  # window bits that mean a gzip header and trailer


def gzipped(stream: Stream) -> Iterator[bytes]:
    """Compress; the same bytes always give the same bytes.

    The header has no name and no time, and what a read returns does not matter:
    ISA-L's output depends on how its input is cut.
    """
    packer = _packer()
    while block := read_block(stream, READ_SIZE):
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()


def read_block(stream: Stream, size: int) -> bytes:
    """Return the next `size` bytes; fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def form_of(start: bytes) -> str:
    """Return how content that starts so is compressed, a key of `MAGICS`; empty if it is not."""
    return next((form for form, magic in MAGICS.items() if start.startswith(magic)), "")


def inflated(stream: Stream, what: str) -> Stream:
    """Return a stream that inflates another, which may be plain; it closes that one.

    Raises:
        InvalidContent: it is compressed in a way that Python cannot undo.
    """
    start = read_block(stream, max(map(len, MAGICS.values())))
    whole = Unread(start, stream)
    form = form_of(start)
    if form == "zstd":
        raise InvalidContent(f"{what} is compressed by zstd: inflate it first, with `zstd -dc`")
    return Inflated(whole, form) if form else whole


class Inflated:
    """What a stream of one or more compressed parts inflates to; it closes that stream."""

    def __init__(self, stream: Stream, form: str = "gzip") -> None:
        self._stream = stream
        self._form = form
        self._start = _DECODERS[form]
        self._input = b""
        self._decoder, self._error = self._start()
        self._between = True  # parts: nothing of the current one was read yet

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end.

        Raises:
            InvalidContent: the stream is damaged or ends early.
        """
        while True:
            if self._decoder.eof:
                self._input = self._decoder.unused_data
                self._decoder, self._error = self._start()
                self._between = True
            ended = False
            if not self._input and (self._between or self._decoder.needs_input):
                self._input = self._stream.read(_INPUT)
                ended = not self._input
            if self._between:
                self._input = self._input.lstrip(b"\0")  # some writers fill the last block
                if ended:
                    return b""
                if not self._input:
                    continue
                self._between = False
            data = self._inflate(size)
            if data:
                return data
            if ended and not self._decoder.eof:
                raise InvalidContent(f"a {self._form} stream ends early")

    def close(self) -> None:
        """Close the compressed stream."""
        self._stream.close()

    def _inflate(self, size: int) -> bytes:
        data, self._input = self._input, b""  # the decoder keeps what it does not need yet
        try:
            return self._decoder.decompress(data, size)
        except (self._error, EOFError) as error:
            raise InvalidContent(f"not a {self._form} stream: {error}") from error


class Unread:
    """A stream some of which was read before."""

    def __init__(self, start: bytes, stream: Stream) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        if not self._start:
            return self._stream.read(size)
        data, self._start = self._start[:size], self._start[size:]
        return data

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


def _gzip() -> tuple[_Decoder, type[Exception]]:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), _ISAL_ERROR


def _bzip2() -> tuple[_Decoder, type[Exception]]:
    import bz2  # few archives need it

    return bz2.BZ2Decompressor(), OSError


def _xz() -> tuple[_Decoder, type[Exception]]:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), lzma.LZMAError


_DECODERS: dict[str, Callable[[], tuple[_Decoder, type[Exception]]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
}


class _Packer(Protocol):  # which isal's stubs leave open
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _packer() -> _Packer:
    return isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _GZIP)  # pyright: ignore[reportUnknownMemberType]
