"""A run as one HTML file that needs nothing else: who took how long at what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from ..audit.parts import hash_source, part
from ..oci.version import version
from ..oci.wording import printable
from .measure import Ratio, Result
from .report import Report, shown, times
from .rows import Row, rows_of, ways_of
from .ways import ABOUT

_PARTS = {"in": "s1", "export": "s3", "out": "s4"}  # classes of colours
_WIDTHS = {"wide": 560.0, "narrow": 360.0}  # CSS pixels; the style sheet shows one of them
_BAR, _BARS = 16.0, 46.0  # height of a bar, and from one to the next
_OTHER = "sn"  # class of what has no parts
_GLANCE = (
    "What {ours} took, and how many times as long the others took in the same round: over 1, "
    "{ours} is faster. ~ says that it was over 1 in some rounds and under 1 in others, which tells "
    "nothing."
)
_ALL = (
    "Medians of the rounds, and how many times as much as {ours} in the same round, from the least "
    "to the most. Moved: bytes that programs and the daemon read and wrote, in files and through "
    "sockets; between two programs of Go these are counted on both sides, with one of {ours} only "
    "on the other. Written: bytes of it that are for a disk. Memory: the most that one process had "
    "at once. On disk: what lies in files after the first build. The daemon's memory and disk are "
    "left out."
)


def page(report: Report) -> str:
    """Return the page."""
    style = part("page.css") + _beside("page.css")
    rows, ways = rows_of(report.results), ways_of(report.results)
    return Template(_beside("page.html")).substitute(
        policy=f"default-src 'none'; style-src {hash_source(style)}; base-uri 'none'; "
        "form-action 'none'",
        version=escape(version()),
        what=_text(report.what),
        stamp=escape(report.started),
        when=escape(f"{report.started[:16].replace('T', ' ')} UTC"),
        style=style,
        rounds=f"{report.rounds} round{'' if report.rounds == 1 else 's'}",
        sections="\n".join(
            [_glance(rows, ways), *_charts(rows), _all(rows, ways), _ways(report), _machine(report)]
        ),
    )


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _glance(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Show how many times as long as ours the builds took."""
    wholes = [row for row in rows if not row.part]
    return _numbers("At a glance", _GLANCE, "numbers glance", wholes, ways, _compared)


def _all(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Show all that is known, with the ranges."""
    return _numbers("All numbers", _ALL, "numbers", rows, ways, _ranged)


def _charts(rows: Sequence[Row]) -> list[str]:
    """Draw the builds of each application, all to one scale."""
    keys = "".join(f'<span class="key"><i class="{c}"></i>{n}</span>' for n, c in _PARTS.items())
    legend = (
        f'<div class="legend">{keys}<span class="key"><i class="line"></i>'
        "from the least to the most</span></div>"
    )
    charts: list[str] = []
    for app in dict.fromkeys(row.app for row in rows):
        timed = [row for row in rows if row.app == app and row.result.unit == "s"]
        wholes = [row for row in timed if not row.part]
        longest = max(max(row.result.values(way)) for row in wholes for way in row.result.samples)
        drawn = "".join(
            _figure(row, [r for r in timed if r.part and r.step == row.step], longest or 1.0)
            for row in wholes
        )
        title = f"Builds of {app}" if app else "Builds"
        charts.append(_section(title, f'<div class="charts">{drawn}</div>{legend}'))
    return charts


def _figure(whole: Row, parts: Sequence[Row], longest: float) -> str:
    bars = "".join(
        _bars(whole, parts, kind, full, full / longest) for kind, full in _WIDTHS.items()
    )
    return f"<figure><figcaption>{_text(whole.step)}</figcaption>{bars}</figure>"


def _bars(whole: Row, parts: Sequence[Row], kind: str, full: float, scale: float) -> str:
    """Draw a bar for each way, of its parts one after the other; a second is `scale` wide."""
    result = whole.result
    drawn: list[str] = []
    top = 14.0
    for way in ways_of([result]):
        values = result.values(way)
        median, low, high = result.median(way), min(values), max(values)
        words = f"{shown(median, 's')} [{shown(low, 's')} to {shown(high, 's')}]"
        drawn.append(f'<text class="label" x="0" y="{top}">{escape(way)}</text>')
        drawn.append(f'<text x="{full}" y="{top}" text-anchor="end">{escape(words)}</text>')
        its = [row for row in parts if way in row.result.samples] or [whole]
        # medians of parts do not add up to that of the whole, which is what a bar shows
        share = median / (sum(row.result.median(way) for row in its) or 1.0)
        left = 0.0
        for row in its:
            seconds = row.result.median(way)
            width = scale * seconds * share
            told = escape(f"{row.part or row.step}: {shown(seconds, 's')}")
            drawn.append(
                f'<rect class="{_PARTS.get(row.part, _OTHER)}" x="{left:.1f}" y="{top + 6}" '
                f'width="{width:.1f}" height="{_BAR}"><title>{told}</title></rect>'
            )
            left += width
        below = top + _BAR + 10
        drawn.append(
            f'<path class="range" d="M{scale * low:.1f} {below - 2}v4m0 -2'
            f'H{scale * high:.1f}m0 -2v4"/>'
        )
        top += _BARS
    label = escape(f"{whole.build}, {', '.join(result.samples)}")
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {full:g} {top - 14:g}" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
    )


def _numbers(
    title: str,
    note: str,
    kind: str,
    rows: Iterable[Row],
    ways: Sequence[str],
    cell: Callable[[Ratio], str],
) -> str:
    """Show a row for each build or part of one and a column for each way."""
    head = "".join(f"<th>{_text(way)}</th>" for way in ways)
    body = "".join(_row(row, ways, cell) for row in rows)
    return _section(
        title,
        f'<p class="note">{_text(note.format(ours=ways[0]))}</p><div class="wide"><table '
        f'class="{kind}"><thead><tr><th class="text">Build</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    )


def _row(row: Row, ways: Sequence[str], cell: Callable[[Ratio], str]) -> str:
    kind, title = ("part", row.part) if row.part else ("whole", row.build)
    cells = "".join(
        f'<td data-label="{_text(way)}">{_cell(row.result, way, cell)}</td>' for way in ways
    )
    return f'<tr class="{kind}"><td class="text">{_text(title)}</td>{cells}</tr>'


def _cell(result: Result, way: str, cell: Callable[[Ratio], str]) -> str:
    if way not in result.samples:
        return ""
    median = f"<span>{shown(result.median(way), result.unit)}</span>"
    return median if way == result.ours else median + cell(result.ratio(way))


def _compared(ratio: Ratio) -> str:
    kind = "better" if ratio.median > 1 else "worse"
    return f'<b class="{kind if ratio.is_clear else "mixed"}">{times(ratio)}</b>'


def _ranged(ratio: Ratio) -> str:
    return f"<small>{times(ratio)} [{ratio.low:.2f} to {ratio.high:.2f}]</small>"


def _ways(report: Report) -> str:
    facts = [(name, about) for name, about in ABOUT.items() if name not in report.skipped]
    left = [(name, f"left out: {why}") for name, why in report.skipped.items()]
    return _facts("Ways", [*facts, *left])


def _machine(report: Report) -> str:
    machine = report.machine
    facts = [
        ("processor", machine.processor),
        ("cores", str(machine.cores)),
        ("memory", shown(machine.memory, "B")),
        ("kernel", machine.kernel),
        ("file system", machine.file_system),
        *machine.versions.items(),
    ]
    return _facts("Machine", facts)


def _facts(title: str, facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(fact)}</dd>" for name, fact in facts)
    return _section(title, f'<dl class="facts">{rows}</dl>')


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _text(text: str) -> str:
    return escape(printable(text))
