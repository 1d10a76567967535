"""Entry point: run scenarios, print a table, write one JSON document."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ocistow.bench.machine import this_machine
from ocistow.bench.measure import Result
from ocistow.bench.processes import warmth
from ocistow.bench.report import Report, document, table
from ocistow.bench.servers import Missing
from ocistow.fusefs.engines import choice

from . import (
    adding,
    collecting,
    curves,
    deduplicating,
    exporting,
    looking,
    memory,
    publishing,
    reading,
    scale,
    starting,
    ways,
    writing,
)
from .bench import Bench, say, temporary

SCENARIOS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "add": adding.run,
    "dedupe": deduplicating.run,
    "gc": collecting.run,
    "read": reading.run,
    "look": looking.run,
    "write": writing.run,
    "export": exporting.run,
    "ways": ways.run,
    "registry": publishing.to_registry,
    "daemon": publishing.to_daemon,
    "loop": publishing.through_daemon,
    "containerd": publishing.to_containerd,
    "memory": memory.run,
    "daemon-memory": memory.of_daemon,
    "commands": starting.run,
    "scale": scale.run,
    "curves": curves.run,
}
ROUNDS, QUICK_ROUNDS = 5, 1
QUICK_WARMTH = 32 << 20  # bytes; quick images are small


def main() -> None:
    options = _options()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.quick:
        warmth.set(QUICK_WARMTH)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    skipped: dict[str, str] = {}
    engines = options.engine or _engines()
    with temporary(options.directory) as name:
        bench = Bench(Path(name), rounds, options.quick, engines)
        machine = this_machine(bench.directory)
        for scenario in options.scenarios or SCENARIOS:
            try:
                for result in SCENARIOS[scenario](bench):
                    results.append(result)
                    say(f"{scenario}: {result.scenario}, {result.step}: measured")
            except Missing as missing:
                skipped[scenario] = str(missing)
                say(f"{scenario}: skipped, {missing}")
        if options.output:  # before all is removed, which takes minutes after 100,000 layouts
            report = Report(started, rounds, options.quick, machine, results, skipped)
            options.output.write_text(document(report) + "\n")
    sys.stdout.writelines(f"{line}\n" for line in table(results))


class _Options(argparse.Namespace):
    scenarios: list[str]
    rounds: int
    quick: bool
    engine: list[str] | None
    directory: Path | None
    output: Path | None


def _options() -> _Options:
    parser = argparse.ArgumentParser("python -m benchmarks.scenarios", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; without: all")
    parser.add_argument("--rounds", type=int, default=0, help=f"[default: {ROUNDS}]")
    parser.add_argument(
        "--quick", action="store_true", help="one round with small images, to see that it works"
    )
    parser.add_argument(
        "--engine",
        action="append",
        choices=choice.NAMES,
        help="of the mount; may be repeated  [default: all that work here]",
    )
    parser.add_argument("--directory", type=Path, help="where to work  [default: /var/tmp]")
    parser.add_argument("--output", type=Path, help="a file for the JSON document")
    options = parser.parse_args(namespace=_Options())
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def _engines() -> list[str]:
    """Return the engines that can mount something here: the kernel's wants root."""
    return [name for name in choice.NAMES if name == "pyfuse3" or os.geteuid() == 0]


if __name__ == "__main__":
    main()
