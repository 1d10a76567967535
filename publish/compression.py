"""Compressed streams: gzip by ISA-L, twice as fast to inflate as zlib; zstd; bzip2 and xz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from isal import igzip_lib

from ..oci.descriptor import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
)
from ..oci.errors import InvalidContent
from .source import Stream

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAGICS = {"gzip": GZIP_MAGIC, "bzip2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": ZSTD_MAGIC}
LEVELS = {"gzip": range(1, 10), "zstd": range(1, 20)}
DEFAULT_LEVELS = {"gzip": 1, "zstd": 3}
PART = 2 << 20  # bytes; of 1 MiB, zstd would make 2 % more
XZ_MEMORY = 128 << 20  # bytes a decoder may ask for; `xz -9` makes it ask for 65 MiB

LAYERS = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
_IN_DOCKER = {
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
    DOCKER_LAYER: DOCKER_LAYER,
    DOCKER_LAYER_GZIP: DOCKER_LAYER_GZIP,
}

_FAST = 3  # levels up to this are ISA-L's: 1 takes a tenth of zlib's time for the same size
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # the stub takes it for an instance
_INPUT = 256 << 10  # bytes
_GZIP = 31  # window bits that mean a gzip header and trailer


@dataclass(frozen=True, slots=True)
class Compression:
    """How layers are compressed.

    Attributes:
        form: a key of `MAGICS` that layers may have, or empty: they stay plain.
        level: what takes longer is larger.
    """

    form: str
    level: int = 0

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Read `gzip`, `gzip:LEVEL`, `zstd`, `zstd:LEVEL` or `none`.

        Raises:
            InvalidContent: `text` is none of them.
        """
        form, colon, level = text.partition(":")
        if text == "none":
            return cls("")
        if form in LEVELS and not colon:
            return cls(form, DEFAULT_LEVELS[form])
        if form in LEVELS and level.isdecimal() and int(level[:9]) in LEVELS[form]:
            return cls(form, int(level))
        choices = ", ".join(f"{form}[:1-{levels[-1]}]" for form, levels in LEVELS.items())
        raise InvalidContent(f"{text[:100]!r} is no compression: those are {choices}, none")

    @property
    def media_type(self) -> str:
        """Of a layer in an OCI manifest."""
        return LAYERS[self.form]

    def compressed(self, stream: Stream) -> Iterator[bytes]:
        """Compress; the same bytes always give the same bytes, however they are read."""
        return map(self.part, parts(stream))

    def part(self, data: bytes) -> bytes:
        """Compress one of a stream's `parts`; those of all, one after the other, are the whole.

        Each is a gzip member or zstd frame of its own, of which a stream may have many (RFC 1952,
        2.2; RFC 8878, 3.1): threads can do several at once. That adds 0.1 % to a JRE. Nothing
        tells names or times.
        """
        if self.form == "zstd":
            from .zstd import frame

            return frame(data, self.level)
        if self.form == "gzip" and self.level > _FAST:
            import zlib

            return zlib.compress(data, self.level, _GZIP)
        if self.form == "gzip":
            # which has no types
            return igzip_lib.compress(data, self.level, igzip_lib.COMP_GZIP)  # pyright: ignore[reportUnknownMemberType]
        return data


GZIP = Compression("gzip", DEFAULT_LEVELS["gzip"])


def layer_type(media_type: str, manifest: str) -> str:
    """Return what a layer of an OCI media type is called in a manifest of another type.

    Raises:
        InvalidContent: there is no such thing.
    """
    if manifest != DOCKER_MANIFEST:
        return media_type
    if media_type not in _IN_DOCKER:
        raise InvalidContent(f"a layer of type {media_type} cannot be in a Docker manifest")
    return _IN_DOCKER[media_type]


def parts(stream: Stream) -> Iterator[bytes]:
    """Cut a stream where compression begins anew: into `PART` bytes each, and at least once."""
    data = read_block(stream, PART)
    yield data
    while len(data) == PART and (data := read_block(stream, PART)):
        yield data


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


def inflated(stream: Stream) -> Stream:
    """Return a stream that inflates another, which may be plain; it closes that one."""
    start = read_block(stream, max(map(len, MAGICS.values())))
    whole = Unread(start, stream)
    form = form_of(start)
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


def _zstd() -> tuple[_Decoder, type[Exception]]:
    from .zstd import Decoder, ZstdError

    return Decoder(), ZstdError


_DECODERS: dict[str, Callable[[], tuple[_Decoder, type[Exception]]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstd": _zstd,
}
