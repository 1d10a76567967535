"""Runs that were kept as JSON, and how one compares with another."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from ..oci.document import inner, inners, parse_object, string
from ..oci.errors import InvalidContent
from .report import SCHEMA

MAX_RUN = 64 << 20  # bytes

Key = tuple[str, str, str]  # scenario, step and contestant


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody took in an older and in a newer run, in seconds or bytes.

    Attributes:
        old: the median, the least and the most.
        new: the same of the newer run.
    """

    key: Key
    unit: str
    old: tuple[float, float, float]
    new: tuple[float, float, float]

    @property
    def ratio(self) -> float:
        """How many times as good the newer one is."""
        return self.old[0] / self.new[0] if self.new[0] else 1.0

    @property
    def is_clear(self) -> bool:
        """Whether no sample of one run is as good as any of the other."""
        return self.old[1] > self.new[2] or self.new[1] > self.old[2]


def changes(old: Path, new: Path) -> list[Change]:
    """Return how everything changed that is in both runs, in the order of the newer one.

    Raises:
        InvalidContent: a file is no such run.
    """
    before = _read(old)
    return [
        Change(key, unit, before[key][1], found)
        for key, (unit, found) in _read(new).items()
        if key in before
    ]


def _read(path: Path) -> dict[Key, tuple[str, tuple[float, float, float]]]:
    with path.open("rb") as file:
        raw = file.read(MAX_RUN + 1)
    what = str(path)
    document = parse_object(raw, what)
    if len(raw) > MAX_RUN or document.get("schemaVersion") != SCHEMA:
        raise InvalidContent(f"{what} is no run of a benchmark of version {SCHEMA}")
    found: dict[Key, tuple[str, tuple[float, float, float]]] = {}
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
                found[key] = unit, (statistics.median(values), min(values), max(values))
    return found


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise InvalidContent(f"a sample of a benchmark has {value!r} for a number")
    return float(value)
