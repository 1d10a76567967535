"""Queues: what theory says of them, and the same event by event."""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a request waits in M/M/c; `load` is arrivals x service < c."""
    term = total = 1.0
    for busy in range(1, servers):
        term *= load / busy
        total += term
    last = term * load / servers * servers / (servers - load)
    return last / (total + last)


def mean_wait(servers: int, rate: float, service: float) -> float:
    """Return the mean seconds in the queue of M/M/c; infinite if it cannot keep up."""
    load = rate * service
    if load >= servers:
        return math.inf
    return erlang_c(servers, load) * service / (servers - load)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a client does: requests one after the other, each when the one before is answered.

    Attributes:
        at: when it begins.
        requests: how many.
        other: seconds between two of them that nobody of the tier works for.
    """

    at: float
    requests: int
    other: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all operations.

    Attributes:
        waits: seconds in the queue, of each request in the order of their service.
        taken: seconds of each operation, in the order given.
        busy: the share of the servers' time that they worked, until the last end.
        recovered: when a request first came, after the outage, that had not to wait.
    """

    waits: Sequence[float]
    taken: Sequence[float]
    busy: float
    recovered: float


def serve(
    operations: Sequence[Operation],
    servers: int,
    service: Callable[[], float],
    outage: tuple[float, float] = (0.0, 0.0),
) -> Outcome:
    """Let servers work on requests in the order in which they come, event by event.

    During the outage no work begins; clients wait, as those do that try again.
    """
    events = [(op.at, number, op.requests) for number, op in enumerate(operations)]
    heapq.heapify(events)
    free = [0.0] * servers
    waits: list[float] = []
    taken = [0.0] * len(operations)
    worked = end = 0.0
    recovered = math.inf
    begin, over = outage
    while events:
        now, number, left = heapq.heappop(events)
        start = max(now, free[0])
        if begin <= start < over:
            start = over
        length = service()
        heapq.heapreplace(free, start + length)
        worked += length
        end = max(end, start + length)
        waits.append(start - now)
        if start == now >= over:
            recovered = min(recovered, now)
        operation = operations[number]
        if left > 1:
            heapq.heappush(events, (start + length + operation.other, number, left - 1))
        else:
            taken[number] = start + length - operation.at
    return Outcome(waits, taken, worked / (servers * end) if end else 0.0, recovered)


def arrivals(source: random.Random, rate: float, length: float) -> list[float]:
    """Return the moments of a Poisson process of so many seconds."""
    moments: list[float] = []
    now = source.expovariate(rate)
    while now < length:
        moments.append(now)
        now += source.expovariate(rate)
    return moments


def at(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all is at most."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Zipf:
    """Numbers from 0 to below `count`, the first the most often."""

    def __init__(self, count: int, exponent: float) -> None:
        self._sums = list(accumulate((rank + 1) ** -exponent for rank in range(count)))

    def draw(self, source: random.Random) -> int:
        """Return one."""
        return bisect_left(self._sums, source.random() * self._sums[-1])

    def shares(self) -> list[float]:
        """Return the probability of each."""
        whole, before = self._sums[-1], 0.0
        found: list[float] = []
        for total in self._sums:
            found.append((total - before) / whole)
            before = total
        return found
