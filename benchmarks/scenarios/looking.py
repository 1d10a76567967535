"""How long does it take to look at what is there, through the mount and on the disk below?"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ocistow.bench.measure import Contestant, Result, Steps, compare
from ocistow.bench.processes import Sample, clocked, timed
from ocistow.bench.servers import mounted
from ocistow.testing.population import populate

from .bench import Bench

LAYOUTS, QUICK = 2000, 50
BLOBS = 10  # in the pool, for each layout
STATS = 10  # for each layout
OPENED = 1000  # files, again and again

Look = Callable[[Path], Sample]


def run(bench: Bench) -> Iterator[Result]:
    layouts = QUICK if bench.quick else LAYOUTS
    store = bench.fresh("store")
    populate(store, names=layouts, blobs=BLOBS * layouts)
    blobs = _some_blobs(store / "layouts", STATS * layouts)
    looks: dict[str, Look] = {
        f"stat of {len(blobs):,} blobs": lambda root: clocked(partial(_stat, root, blobs)),
        f"ls -lR of {layouts:,} layouts": lambda root: timed("ls", "-lR", root),
        f"open and close {len(blobs):,} times": lambda root: clocked(partial(_open, root, blobs)),
    }
    for engine in bench.engines:
        for name, look in looks.items():
            contestants: dict[str, Contestant] = {
                "through the mount": partial(_mounted, store, engine, look),
                "on disk": partial(_twice, store / "layouts", look),
            }
            yield from compare(f"{name}, {engine}", contestants, bench.rounds)


def _mounted(store: Path, engine: str, look: Look) -> Steps:
    """Look through a mount of which the kernel knows nothing yet; of the disk it knows all."""
    with mounted(store, f"--engine={engine}") as mount:
        return _twice(mount.path, look)


def _twice(root: Path, look: Look) -> Steps:
    return {"first": look(root), "again": look(root)}


def _some_blobs(layouts: Path, count: int) -> Sequence[str]:
    """Return the names of blobs in layouts, relative to these."""
    below = (
        os.path.relpath(f"{directory}/{name}", layouts)
        for directory, _, names in os.walk(layouts)
        if directory.endswith("/sha256")
        for name in names
    )
    return list(itertools.islice(below, count))


def _stat(root: Path, names: Sequence[str]) -> None:
    for name in names:
        os.stat(f"{root}/{name}")


def _open(root: Path, names: Sequence[str]) -> None:
    for _ in range(0, len(names), OPENED):
        for name in names[:OPENED]:
            os.close(os.open(f"{root}/{name}", os.O_RDONLY))
