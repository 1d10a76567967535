"""Which layouts have the same bytes, and who bears how much of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that the same layouts have.

    Attributes:
        layouts: their places among all layouts in the order of their names, ascending.
        size: bytes on disk.
    """

    layouts: tuple[int, ...]
    size: int


class Owners:
    """A set of layouts: those of the set before, and one that was seen after all of these.

    Whoever adds the same layout to the same set must use the same object again, see `Joining`:
    then two sets are equal only if they are one, and a blob that 100,000 layouts have costs
    what one does.
    """

    __slots__ = ("before", "count", "last")

    def __init__(self, before: Owners | None, last: int) -> None:
        self.before = before
        self.last = last
        self.count: int = before.count + 1 if before is not None else 0

    def __iter__(self) -> Iterator[int]:
        """Yield the layouts, the last one first."""
        owners = self
        while owners.before is not None:
            yield owners.last
            owners = owners.before


NOBODY = Owners(None, -1)


class Joining:
    """Adds one layout to any number of sets."""

    def __init__(self, layout: int) -> None:
        self._layout = layout
        self._sets: dict[Owners, Owners] = {}

    def __call__(self, owners: Owners) -> Owners:
        """Return the set with the layout in it, which is the last that was seen."""
        if owners.last == self._layout:
            return owners
        joined = self._sets.get(owners)
        if joined is None:
            joined = self._sets[owners] = Owners(owners, self._layout)
        return joined


def expand(sizes: Mapping[Owners | frozenset[int], int], ranks: Sequence[int]) -> tuple[Share, ...]:
    """Return sets of layouts as places: `ranks` tells that of each."""
    return tuple(
        Share(tuple(sorted(ranks[layout] for layout in owners)), size)
        for owners, size in sizes.items()
        if size
    )


def amortise(shares: Iterable[Share]) -> Counter[int]:
    """Return what each layout bears when those that share something bear it alike.

    Not a byte is lost to rounding: the first ones by name bear what cannot be divided.
    """
    borne = Counter[int]()
    for share in shares:
        part, rest = divmod(share.size, len(share.layouts))
        for number, layout in enumerate(share.layouts):
            borne[layout] += part + (number < rest)
    return borne
