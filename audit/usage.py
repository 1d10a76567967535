"""What a store costs on disk: each image, all images, and everything beside them, to the byte.

What the numbers mean, and by which example, is in docs/du.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ..oci.errors import NotFound
from ..store.layout import LAYOUTS
from ..store.store import Store
from .census import Found, Watch, take
from .shares import Share, amortise, expand
from .visit import Tally


@dataclass(frozen=True, slots=True)
class Cost:
    """What one layout costs, or several together. All numbers are bytes, without directories.

    Attributes:
        name: the layout's path below `layouts/`; of several, that of the directory above them.
        images: how many layouts.
        apparent: sum of the sizes of all files: what reading them all gives. Layers that a
            sparse image lacks are no files.
        on_disk: what the files take on disk, each byte once.
        exclusive: the part of `on_disk` that no other layout of the store has.
        amortised: `exclusive`, and of each other byte the part that is left when all layouts
            that have it bear it alike. Those of all layouts add up to what they take together.
        reclaimable: what removing it, or all of them, and then `gc` frees beyond what `gc`
            alone does; with what the pool has of them only beside copies.
        other: what files take by themselves that belong to no image; in `on_disk`, too.
    """

    name: PurePosixPath
    images: int
    apparent: int
    on_disk: int
    exclusive: int
    amortised: int
    reclaimable: int
    other: int

    @property
    def shared(self) -> int:
        """The part of `on_disk` that other layouts have, too."""
        return self.on_disk - self.exclusive

    def below(self, layouts: Iterable[Cost]) -> Cost:
        """Return this total as the last line of these layouts.

        Its `exclusive` is what a single one of them has, so that its `shared` is also what they
        share with each other.
        """
        return replace(self, exclusive=sum(cost.exclusive for cost in layouts))


@dataclass(frozen=True, slots=True)
class Rest:
    """What the store keeps beside pool and layouts.

    Attributes:
        name: the entry of the store's directory, such as `index.sqlite` or `quarantine`.
        on_disk: bytes that it and all files below take, which nothing above has.
    """

    name: str
    on_disk: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the disk went. All numbers are bytes on disk, unless they say otherwise.

    Each byte is in exactly one of `total.on_disk`, `unlinked`, `unreferenced`, `outside`, `rest`
    and `directories` when all layouts were asked for; `everything` is their sum.

    Attributes:
        layouts: one entry a layout asked for, sorted by name.
        total: all of these together, as if they were one.
        separate: what they would take if none shared anything: the sum of their `on_disk`.
        shares: which layouts have which bytes, for all of the store; places in `names`.
        releases: which layouts must all be removed before `gc` frees which bytes, likewise;
            what nothing but `gc` is needed for has no layouts. Unlike in `shares`, blobs of the
            pool are here, too, and bytes that stay in any case are not.
        names: all layouts of the store, sorted.
        unlinked: what blobs of the pool take that images need but have no link to: their
            layouts have copies, since links were impossible, or lack them.
        unreferenced: what blobs of the pool take that no image has or needs.
        unreferenced_blobs: how many these are.
        outside: what files take that lie beside the layouts, in none.
        rest: what lies beside pool and layouts, sorted by name, each entry larger than nothing.
        directories: what the directories take.
        leased: what `gc` would free, were it not for leases.
        unreadable: directories below the store's that may not be read, sorted. What they have is
            in no number, but in no image's `reclaimable` either.
    """

    layouts: tuple[Cost, ...]
    total: Cost
    separate: int
    shares: tuple[Share, ...]
    releases: tuple[Share, ...]
    names: tuple[PurePosixPath, ...]
    unlinked: int
    unreferenced: int
    unreferenced_blobs: int
    outside: int
    rest: tuple[Rest, ...]
    directories: int
    leased: int
    unreadable: tuple[str, ...] = ()

    @property
    def factor(self) -> float:
        """How many times more disk the layouts would take without sharing; 1.0 for none."""
        return self.separate / self.total.on_disk if self.total.on_disk else 1.0

    @property
    def garbage(self) -> int:
        """What `gc` alone frees, once the grace is over."""
        return sum(share.size for share in self.releases if not share.layouts)

    @property
    def everything(self) -> int:
        """What the whole store takes."""
        kept = sum(rest.on_disk for rest in self.rest)
        images = sum(share.size for share in self.shares)
        return images + self.unlinked + self.unreferenced + self.outside + kept + self.directories


def usage(
    store: Store, names: Collection[PurePosixPath] | None = None, watch: Watch | None = None
) -> Usage:
    """Count what the named layouts cost, or all layouts for None.

    The whole store is read in either case; `alone` is for one image of many. Memory grows with
    the number of blobs and of names. Nothing is locked: images that come or go meanwhile may be
    counted or not.

    Raises:
        NotFound: a name has no layout.
    """
    found = take(store, watch)
    order = sorted(range(len(found.layouts)), key=lambda at: found.layouts[at].name.split("/"))
    every = tuple(PurePosixPath(found.layouts[at].name) for at in order)
    wanted = frozenset(every if names is None else names)
    if missing := sorted(wanted.difference(every)):
        raise NotFound(missing[0])
    return _usage(found, order, every, wanted)


def _usage(
    found: Found,
    order: Sequence[int],
    names: tuple[PurePosixPath, ...],
    wanted: Collection[PurePosixPath],
) -> Usage:
    ranks = [0] * len(order)
    for rank, at in enumerate(order):
        ranks[at] = rank
    totals = found.totals
    shares, releases = expand(totals.shares, ranks), expand(totals.releases, ranks)
    costs = _costs(names, [found.layouts[at] for at in order], shares, releases)
    asked = [at for at, name in enumerate(names) if name in wanted]
    layouts = tuple(costs[at] for at in asked)
    outside = totals.places.pop(LAYOUTS, 0)
    return Usage(
        layouts=layouts,
        total=_together(layouts, frozenset(asked), shares, releases),
        separate=sum(cost.on_disk for cost in layouts),
        shares=shares,
        releases=releases,
        names=names,
        unlinked=totals.unlinked,
        unreferenced=totals.unreferenced,
        unreferenced_blobs=totals.unreferenced_blobs,
        outside=outside,
        rest=tuple(Rest(name, size) for name, size in sorted(totals.places.items()) if size),
        directories=found.directories,
        leased=totals.leased,
        unreadable=tuple(sorted(found.unreadable)),
    )


def _costs(
    names: tuple[PurePosixPath, ...],
    tallies: list[Tally],
    shares: Iterable[Share],
    releases: Iterable[Share],
) -> list[Cost]:
    on_disk, exclusive, reclaimable = Counter[int](), Counter[int](), Counter[int]()
    for share in shares:
        for layout in share.layouts:
            on_disk[layout] += share.size
        if len(share.layouts) == 1:
            exclusive[share.layouts[0]] += share.size
    for share in releases:
        if len(share.layouts) == 1:
            reclaimable[share.layouts[0]] += share.size
    amortised = amortise(shares)
    return [
        Cost(
            name,
            1,
            tally.apparent,
            on_disk[at],
            exclusive[at],
            amortised[at],
            reclaimable[at],
            tally.other,
        )
        for at, (name, tally) in enumerate(zip(names, tallies, strict=True))
    ]


def _together(
    layouts: Collection[Cost],
    places: frozenset[int],
    shares: Iterable[Share],
    releases: Iterable[Share],
) -> Cost:
    """Return what these layouts cost as if they were one."""
    theirs = [share for share in shares if not places.isdisjoint(share.layouts)]
    return Cost(
        PurePosixPath(),
        len(layouts),
        sum(cost.apparent for cost in layouts),
        sum(share.size for share in theirs),
        sum(share.size for share in theirs if places.issuperset(share.layouts)),
        sum(cost.amortised for cost in layouts),
        sum(s.size for s in releases if s.layouts and places.issuperset(s.layouts)),
        sum(cost.other for cost in layouts),
    )
