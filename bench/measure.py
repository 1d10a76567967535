"""Contestants do the same work in turns; what counts is how they compare in the same round."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

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

    @property
    def is_clear(self) -> bool:
        """Whether the same one was better in all rounds."""
        return not self.low < 1 < self.high


@dataclass(frozen=True, slots=True)
class Goal:
    """The least that the median of the ratios to a baseline is to be."""

    baseline: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its answers; the first contestant is ours.

    Attributes:
        samples: of each contestant, one a round and in the same order; what takes long may
            have been measured in the first rounds only.
        unit: "s" or "B": what of the samples is compared.
        goal: what was promised, if anything was.
    """

    scenario: str
    step: str
    samples: Mapping[str, Sequence[Sample]]
    unit: str = "s"
    goal: Goal | None = None

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
        """Compare with a baseline, round by round, in the first that both have."""
        pairs = zip(self.values(baseline), self.values(self.ours), strict=False)
        ratios = [theirs / ours for theirs, ours in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def is_met(self, goal: Goal) -> bool:
        """Tell whether we are as good as we are to be."""
        return self.ratio(goal.baseline).median >= goal.ratio


def compare(
    scenario: str,
    contestants: Mapping[str, Contestant],
    rounds: int,
    *,
    unit: str = "s",
    goals: Mapping[str, Goal] = MappingProxyType({}),
) -> list[Result]:
    """Let all contestants run in every round, each time another one first.

    `goals` are by step.
    """
    names = list(contestants)
    found: dict[str, dict[str, list[Sample]]] = {}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            os.sync()  # what one left to be written must not be the next one's work
            for step, sample in contestants[name]().items():
                found.setdefault(step, {n: [] for n in names})[name].append(sample)
    return [
        Result(scenario, step, {n: s for n, s in samples.items() if s}, unit, goals.get(step))
        for step, samples in found.items()
    ]
