"""The simulation agrees with what theory says where theory says something."""

import random
from collections.abc import Iterator

import pytest

from benchmarks.simulation.__main__ import report
from benchmarks.simulation.caching import Kept, hit_ratio, simulate
from benchmarks.simulation.inputs import GB, Fleet, Measured, Prices, Tier
from benchmarks.simulation.queueing import (
    Operation,
    Outcome,
    Zipf,
    arrivals,
    at,
    erlang_c,
    mean_wait,
    serve,
)
from benchmarks.simulation.sizing import content, copies, entries, limits, shared_out

SMALL = Fleet(
    images=40, applications=4, stacks=2, run_versions=2, dependency_versions=2, nodes=2, kept=400.0
)


def queue(servers: int, load: float, *, count: int = 30_000, seed: int = 1) -> Outcome:
    """Simulate M/M/c with a mean service of one second."""
    source = random.Random(seed)
    moments = arrivals(source, load, count / load)
    work = [Operation(moment, 1) for moment in moments]
    return serve(work, servers, lambda: source.expovariate(1))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_one_server_is_found_busy_as_often_as_it_is(load: float) -> None:
    assert erlang_c(1, load) == pytest.approx(load)
    assert mean_wait(1, load, 1) == pytest.approx(load / (1 - load))


def test_erlang_c_of_the_tables() -> None:
    assert erlang_c(2, 1) == pytest.approx(1 / 3)
    assert erlang_c(10, 8) == pytest.approx(0.409, abs=5e-4)


def test_a_queue_without_end_is_infinite() -> None:
    assert mean_wait(2, 2, 1) == float("inf")


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (1, 0.8), (2, 1.6), (8, 6.0)])
def test_waits_are_those_of_theory(servers: int, load: float) -> None:
    found = queue(servers, load)
    assert mean(list(found.waits)) == pytest.approx(mean_wait(servers, load, 1), rel=0.1)
    assert found.busy == pytest.approx(load / servers, rel=0.03)


def test_service_that_does_not_vary_halves_the_wait() -> None:
    """Pollaczek and Khinchine's formula, for M/D/1."""
    source = random.Random(1)
    work = [Operation(moment, 1) for moment in arrivals(source, 0.7, 40_000)]
    waits = list(serve(work, 1, lambda: 1.0).waits)
    assert mean(waits) == pytest.approx(mean_wait(1, 0.7, 1) / 2, rel=0.05)


def test_as_many_are_there_as_come_while_one_stays() -> None:
    """Little's law, with operations of several requests."""
    source = random.Random(1)
    length, rate = 10_000.0, 0.2
    work = [Operation(moment, 3, other=0.5) for moment in arrivals(source, rate, length)]
    taken = serve(work, 2, lambda: source.expovariate(1)).taken
    looks = [source.uniform(length / 10, length) for _ in range(500)]
    spans = [(op.at, op.at + each) for op, each in zip(work, taken, strict=True)]
    there = mean([sum(begin <= look < end for begin, end in spans) for look in looks])
    assert there == pytest.approx(rate * mean(list(taken)), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_an_outage_is_made_up_for_by_what_is_to_spare(load: float) -> None:
    source = random.Random(1)
    work = [Operation(moment, 1) for moment in arrivals(source, load, 20_000)]
    found = serve(work, 1, lambda: source.expovariate(1), (1000, 4000))
    assert found.recovered - 4000 == pytest.approx(3000 * load / (1 - load), rel=0.15)


def test_nothing_begins_during_an_outage() -> None:
    found = serve([Operation(1, 1), Operation(2, 1)], 2, lambda: 1.0, (0, 10))
    assert list(found.waits) == [9, 8]


@pytest.mark.parametrize("room", [10, 100, 400])
def test_what_was_used_last_is_found_as_often_as_che_says(room: int) -> None:
    source, names = random.Random(1), Zipf(1000, 0.9)
    kept = Kept(room)
    found = [kept.use(names.draw(source), 1.0) for _ in range(30_000)][10_000:]
    assert sum(found) / len(found) == pytest.approx(hit_ratio(names.shares(), room), abs=0.02)


def test_what_has_room_for_all_finds_all() -> None:
    assert hit_ratio([0.5, 0.5], 2) == 1.0


def test_the_shares_are_one_and_fall() -> None:
    shares = Zipf(50, 0.9).shares()
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    kept = Kept(2)
    found = [kept.use(name, 1.0) for name in "abacab"]
    assert found == [False, False, True, False, True, False]


def blobs(fleet: Fleet) -> Iterator[tuple[str, float]]:
    """Yield the blobs of every image, each as often as an image has it."""
    for image in range(fleet.images):
        application = image % fleet.applications
        stack, build = application % fleet.stacks, image // fleet.applications
        run = f"{stack}.{build % fleet.run_versions}"
        yield from ((f"run {run}.{layer}", fleet.run / 4) for layer in range(4))
        yield f"runtime {run}", fleet.runtime
        yield f"dependencies {application}.{build % fleet.dependency_versions}", fleet.dependencies
        constant = fleet.layers - 7
        for layer in range(constant):
            yield f"constant {application}.{layer}", fleet.constant / constant
        yield f"own {image}", fleet.own
        yield from ((f"{kind} {image}", fleet.documents / 2) for kind in ("manifest", "config"))


def test_a_fleet_is_what_its_images_are() -> None:
    made = content(SMALL)
    every = list(blobs(SMALL))
    assert made.blobs == len(dict(every))
    assert made.size == pytest.approx(sum(dict(every).values()))
    assert made.apart == pytest.approx(sum(size for _, size in every))


def test_each_registry_has_what_applications_share() -> None:
    made = content(SMALL)
    assert shared_out(SMALL, 1) == made.size
    assert shared_out(SMALL, 3) == pytest.approx(made.size + 2 * made.shared)


def test_a_blob_has_as_many_files_as_its_names_need() -> None:
    assert [copies(names) for names in (1, 65_000, 65_001, 650_000)] == [1, 1, 2, 10]


@pytest.mark.parametrize(
    ("block", "measured"), [(1024, 93_846), (2048, 699_951), (4096, 5_602_201)]
)
def test_a_directory_holds_about_as_many_names_as_one_of_ext4_took(
    block: int, measured: int
) -> None:
    assert entries(block) == pytest.approx(measured, rel=0.1)


def test_limits_come_in_their_order() -> None:
    names = [limit.names for limit in limits(Fleet(), Measured())]
    assert names == sorted(names)


def test_work_that_stays_near_finds_more() -> None:
    fleet, source = Fleet(applications=20_000), random.Random(1)
    anywhere = simulate(fleet, "any node", 20 * GB, source, uses=4000)
    near = simulate(fleet, "by application", 20 * GB, source, uses=4000)
    assert near.dependencies > anywhere.dependencies
    assert near.fetched < anywhere.fetched


def test_the_same_seed_says_the_same() -> None:
    def said(seed: int) -> list[str]:
        return list(report(SMALL, Measured(), Tier(), Prices(), seed=seed, uses=500))

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_the_share_that_is_at_most() -> None:
    assert at([3, 1, 2, 4], 0.5) == 3
