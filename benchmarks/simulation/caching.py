"""What nodes find in their own stores, and what they must fetch.

Each node keeps what it used last, as `ocistow gc --evict` leaves it. Images of one application
come in turn, so that what changes is new once and is then pulled by several nodes.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from .inputs import Fleet
from .queueing import Zipf

Policy = Literal["any node", "by application"]
_SAMPLE = 2  # nodes; with many that are alike, a few say what all do


class Kept:
    """What was used last, up to so many bytes."""

    def __init__(self, size: float) -> None:
        self._size = size
        self._sizes: OrderedDict[Hashable, float] = OrderedDict()
        self._taken = 0.0

    def use(self, name: Hashable, size: float) -> bool:
        """Tell whether it was there; it is now, and what was not used for longest may be gone."""
        found = name in self._sizes
        if not found:
            self._sizes[name] = size
            self._taken += size
        self._sizes.move_to_end(name)
        while self._taken > self._size:
            _, gone = self._sizes.popitem(last=False)
            self._taken -= gone
        return found


def hit_ratio(shares: Sequence[float], room: int) -> float:
    """Return what of random uses is found among the `room` last used things: Che's approximation.

    `shares` are the probabilities of all things, which have the same size.
    """
    if room >= len(shares):
        return 1.0

    def present(time: float) -> float:
        return sum(-math.expm1(-share * time) for share in shares)

    low, high = 0.0, 1.0
    while present(high) < room:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if present(middle) < room else (low, middle)
    return sum(share * -math.expm1(-share * low) for share in shares)


@dataclass(frozen=True, slots=True)
class Found:
    """What a node's store had of what builds and starts needed.

    Attributes:
        run, dependencies: the share of uses of a run image (its JRE with it), and of an
            application's own dependencies, that were found.
        fetched: bytes fetched for a build or start, in the mean.
        blobs: fetched for a build or start, in the mean.
        fetched_99: bytes that 99 of 100 fetch at most.
    """

    run: float
    dependencies: float
    fetched: float
    blobs: float
    fetched_99: float


def simulate(fleet: Fleet, policy: Policy, disk: float, source: random.Random, uses: int) -> Found:
    """Let a few nodes build and start applications, and count in the second half of it.

    By application, an application's builds and starts go to `starts` nodes that its name gives;
    else to any node. A node gets the same share of all work in both.
    """
    near = max(1, round(fleet.starts))
    here = fleet.applications * near // fleet.nodes
    applications = Zipf(
        here if policy == "by application" else fleet.applications, fleet.popularity
    )
    stacks = Zipf(fleet.stacks, fleet.popularity)
    stack_of: dict[int, int] = {}
    found_run = found_dependencies = blobs = 0
    fetched: list[float] = []
    for _ in range(_SAMPLE):
        kept = Kept(disk)
        for number in range(uses):
            application = applications.draw(source)
            if (stack := stack_of.get(application)) is None:
                stack = stack_of[application] = stacks.draw(source)
            had_run = kept.use(("run", stack), fleet.run + fleet.runtime)
            had_dependencies = kept.use(application, fleet.dependencies + fleet.constant)
            kept.use((application, number), fleet.own + fleet.documents)  # new each time
            if 2 * number < uses:
                continue
            found_run += had_run
            found_dependencies += had_dependencies
            size, count = fleet.own + fleet.documents, 3
            if not had_run:
                size, count = size + fleet.run + fleet.runtime, count + 5
            if not had_dependencies:
                size, count = size + fleet.dependencies + fleet.constant, count + fleet.layers - 6
            fetched.append(size)
            blobs += count
    return Found(
        run=found_run / len(fetched),
        dependencies=found_dependencies / len(fetched),
        fetched=sum(fetched) / len(fetched),
        blobs=blobs / len(fetched),
        fetched_99=sorted(fetched)[int(0.99 * len(fetched))],
    )
