"""Ten million images behind a registry: what they take, what breaks first, and the busiest hour.

python -m benchmarks.simulation --images 10000000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import fields, replace

from . import caching
from .caching import Found, Policy
from .inputs import DAY, GB, MB, TB, Fleet, Measured, Prices, Tier
from .queueing import Operation, arrivals, at, mean_wait, serve
from .sizing import bill, content, copies, entries, limits, refilling, shared_out, verification

USES = 40_000
HOUR = 600.0  # seconds of the busiest hour that are simulated
OUTAGE = 60.0
_POLICIES: tuple[Policy, ...] = ("any node", "by application")
_DISKS: tuple[float, ...] = (50 * GB, 100 * GB, 200 * GB, 400 * GB)


def report(
    fleet: Fleet, measured: Measured, tier: Tier, prices: Prices, *, seed: int, uses: int = USES
) -> Iterator[str]:
    """Yield the lines of Markdown; the same arguments give the same.

    `uses` is how many builds and starts a simulated node has.
    """
    yield from _sizes(fleet, measured, tier)
    yield from _breaks(fleet, measured)
    source = random.Random(seed)
    found: dict[tuple[Policy, float], Found] = {
        (policy, disk): caching.simulate(fleet, policy, disk, source, uses)
        for policy in _POLICIES
        for disk in _DISKS
    }
    yield from _caches(fleet, found)
    chosen = min(found, key=lambda key: (key[0] != "by application", abs(key[1] - fleet.disk)))
    yield from _requests(fleet, measured, tier, found[chosen], source)
    reads = fleet.builds * (1 + fleet.starts) * found[chosen].blobs
    yield from _cost(fleet, tier, prices, reads)


def _sizes(fleet: Fleet, measured: Measured, tier: Tier) -> Iterator[str]:
    made = content(fleet)
    listing = (made.blobs * tier.objects) / tier.listed * tier.listing
    few, many = fleet.images / fleet.stacks / fleet.run_versions, fleet.images / fleet.stacks
    gc, memory = fleet.images * measured.collect, fleet.images * measured.collect_memory
    rows = {
        "images, applications": f"{fleet.images:,}, {fleet.applications:,}",
        "apart, each with a copy of all": f"{made.apart / TB:,.0f} TB",
        "each blob once": f"{made.size / TB:.1f} TB, {made.apart / made.size:.0f} times less",
        "of that, shared by applications": f"{made.shared / TB:.2f} TB",
        f"in {tier.shards} registries": f"{shared_out(fleet, tier.shards) / TB:.1f} TB",
        "blobs": f"{made.blobs:,}",
        "listing them in an object store": f"{listing / 3600:.1f} hours",
        "one store: inodes": f"{fleet.images * measured.inodes:,.0f}",
        "its small files and directories": f"{fleet.images * measured.metadata / GB:,.0f} GB",
        "its index.sqlite": f"{fleet.images * measured.index / GB:.1f} GB",
        "files of a run image's layer in it": f"{copies(few)} to {copies(many)}",
        "its `gc`": f"{gc / 60:.0f} minutes, {memory / GB:.0f} GB of memory",
        "its `verify`": f"{verification(made, measured) / 3600:.0f} hours",
        "names in one directory of ext4": f"{entries():,}",
    }
    yield "| what | how much |"
    yield "| --- | ---: |"
    for what, much in rows.items():
        yield f"| {what} | {much} |"
    yield ""


def _breaks(fleet: Fleet, measured: Measured) -> Iterator[str]:
    yield "| names | in one store | then |"
    yield "| ---: | --- | --- |"
    for limit in limits(fleet, measured):
        yield f"| {_round(limit.names):,} | {limit.what} | {limit.then} |"
    yield ""


def _caches(fleet: Fleet, found: dict[tuple[Policy, float], Found]) -> Iterator[str]:
    yield "| work goes to | a node's store | run image | dependencies | fetched | 99 of 100 |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for (policy, disk), each in found.items():
        yield (
            f"| {policy} | {disk / GB:.0f} GB | {each.run:.1%} | {each.dependencies:.1%} "
            f"| {each.fetched / MB:.1f} MB | {each.fetched_99 / MB:.0f} MB |"
        )
    yield ""


def _requests(
    fleet: Fleet, measured: Measured, tier: Tier, found: Found, source: random.Random
) -> Iterator[str]:
    """Simulate minutes of the busiest hour, well and with an outage, for some numbers of cores."""
    builds = fleet.builds * fleet.peak
    pulls = builds * (1 + fleet.starts)  # a build pulls, too
    extra = found.blobs - 3
    rate = builds * measured.push_requests + pulls * (measured.pull_requests + extra)
    yield (
        f"Busiest hour: {builds:.1f} builds and {pulls:.0f} pulls a second, {rate:,.0f} requests a "
        f"second, {pulls * found.fetched / GB:.2f} GB a second to the nodes, "
        f"{pulls * found.fetched / fleet.nodes / tier.link:.1%} of their networks."
    )
    yield (
        f"With the stores of all nodes empty: {pulls * measured.first_pull_requests:,.0f} requests "
        f"and {pulls * fleet.whole / GB:.1f} GB a second. With the registry empty: its "
        f"{tier.servers} cores take all images again in "
        f"{refilling(fleet, measured, tier) / 3600:.0f} hours."
    )
    yield ""

    def request() -> float:
        return source.expovariate(1 / measured.request)

    yield (
        "| cores | busy | mean wait | M/M/c | 99 of 100 | push, 99 of 100 "
        f"| after {OUTAGE:.0f} s without registry |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for servers in (1, 2, 4, tier.servers):
        if rate * measured.request >= servers:
            yield f"| {servers} | over 100 % | | | | | never recovers |"
            continue
        pushed, pulled = _work(measured, builds, pulls, extra, source)
        work = [*pushed, *pulled]
        well = serve(work, servers, request)
        ill = serve(work, servers, request, (HOUR / 3, HOUR / 3 + OUTAGE))
        theory = mean_wait(servers, rate, measured.request)
        pushes = well.taken[: len(pushed)]
        late = ill.recovered - HOUR / 3 - OUTAGE
        yield (
            f"| {servers} | {well.busy:.0%} | {_ms(sum(well.waits) / len(well.waits))} "
            f"| {_ms(theory)} | {_ms(at(well.waits, 0.99))} | {_ms(at(pushes, 0.99))} "
            f"| quiet again {late:.0f} s later |"
        )
    yield ""


def _work(
    measured: Measured, builds: float, pulls: float, extra: float, source: random.Random
) -> tuple[list[Operation], list[Operation]]:
    """Return pushes and pulls."""
    pushes = [Operation(at, measured.push_requests) for at in arrivals(source, builds, HOUR)]
    base, odd = divmod(extra, 1)
    pulled = [
        Operation(at, measured.pull_requests + int(base) + (source.random() < odd))
        for at in arrivals(source, pulls, HOUR)
    ]
    return pushes, pulled


def _cost(fleet: Fleet, tier: Tier, prices: Prices, reads: float) -> Iterator[str]:
    shared = bill(fleet, tier, prices, reads=reads, stored=shared_out(fleet, tier.shards))
    apart = bill(fleet, tier, prices, reads=reads, stored=content(fleet).apart)
    yield "| a month | dollars | each image its own copies |"
    yield "| --- | ---: | ---: |"
    for field in fields(shared):
        some, more = (float(getattr(each, field.name)) for each in (shared, apart))
        yield f"| {field.name} | {some:,.0f} | {more:,.0f} |"
    yield f"| all | {shared.total:,.0f} | {apart.total:,.0f} |"


def _round(number: float) -> int:
    """Return a number of two digits and zeros."""
    return int(float(f"{number:.1e}"))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


class _Options(argparse.Namespace):
    images: int
    applications: int
    nodes: int
    disk: float
    days: float
    shards: int
    cores: int
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.simulation", description=__doc__)
    fleet, tier = Fleet(), Tier()
    parser.add_argument("--images", type=int, default=fleet.images)
    parser.add_argument("--applications", type=int, default=fleet.applications)
    parser.add_argument("--nodes", type=int, default=fleet.nodes)
    parser.add_argument("--disk", type=float, default=fleet.disk / GB, help="GB a node's store has")
    parser.add_argument("--days", type=float, default=fleet.kept / DAY, help="that images are kept")
    parser.add_argument("--shards", type=int, default=tier.shards, help="registries")
    parser.add_argument("--cores", type=int, default=tier.servers, help="of all registries")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(namespace=_Options())
    fleet = replace(
        fleet,
        images=chosen.images,
        applications=chosen.applications,
        nodes=chosen.nodes,
        disk=chosen.disk * GB,
        kept=chosen.days * DAY,
    )
    tier = replace(tier, shards=chosen.shards, servers=chosen.cores)
    lines = report(fleet, Measured(), tier, Prices(), seed=chosen.seed)
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
