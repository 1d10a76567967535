"""Runs that were kept as JSON, and how one compares with another."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..oci.document import Object, flag, inner, inners, parse_object, string, strings
from ..oci.errors import InvalidContent
from .machine import OURS
from .report import SCHEMA, shown

MAX_RUN = 64 << 20  # bytes
MEASURED, QUICK = "measured", "quick"  # facts
HARDWARE = ("processor", "cores", "memory", "kernel", "file system")

Key = tuple[str, str, str]  # scenario, step and contestant
Range = tuple[float, float, float]  # the median, the least and the most


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody took in an older and in a newer run, in seconds or bytes."""

    key: Key
    unit: str
    old: Range
    new: Range

    @property
    def ratio(self) -> float:
        """How many times as good the newer one is."""
        return self.old[0] / self.new[0] if self.new[0] else 1.0

    @property
    def is_clear(self) -> bool:
        """Whether no sample of one run is as good as any of the other."""
        return self.old[1] > self.new[2] or self.new[1] > self.old[2]


@dataclass(frozen=True, slots=True)
class Run:
    """What a file tells of one run.

    Attributes:
        facts: what the numbers depend on besides the code, by what it is called.
    """

    facts: Mapping[str, str]
    values: Mapping[Key, tuple[str, Range]]

    def since(self, old: Run) -> list[Change]:
        """Return how everything changed that is in both runs, in the order of this one."""
        return [
            Change(key, unit, old.values[key][1], found)
            for key, (unit, found) in self.values.items()
            if key in old.values
        ]

    def unlike(self, old: Run) -> dict[str, tuple[str, str]]:
        """Return the facts that both have and that differ, with what they were and are."""
        return {
            name: (old.facts[name], fact)
            for name, fact in self.facts.items()
            if old.facts.get(name, fact) != fact
        }


def read_run(path: Path) -> Run:
    """Read what `document` of a report wrote.

    Raises:
        InvalidContent: the file is no such run.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_RUN + 1)
    what = str(path)
    document = parse_object(raw, what)
    if len(raw) > MAX_RUN or document.get("schemaVersion") != SCHEMA:
        raise InvalidContent(f"{what} is no run of a benchmark of version {SCHEMA}")
    return Run(dict(_facts(document, what)), dict(_values(document, what)))


def _facts(document: Object, what: str) -> Iterator[tuple[str, str]]:
    if "what" in document:
        yield MEASURED, string(document, "what", what)
    yield QUICK, str(flag(document, "quick", what)).lower()
    machine = inner(document, "machine", what)
    for name in HARDWARE:
        value = machine.get(name.replace(" ", "_"), "")
        fact = shown(value, "B") if name == "memory" and isinstance(value, int) else str(value)
        yield name, fact
    versions = strings(machine, "versions", what).items()
    yield from ((name, number) for name, number in versions if name != OURS)


def _values(document: Object, what: str) -> Iterator[tuple[Key, tuple[str, Range]]]:
    for result in inners(document, "results", what):
        unit = string(result, "unit", what)
        contestants = inner(result, "contestants", what)
        for name in contestants:
            samples = inners(inner(contestants, name, what), "samples", what)
            values = [
                _number(sample.get("seconds" if unit == "s" else "peak")) for sample in samples
            ]
            if values:
                key = string(result, "scenario", what), string(result, "step", what), name
                yield key, (unit, (statistics.median(values), min(values), max(values)))


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise InvalidContent(f"a sample of a benchmark has {value!r} for a number")
    return float(value)
