"""Lines over sizes, both on logarithmic scales, as an SVG that is readable dark and light.

Nothing is fetched and nothing runs: a picture in a page on any host of documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760.0, 330.0  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 186.0, 44.0, 44.0  # around its lines
_LETTERS = 14.0  # from one name to the next below it, at least
_STYLE = """
svg{--paper:#fff;--ink:#1a2029;--soft:#566070;--line:#dde2e9}
.paper{fill:var(--paper)}text{fill:var(--soft);font:12px system-ui,"DejaVu Sans",sans-serif}
.title{fill:var(--ink);font-size:15px;font-weight:600}.name{fill:var(--ink)}
.grid{stroke:var(--line)}.lead{stroke:var(--soft);stroke-width:.7;fill:none}
.l{fill:none;stroke-width:2}.c0{--c:#1d5fbf}.c1{--c:#b4430f}.c2{--c:#147a4b}.c3{--c:#8a2fb0}
.c4{--c:#96700a}.c5{--c:#0b7c86}.c6{--c:#c02663}.c7{--c:#5a6675}.c8{--c:#8b1a1a}.l{stroke:var(--c)}.d{fill:var(--c)}
@media(prefers-color-scheme:dark){svg{--paper:#0f1318;--ink:#e7ebf1;--soft:#9fabbb;--line:#2b3440}
.c0{--c:#84b4ff}.c1{--c:#ff9d6b}.c2{--c:#5fd39a}.c3{--c:#d59bf3}.c4{--c:#e8c35a}.c5{--c:#5fd0da}
.c6{--c:#ff8fb8}.c7{--c:#aab4c1}.c8{--c:#ff8080}}"""
_COLOURS = 9

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A name and its points, whose numbers are above 0, from left to right."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same sizes.

    Attributes:
        across: what the sizes are of.
        size, value: how numbers at the axes are written.
    """

    title: str
    across: str
    lines: Sequence[Line]
    size: Callable[[float], str]
    value: Callable[[float], str]


def drawing(panels: Sequence[Panel], label: str) -> str:
    """Return panels one below the other; `label` is what one hears who cannot see them."""
    height = HEIGHT * len(panels)
    parts = [part for at, panel in enumerate(panels) for part in _panel(panel, at * HEIGHT)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img"'
        f' aria-label="{escape(label)}"><style>{_STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH:g}" height="{height:g}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from at most `low` to at least `high`: 1, 10, 100, or 1, 2, 5, 10."""
    steps = (1,) if high / low > 50 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    numbers = [step * 10.0**decade for decade in decades for step in steps]
    first = max(number for number in numbers if number <= low * (1 + 1e-9))
    last = min(number for number in numbers if number >= high * (1 - 1e-9))
    return [number for number in numbers if first <= number <= max(last, first * 2)]


def _panel(panel: Panel, top: float) -> Iterator[str]:
    sizes = sorted({x for line in panel.lines for x, _ in line.points})
    values = [y for line in panel.lines for _, y in line.points]
    grid = ticks(min(values), max(values))
    right, bottom = WIDTH - _RIGHT, top + HEIGHT - _BOTTOM

    def x(size: float) -> float:
        return _LEFT + (right - _LEFT) * _share(size, sizes[0], sizes[-1])

    def y(value: float) -> float:
        return bottom - (bottom - top - _TOP) * _share(value, grid[0], grid[-1])

    yield f'<text class="title" x="{_LEFT:g}" y="{top + 24:g}">{escape(panel.title)}</text>'
    for value in grid:
        yield (
            f'<line class="grid" x1="{_LEFT:g}" x2="{right:g}" y1="{y(value):.1f}"'
            f' y2="{y(value):.1f}"/><text x="{_LEFT - 8:g}" y="{y(value) + 4:.1f}"'
            f' text-anchor="end">{escape(panel.value(value))}</text>'
        )
    for size in sizes:
        yield (
            f'<text x="{x(size):.1f}" y="{bottom + 17:g}" text-anchor="middle">'
            f"{escape(panel.size(size))}</text>"
        )
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle:g}" y="{bottom + 34:g}" text-anchor="middle">{panel.across}</text>'
    ends = [y(line.points[-1][1]) for line in panel.lines]
    for number, (line, end, name) in enumerate(
        zip(panel.lines, ends, _apart(ends, top + _TOP, bottom), strict=True)
    ):
        colour = f"c{number % _COLOURS}"
        way = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        yield f'<polyline class="l {colour}" points="{way}"/>'
        for at, value in line.points:
            told = f"{line.name}, {panel.size(at)}: {panel.value(value)}"
            yield (
                f'<circle class="d {colour}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="3.5">'
                f"<title>{escape(told)}</title></circle>"
            )
        last = x(line.points[-1][0]) + 6
        yield (
            f'<path class="lead" d="M{last:.1f} {end:.1f}L{right + 16:g} {name:.1f}"/>'
            f'<rect class="d {colour}" x="{right + 18:g}" y="{name - 5:.1f}" width="10"'
            f' height="10" rx="2"/><text class="name" x="{right + 33:g}" y="{name + 4:.1f}">'
            f"{escape(line.name)}</text>"
        )


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def _apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Move names up and down until none lies over another, in the order of their lines."""
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    placed = [0.0] * len(heights)
    floor = top
    for at in order:
        placed[at] = floor = max(heights[at], floor)
        floor += _LETTERS
    ceiling = bottom
    for at in reversed(order):
        placed[at] = ceiling = min(placed[at], ceiling)
        ceiling -= _LETTERS
    return placed
