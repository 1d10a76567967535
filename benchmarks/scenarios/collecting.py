"""How long does a writer wait while garbage is collected?"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ocistow.bench.measure import Result, Steps, compare
from ocistow.bench.processes import ENVIRONMENT, OCISTOW, Sample
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.minimal import minimal_image

from .bench import HOST, Bench

GARBAGE, QUICK_GARBAGE = 20_000, 1000  # blobs
COMMITS = 200  # where nothing else ends it
BETWEEN = 0.01  # seconds between two commits: the lock goes to whoever looks first, not in turn
NAME = Reference.parse(f"{HOST}/app:1")
IMAGES = (minimal_image("a"), minimal_image("b", ["one", "three"]))


def run(bench: Bench) -> Iterator[Result]:
    """Compare a writer beside `gc` with the same writer alone; both sync what they write."""

    def beside() -> Steps:
        path = _store(bench)
        command = [*OCISTOW, "--store", str(path), "gc", "--grace", "0s"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT) as gc:
            steps = _write(path, lambda _: gc.poll() is None)
        if gc.returncode:
            raise RuntimeError(f"gc ended with {gc.returncode}")
        return steps

    def alone() -> Steps:
        return _write(_store(bench), lambda count: count < COMMITS)

    yield from compare("gc pauses", {"beside ocistow gc": beside, "alone": alone}, bench.rounds)


def _store(bench: Bench) -> Path:
    path = bench.fresh("store")
    with Store.create(path, QuickDisk()) as store:
        for image in IMAGES:
            image.add_to(store.blobs)
            store.put(NAME, image.root)
        for number in range(QUICK_GARBAGE if bench.quick else GARBAGE):
            store.blobs.add([f"garbage {number}".encode()])
    return path


def _write(path: Path, goes_on: Callable[[int], bool]) -> Steps:
    """Lease an image and commit it under a name, again and again."""
    commits: list[float] = []
    waits: list[float] = []
    with Store.open(path) as store:
        while goes_on(len(commits)) or len(commits) < 2:
            image = IMAGES[len(commits) % len(IMAGES)]
            start = time.perf_counter()
            with store.leases.keeping(image.blobs):
                with store.lock.held():
                    waits.append(time.perf_counter() - start)
                store.put(NAME, image.root)
                commits.append(time.perf_counter() - start)
            time.sleep(BETWEEN)
    return {
        **_spread("lease and lock", waits),
        **_spread("lease, lock and commit", commits),
    }


def _spread(what: str, seconds: list[float]) -> Steps:
    values = {
        "median": statistics.median(seconds),
        "99 of 100": statistics.quantiles(seconds, n=100, method="inclusive")[-1],
        "longest": max(seconds),
    }
    return {f"{what}, {name}": Sample(value, 0, 0) for name, value in values.items()}
