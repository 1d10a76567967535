"""Compress with ISA-L on several cores, and nothing else: compress.py THREADS FILE..."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ocistow.publish.compression import GZIP

PART = 8 << 20  # bytes; every core has some at all times


def main() -> None:
    with ThreadPoolExecutor(int(sys.argv[1])) as threads:
        for path in map(Path, sys.argv[2:]):
            parts = range(0, path.stat().st_size, PART)
            for _ in threads.map(compress, [path] * len(parts), parts):
                pass


def compress(path: Path, start: int) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        part = Part(file.read(PART))
    for _ in GZIP.compressed(part):
        pass


class Part:
    """A stream of some of a file."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def read(self, size: int, /) -> bytes:
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data

    def close(self) -> None:
        pass


if __name__ == "__main__":
    main()
