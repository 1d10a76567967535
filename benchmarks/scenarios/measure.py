"""Contestants do the same work in turns; what counts is how they compare in the same round."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .processes import Sample

Steps = Mapping[str, Sample]
Contestant = Callable[[], Steps]
"""Does its work once and returns how each step of it went; what it needs first is not timed."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much the baseline took: over 1, we are better."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its answers; the first contestant is ours.

    Attributes:
        samples: of each contestant, one a round and in the same order.
        unit: "s" or "B": what of the samples is compared.
    """

    scenario: str
    step: str
    samples: Mapping[str, Sequence[Sample]]
    unit: str = "s"

    @property
    def ours(self) -> str:
        """The contestant that the others are compared with."""
        return next(iter(self.samples))

    def values(self, contestant: str) -> list[float]:
        """Return what was measured, in the order of the rounds."""
        samples = self.samples[contestant]
        return [s.seconds if self.unit == "s" else float(s.peak) for s in samples]

    def median(self, contestant: str) -> float:
        """Return the middle of what was measured."""
        return statistics.median(self.values(contestant))

    def ratio(self, baseline: str) -> Ratio:
        """Compare with a baseline, round by round."""
        pairs = zip(self.values(baseline), self.values(self.ours), strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def compare(
    scenario: str, contestants: Mapping[str, Contestant], rounds: int, *, unit: str = "s"
) -> list[Result]:
    """Let all contestants run in every round, each time another one first."""
    names = list(contestants)
    found: dict[str, dict[str, list[Sample]]] = {}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            os.sync()  # what one left to be written must not be the next one's work
            for step, sample in contestants[name]().items():
                found.setdefault(step, {n: [] for n in names})[name].append(sample)
    return [
        Result(scenario, step, {n: s for n, s in samples.items() if s}, unit)
        for step, samples in found.items()
    ]
