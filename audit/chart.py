"""Drawings of a page, as SVG that needs no script: lines over time, bars, a treemap.

Whatever they are given is text, and becomes text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape

from .history import Run
from .treemap import Node, Rectangle, drawn

Sizes = Callable[[int], str]  # how bytes are written

_WIDTHS = {"wide": 1000.0, "narrow": 360.0}  # CSS pixels; a style sheet shows one of them
_HEIGHT = 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 16.0, 28.0, 30.0  # around the lines
_TICKS = 4
_LAST = 253_402_300_799  # the last second that a date can name
_MAX_RUNS = 400  # more are less than two pixels apart
_BAR, _BARS = 20.0, 54.0  # height of a bar, and from one to the next
_MAP = (0.0, 0.0, 1000.0, 440.0)
_HEADER = 20.0  # of a name above what it holds
_LETTER = 7.6  # width of an average one, where nobody can measure


def growth(runs: Sequence[Run], size: Sizes) -> str:
    """Draw what a store took over time, and what it would have taken without sharing.

    Runs must be in the order of time, two at least; of very many, some are left out.
    """
    runs = _thinned(runs)
    return "".join(_growth(runs, size, kind, width) for kind, width in _WIDTHS.items())


def bars(rows: Sequence[tuple[str, int, str]], label: str) -> str:
    """Draw a bar for each name and number, with words about it; the largest has the whole width."""
    return "".join(_bars(rows, label, kind, width) for kind, width in _WIDTHS.items())


def treemap(top: Node, size: Sizes) -> str:
    """Draw the nodes of two levels; scripts draw the page's own in its place."""
    parts: list[str] = []
    for node, place in drawn(top, _MAP):
        parts += _box(node, place, size)
        left, upper, width, height = place
        if node.children and width > 40 and height > _HEADER + 20:
            inside = (left + 3, upper + _HEADER, width - 6, height - _HEADER - 4)
            for child, below in drawn(node, inside):
                parts += _box(child, below, size)
    return _svg("", _MAP[2:], "Who owns what", parts)


def moment(run: Run) -> datetime:
    """Return when a run was."""
    return datetime.fromtimestamp(min(run.time, _LAST), UTC)


def step(node: Node) -> str:
    """Return the class of a node's colour: how much of it is exclusive, in quarters."""
    if not node.images:
        return "sn"
    return f"s{int(4 * node.exclusive / (node.size or 1) + 0.5)}"


def title(node: Node) -> str:
    """Return what a node is called."""
    return node.name or f"and {node.smaller:,} smaller"


def _growth(runs: Sequence[Run], size: Sizes, kind: str, full: float) -> str:
    begin, end = runs[0].time, runs[-1].time
    most = _round_up(max(max(p.on_disk, p.separate) for p in runs))

    def x(run: Run) -> float:
        share = (run.time - begin) / (end - begin) if end > begin else 0.5
        return _LEFT + share * (full - _LEFT - _RIGHT)

    def y(value: int) -> float:
        return _TOP + (1 - value / most) * (_HEIGHT - _TOP - _BOTTOM)

    parts: list[str] = []
    for tick in range(_TICKS + 1):
        value = most * tick // _TICKS
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{full - _RIGHT}"'
            f' y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{escape(size(value))}</text>"
        )
    by_day = moment(runs[0]).date() != moment(runs[-1]).date()
    form = "%Y-%m-%d" if by_day else "%Y-%m-%d %H:%M UTC"
    for run, anchor in ((runs[0], "start"), (runs[-1], "end")):
        parts.append(
            f'<text x="{x(run):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">'
            f"{moment(run):{form}}</text>"
        )
    disk = " ".join(f"{x(run):.1f},{y(run.on_disk):.1f}" for run in runs)
    apart = " ".join(f"{x(run):.1f},{y(run.separate):.1f}" for run in runs)
    floor = f"{x(runs[-1]):.1f},{y(0):.1f} {x(runs[0]):.1f},{y(0):.1f}"
    parts.append(f'<polygon class="area" points="{disk} {floor}"/>')
    parts.append(f'<polyline class="apart" points="{apart}"/>')
    parts.append(f'<polyline class="disk" points="{disk}"/>')
    for run in runs:
        told = (
            f"{moment(run):%Y-%m-%d %H:%M} UTC: {size(run.on_disk)} on disk,"
            f" {size(run.separate)} without sharing"
        )
        parts.append(
            f'<circle cx="{x(run):.1f}" cy="{y(run.on_disk):.1f}" r="4">'
            f"<title>{escape(told)}</title></circle>"
        )
    parts.append(
        f'<line class="disk" x1="{_LEFT}" x2="{_LEFT + 24}" y1="10" y2="10"/>'
        f'<text class="key" x="{_LEFT + 32}" y="14">on disk</text>'
        f'<line class="apart" x1="{_LEFT + 110}" x2="{_LEFT + 134}" y1="10" y2="10"/>'
        f'<text x="{_LEFT + 142}" y="14">without sharing</text>'
    )
    label = f"From {size(runs[0].on_disk)} to {size(runs[-1].on_disk)} on disk"
    return _svg(f"chart {kind}", (full, _HEIGHT), label, parts)


def _bars(rows: Sequence[tuple[str, int, str]], label: str, kind: str, full: float) -> str:
    whole = max(1, max(number for _, number, _ in rows))
    parts: list[str] = []
    top = 14.0
    for name, number, words in rows:
        parts.append(f'<text class="label" x="0" y="{top}">{escape(name)}</text>')
        if kind == "narrow":
            top += 17
            parts.append(f'<text x="0" y="{top}">{escape(words)}</text>')
        else:
            parts.append(f'<text x="{full}" y="{top}" text-anchor="end">{escape(words)}</text>')
        for part, width in (("whole", full), ("bar", full * number / whole)):
            parts.append(
                f'<rect class="{part}" x="0" y="{top + 7}"'
                f' width="{width:.1f}" height="{_BAR}" rx="3"/>'
            )
        top += _BARS
    return _svg(f"chart {kind}", (full, top - 20), label, parts)


def _box(node: Node, place: Rectangle, size: Sizes) -> list[str]:
    left, top, width, height = place
    text = f"{title(node)} {size(node.size)}"
    parts = [
        f'<rect class="{step(node)}" x="{left:.1f}" y="{top:.1f}"'
        f' width="{width:.1f}" height="{height:.1f}" rx="2"><title>{escape(text)}</title></rect>'
    ]
    room = int((width - 10) / _LETTER)
    if height > 18 and room >= 3:
        cut = text if len(text) <= room else f"{text[: room - 1]}…"
        parts.append(f'<text x="{left + 5:.1f}" y="{top + 15:.1f}">{escape(cut)}</text>')
    return parts


def _svg(name: str, size: tuple[float, float], label: str, parts: Sequence[str]) -> str:
    width, height = size
    kind = f' class="{name}"' if name else ' preserveAspectRatio="none"'
    return (
        f'<svg{kind} viewBox="0 0 {width:g} {height:g}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _thinned(runs: Sequence[Run]) -> list[Run]:
    stride = -(-len(runs) // _MAX_RUNS)
    kept = list(runs[::stride])
    return kept if kept[-1] is runs[-1] else [*kept, runs[-1]]


def _round_up(value: int) -> int:
    """Return a number of one digit and zeros that is not below another; 4 at least."""
    power = int("1".ljust(len(str(value)), "0"))
    return max(_TICKS, -(-value // power) * power)
