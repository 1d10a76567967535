"""Does a command on one image take longer in a store of many? And a store of any size to try.

python -m benchmarks.scenarios.scale DIR --names 100000 --blobs 300000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ocistow.bench.measure import Contestant, Result, Steps, compare
from ocistow.bench.processes import OCISTOW, timed
from ocistow.testing.population import Population, populate

from .bench import HOST, Bench, ocistow

MANY, QUICK, FEW = 100_000, 1000, 100  # names
BLOBS = 3  # for a name
SCENARIO = "a store of {:,} names"


def run(bench: Bench) -> Iterator[Result]:
    """Compare with a store of few names; what looks at everything, once, and its memory, too."""
    many = QUICK if bench.quick else MANY
    stores = {
        f"{names:,} names": _Populated(bench, names, number)
        for number, names in enumerate((many, FEW))
    }
    scenario = SCENARIO.format(many)
    commands: dict[str, Contestant] = {name: store.steps for name, store in stores.items()}
    yield from compare(scenario, commands, bench.rounds)
    wholes: dict[str, Contestant] = {name: store.whole for name, store in stores.items()}
    for result in compare(f"{scenario}, all of it", wholes, 1):
        yield result
        yield replace(result, scenario=f"{scenario}, peak memory", unit="B")


class _Populated:
    """A store with its images, one of which is worked with."""

    def __init__(self, bench: Bench, names: int, number: int) -> None:
        self._store = bench.fresh(f"store-{number}")
        self._layout = bench.fresh(f"layout-{number}")
        self._mountpoint = bench.empty(f"mountpoint-{number}")
        made = populate(self._store, names=names, blobs=BLOBS * names)
        self._name = one_of(made)
        ocistow(self._store, "publish", self._name, f"oci:{self._layout}")

    def steps(self) -> Steps:
        store, name, source = self._store, self._name, f"oci:{self._layout}"
        completion = {
            "_OCISTOW_COMPLETE": "bash_complete",
            "COMP_WORDS": f"ocistow --store {store} inspect {name[:-1]}",
            "COMP_CWORD": "4",
        }
        return {
            "inspect": ocistow(store, "inspect", name),
            "ls NAME": ocistow(store, "ls", name),
            "du NAME": ocistow(store, "du", name),
            "tag": ocistow(store, "tag", name, f"{HOST}/tagged:1"),
            "add, present": ocistow(store, "add", source, f"{HOST}/added:1"),
            "publish, unchanged": ocistow(store, "publish", name, source),
            "rm": ocistow(store, "rm", f"{HOST}/tagged:1", f"{HOST}/added:1"),
            "mount -- true": ocistow(store, "mount", self._mountpoint, "--", "true"),
            "completion": timed(*OCISTOW, environment=completion),
        }

    def whole(self) -> Steps:
        """Do what grows with the store; of several processes, the memory of the largest."""
        store = self._store
        return {
            "ls": ocistow(store, "ls"),
            "ls -q": ocistow(store, "ls", "-q"),
            "du": ocistow(store, "du"),
            "gc --dry-run": ocistow(store, "gc", "--dry-run"),
        }


def one_of(made: Population) -> str:
    """Return the name of an image that has a tag and all its layers."""
    return next(name for name in made.names if "@" not in name and name not in made.sparse)


class _Options(argparse.Namespace):
    directory: Path
    names: int
    blobs: int | None


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scenarios.scale", description=__doc__)
    parser.add_argument("directory", type=Path, help="the store; must be absent or empty")
    parser.add_argument("--names", type=int, default=MANY)
    parser.add_argument("--blobs", type=int, help=f"[default: {BLOBS} a name]")
    options = parser.parse_args(namespace=_Options())
    start = time.monotonic()
    blobs = options.blobs or BLOBS * options.names
    made = populate(options.directory, names=options.names, blobs=blobs)
    sys.stdout.write(
        f"{options.directory}: {len(made.names)} names, {len(made.sparse)} of them sparse, "
        f"{made.blobs} blobs, {made.garbage} of them garbage, "
        f"{time.monotonic() - start:.0f} s\n"
    )


if __name__ == "__main__":
    main()
