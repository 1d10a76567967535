"""What made-up stores cost: numbers that fit together, for pages about any number of images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import PurePosixPath

from ..audit.history import Run
from ..audit.layers import LayerCost
from ..audit.shares import Share
from ..audit.usage import Cost, Rest, Usage
from ..oci.digest import Digest

_REGISTRIES = ("index.docker.io", "ghcr.io", "registry.example.com:5000", "localhost:5000")
_TEAMS = ("library", "platform", "payments", "data", "web")
_APPS = ("api", "worker", "frontend", "node", "postgres", "jupyter", "ingest", "gateway")


def names(count: int, seed: int = 0) -> list[PurePosixPath]:
    """Return the paths of `count` images, in repositories of a dozen."""
    chance = random.Random(seed)
    found: set[PurePosixPath] = set()
    while len(found) < count:
        where = f"{chance.choice(_TEAMS)}/{chance.choice(_APPS)}-{chance.randint(0, count // 200)}"
        registry = chance.choice(_REGISTRIES)
        for _ in range(min(12, count - len(found))):
            tag = f"{chance.randint(0, 9)}.{chance.randint(0, 30)}.{chance.randint(0, 99)}"
            found.add(PurePosixPath(registry, where, tag))
    return sorted(found)


def usage_of(paths: Sequence[PurePosixPath], seed: int = 0) -> Usage:
    """Return what these images may cost: some much, most little, as images do."""
    chance = random.Random(seed)
    costs: list[Cost] = []
    for path in paths:
        exclusive = int(chance.paretovariate(1.1) * 3_000_000)
        shared = int(chance.uniform(20_000_000, 300_000_000))
        amortised = exclusive + shared // chance.randint(2, 40)
        disk = exclusive + shared
        costs.append(Cost(path, 1, disk + 9000, disk, exclusive, amortised, exclusive, 0))
    on_disk = sum(cost.amortised for cost in costs)
    total = Cost(
        PurePosixPath(),
        len(costs),
        sum(cost.apparent for cost in costs),
        on_disk,
        on_disk,
        on_disk,
        on_disk,
        0,
    )
    shares = (Share(tuple(range(len(costs))), on_disk),) if costs else ()
    return Usage(
        layouts=tuple(costs),
        total=total,
        separate=sum(cost.on_disk for cost in costs),
        shares=shares,
        releases=(Share((), 45_000_000),),
        names=tuple(paths),
        unlinked=0,
        unreferenced=45_000_000,
        unreferenced_blobs=31,
        outside=2_000_000,
        rest=(Rest("index.sqlite", 1_600_000),),
        directories=12_000_000,
        leased=0,
    )


def layers_of(count: int, made_by: str) -> list[LayerCost]:
    """Return layers of all sizes, that up to six images share."""
    image = PurePosixPath("e.x", "a", "1")
    return [
        LayerCost(Digest("sha256", f"{n:064x}"), n * 12_345, n * 12_345, made_by, [image] * (n % 7))
        for n in range(count)
    ]


def runs_of(count: int, first: int = 1_700_000_000) -> list[Run]:
    """Return runs, a day after the other, of a store that grows."""
    return [
        Run(first + n * 86_400, n, n * 10**10, n * 10**9, n * 10**10, 0, n * 10**9, {})
        for n in range(count)
    ]
