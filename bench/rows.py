"""What a run found out, in lines for reading: each build, and then what of it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .comparison import PUSH
from .measure import Result
from .ways import WAYS

IMAGE = "image"  # what the scenario is called where there is only one


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        app: which application was built; empty where there is only one.
        step: which build of it, such as `first build`.
        part: what of that; empty for the time of the whole.
    """

    app: str
    step: str
    part: str
    result: Result

    @property
    def build(self) -> str:
        """The build and whose it is."""
        return f"{self.app}, {self.step}" if self.app else self.step


def rows_of(results: Iterable[Result]) -> list[Row]:
    """Return the lines of all applications and builds, in their order."""
    rows = [_row(result) for result in results]
    apps = list(dict.fromkeys(row.app for row in rows))
    steps = [*dict.fromkeys(row.step for row in rows if row.step != PUSH), PUSH]
    return sorted(
        rows, key=lambda row: (apps.index(row.app), steps.index(row.step), bool(row.part))
    )


def ways_of(results: Iterable[Result]) -> list[str]:
    """Return who took part, ours first."""
    found = dict.fromkeys(way for result in results for way in result.samples)
    order = list(WAYS)
    return sorted(found, key=lambda way: order.index(way.partition(",")[0]))


def _row(result: Result) -> Row:
    app, _, counted = result.scenario.partition(", ")
    step, _, part = result.step.partition(": ")
    return Row("" if app == IMAGE else app, step, part or counted, result)
