"""Frames of zstd: written, and read in steps whose output is bounded.

The library decodes whatever it is given at once, and a few bytes can stand for gigabytes. So it
is given one block after the other, of which none is more than 128 KiB when it is decoded.

Source: RFC 8878, "Zstandard Compression and the 'application/zstd' Media Type".
"""

from __future__ import annotations

import zstandard

ZstdError = zstandard.ZstdError

_WINDOW = 128 << 20  # bytes a decoder may ask for; `zstd --ultra -22` makes it ask for them
_IDS = (0, 1, 2, 4)  # bytes that a dictionary's number takes
_SIZES = (0, 2, 4, 8)  # bytes that the size of the content takes
_RLE = 1  # a type of block, whose size is not that of what stands there


def frame(data: bytes, level: int) -> bytes:
    """Return one frame, with a checksum; one thread makes it, so the bytes are always the same."""
    return zstandard.ZstdCompressor(level, write_checksum=True).compress(data)


class Decoder:
    """Reads one frame."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._input = b""
        self._output = b""
        self._begun = False
        self._ended = False
        self._checksum = False

    @property
    def eof(self) -> bool:
        """Whether all of the frame was returned."""
        return self._ended and not self._output

    @property
    def unused_data(self) -> bytes:
        """What comes after the frame, of what was given."""
        return self._input if self._ended else b""

    @property
    def needs_input(self) -> bool:
        """Whether nothing can be returned before more is given."""
        return not self._output and not self._ended

    def decompress(self, data: bytes, /, max_length: int) -> bytes:
        """Return at most `max_length` bytes; none if more must be given.

        Raises:
            ZstdError: it is no frame, or asks for too much memory.
        """
        self._input += data
        while not self._output and not self._ended and (unit := self._take()):
            self._output = self._frame.decompress(unit)
        data, self._output = self._output[:max_length], self._output[max_length:]
        return data

    def _take(self) -> bytes:
        """Return the header, or a block (the last with the checksum), once all of it is there."""
        if self._begun:
            header = int.from_bytes(self._input[:3], "little")
            last, kind, length = header & 1, header >> 1 & 3, header >> 3
            size = 3 + (1 if kind == _RLE else length) + 4 * (last and self._checksum)
        else:
            last, size = 0, _header_size(self._input)
        if len(self._input) < max(size, 5 - 2 * self._begun):
            return b""
        if not self._begun:
            self._checksum = bool(self._input[4] & 4)
            self._begun = True
        self._ended = bool(last)
        unit, self._input = self._input[:size], self._input[size:]
        return unit


def _header_size(start: bytes) -> int:
    """Return how long the header of a frame is, given its first five bytes."""
    if len(start) < 5:
        return 0
    what = start[4]
    single = what >> 5 & 1  # then it has no window, and always a size
    size = _SIZES[what >> 6] or single
    return 5 + (1 - single) + _IDS[what & 3] + size
