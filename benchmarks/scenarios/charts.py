"""Draw the curves of a result file, and say how each grows.

python -m benchmarks.scenarios.charts benchmarks/results/DATE-curves.json docs/scale.md

The page's table, which stands between two comments, is replaced, and the pictures beside it are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from .fit import Fit, Point, fit
from .plot import Line, Panel, drawing

CURVE = "curve, "
PICTURES = "curves"  # the directory beside a page
_BEGIN, _END = "<!-- curves -->", "<!-- end of curves -->"
_MIB = 1 << 20
_WAITED = ("writers at once",)  # axes where the time until the end counts, and not the work

Measure = Literal["seconds", "cpu", "peak"]
_TITLES: dict[Measure, str] = {
    "seconds": "Time until all have ended",
    "cpu": "Processor time",
    "peak": "Peak memory of one process",
}


class _Sample(TypedDict):
    seconds: float
    cpu: float
    peak: float


class _Contestant(TypedDict):
    samples: list[_Sample]


class _Result(TypedDict):
    scenario: str
    step: str
    contestants: dict[str, _Contestant]


class _Machine(TypedDict):
    cores: int


class _Document(TypedDict):
    machine: _Machine
    results: list[_Result]


@dataclass(frozen=True, slots=True)
class Curve:
    """What one command takes at each size of something.

    Attributes:
        at_once: how much of the size the machine's processors do in the time of 1.
    """

    axis: str
    step: str
    measure: Measure
    points: Sequence[Point]
    at_once: int = 1

    @property
    def fit(self) -> Fit:
        """How it grows, with what is done at once."""
        return fit([(max(1.0, x / self.at_once), y) for x, y in self.points])


def curves(text: str) -> Iterator[Curve]:
    """Yield the curves of a result file, two for each command: its time and its memory.

    The least of several samples counts: whatever else the machine does only adds to it.
    """
    document: _Document = json.loads(text)
    for result in document["results"]:
        axis = result["scenario"].removeprefix(CURVE)
        if axis == result["scenario"]:
            continue
        is_waited = axis in _WAITED
        at_once = document["machine"]["cores"] if is_waited else 1
        measures: tuple[Measure, ...] = ("seconds" if is_waited else "cpu", "peak")
        for measure in measures:
            points = sorted(
                (_size(name), min(sample[measure] for sample in contestant["samples"]))
                for name, contestant in result["contestants"].items()
            )
            yield Curve(axis, result["step"], measure, points, at_once)


def table(found: Iterable[Curve]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a command with its time and memory each."""
    yield "| by | command | smallest | largest | time grows | memory | grows |"
    yield "| --- | --- | ---: | ---: | --- | ---: | --- |"
    pairs = iter(found)
    for time, memory in zip(pairs, pairs, strict=True):
        first, last = time.points[0], time.points[-1]
        yield (
            f"| {time.axis}, {first[0]:,.0f} to {last[0]:,.0f} | `{time.step}` "
            f"| {_time(first[1])} | {_time(last[1])} | {_grows(time.fit)} "
            f"| {_memory(memory.points[-1][1])} | {_grows(memory.fit)} |"
        )


def with_table(page: str, found: Iterable[Curve]) -> str:
    """Return a page with this table in the place of its own."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    lines = "\n".join(table(found))
    return f"{before}{begin}\n{lines}\n{end}{after}"


def pictures(found: Iterable[Curve]) -> Iterator[tuple[str, str]]:
    """Yield a file name and an SVG for each axis, with time above memory."""
    by_axis: dict[str, dict[Measure, list[Curve]]] = {}
    for curve in found:
        by_axis.setdefault(curve.axis, {}).setdefault(curve.measure, []).append(curve)
    for axis, measures in by_axis.items():
        panels = [
            Panel(
                f"{_TITLES[measure]}, by {axis}",
                axis,
                [Line(curve.step, _drawn(curve)) for curve in group],
                lambda size: f"{size:,.0f}",
                (lambda value: f"{value:.3g} MiB") if measure == "peak" else _time,
            )
            for measure, group in measures.items()
        ]
        yield f"{axis.replace(' ', '-').lower()}.svg", drawing(panels, f"Time and memory by {axis}")


def _drawn(curve: Curve) -> Sequence[Point]:
    """Return the points in a unit whose round numbers are those of the axis."""
    unit = _MIB if curve.measure == "peak" else 1
    return [(x, y / unit) for x, y in curve.points]


def _size(contestant: str) -> float:
    return float(contestant.partition(" ")[0].replace(",", ""))


def _grows(curve: Fit) -> str:
    if not curve.exponent:
        return curve.shape
    return f"{curve.shape}, {curve.exponent:.2f} [{curve.low:.1f} to {curve.high:.1f}]"


def _time(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"


def _memory(size: float) -> str:
    return f"{size / _MIB:,.3g} MiB"


class _Options(argparse.Namespace):
    results: Path
    page: Path | None


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scenarios.charts", description=__doc__)
    parser.add_argument("results", type=Path, help="a result file of the scenario `curves`")
    parser.add_argument("page", type=Path, nargs="?", help="whose table and pictures these are")
    options = parser.parse_args(namespace=_Options())
    found = list(curves(options.results.read_text()))
    if options.page:
        directory = options.page.with_name(PICTURES)
        directory.mkdir(exist_ok=True)
        for name, picture in pictures(found):
            (directory / name).write_text(picture)
        options.page.write_text(with_table(options.page.read_text(), found))
    sys.stdout.writelines(f"{line}\n" for line in table(found))


if __name__ == "__main__":
    main()
