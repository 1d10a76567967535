"""How much distinct content there is, counted in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

LIMIT = 1 << 19  # contents kept; of more, a sample: at 130 bytes each that is 70 MB

_WORD = 8  # bytes of a hash that decide whether its content is in the sample
_SIZE = 7  # bytes of a key that say how large its content is

Owner = TypeVar("Owner", bound=Hashable)


class Distinct(Generic[Owner]):
    """The sum of the sizes of contents, each counted once. Not thread-safe.

    Up to `limit` contents it is exact. Beyond, contents are kept with a probability that is
    proportional to their size, and always if they have `threshold` bytes or more; the hash decides,
    so that equal contents are kept or left out together. The sum of what is kept, each with
    at least `threshold` bytes, then has the right sum as its mean, and a standard deviation below
    1/√(limit/2) of it: 0.2 %. Source: Duffield, Lund, Thorup, "Learn more, sample less", 2005.

    Attributes:
        threshold: bytes; 0 as long as everything is kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: dict[bytes, Owner] = {}
        self.threshold = 0

    def add(self, fingerprint: bytes, size: int, owner: Owner) -> None:
        """Count some content, unless it was counted before.

        Args:
            fingerprint: a hash of it, 16 bytes or more.
            size: in bytes, below 2^56.
            owner: who had it first, given back by `shares`.
        """
        if size == 0 or not self._is_sampled(fingerprint, size):
            return
        self._kept.setdefault(fingerprint + size.to_bytes(_SIZE), owner)
        while len(self._kept) > self._limit:
            self._raise_threshold()

    def forget(self, owner: Owner) -> None:
        """Leave out what one owner had first."""
        self._kept = {key: value for key, value in self._kept.items() if value is not owner}

    def shares(self) -> Iterator[tuple[Owner, int]]:
        """Yield each content's owner and the bytes to count for it."""
        for key, owner in self._kept.items():
            yield owner, max(_size(key), self.threshold)

    @property
    def deviation(self) -> float:
        """The standard deviation of the sum as a part of it, at most; 0.0 while it is exact."""
        total = sum(size for _, size in self.shares())
        return math.sqrt(self.threshold / total) if total else 0.0

    def _is_sampled(self, fingerprint: bytes, size: int) -> bool:
        if size >= self.threshold:
            return True
        return int.from_bytes(fingerprint[:_WORD]) * self.threshold < size << 8 * _WORD

    def _raise_threshold(self) -> None:
        """Double the threshold; the first is the size that half of the contents have at most."""
        sizes = sorted(map(_size, self._kept))
        self.threshold = max(2 * self.threshold, sizes[len(sizes) // 2], 1)
        self._kept = {
            key: owner
            for key, owner in self._kept.items()
            if self._is_sampled(key[:-_SIZE], _size(key))
        }


def _size(key: bytes) -> int:
    return int.from_bytes(key[-_SIZE:])
