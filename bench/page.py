"""A run as one HTML file that needs nothing else: who took how long at what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from ..audit.parts import hash_source, part
from ..oci.version import version
from ..oci.wording import printable
from .measure import Ratio, Result
from .report import Report, compared, shown
from .ways import ABOUT, OURS

_PARTS = {"in": "s1", "export": "s3", "out": "s4"}  # classes of colours
_WIDTHS = {"wide": 1000.0, "narrow": 360.0}  # CSS pixels; the style sheet shows one of them
_BAR, _BARS = 20.0, 50.0  # height of a bar, and from one to the next


def page(report: Report) -> str:
    """Return the page."""
    style = part("page.css")
    return Template(Path(__file__).with_name("page.html").read_text("utf-8")).substitute(
        policy=f"default-src 'none'; style-src {hash_source(style)}; base-uri 'none'; "
        "form-action 'none'",
        version=escape(version()),
        what=escape(printable(report.what)),
        stamp=escape(report.started),
        style=style,
        rounds=report.rounds,
        cards=_cards(report.results),
        sections="\n".join(
            [*_charts(report.results), _all(report.results), _ways(report), _machine(report)]
        ),
    )


def _cards(results: Sequence[Result]) -> str:
    """Say how many times as fast ours is, at the first and the second build."""
    cards: list[tuple[str, str]] = []
    for result in results:
        if result.unit == "s" and result.step in ("first build", "second build"):
            for name in result.samples:
                if name != result.ours and result.ours == OURS:
                    ratio = result.ratio(name).median
                    text = f"times as fast as {name}, {result.step}, {result.scenario}"
                    cards.append((f"{ratio:.2f}", text))
    return "".join(f"<li><b>{escape(b)}</b><span>{escape(t)}</span></li>" for b, t in cards)


def _charts(results: Sequence[Result]) -> list[str]:
    found = {(result.scenario, result.step): result for result in results if result.unit == "s"}
    charts: list[str] = []
    for (scenario, step), result in found.items():
        parts = {
            name: found[scenario, f"{step}: {name}"]
            for name in _PARTS
            if (scenario, f"{step}: {name}") in found
        }
        if not parts:
            continue
        bars = "".join(_bars(result, parts, kind, full) for kind, full in _WIDTHS.items())
        keys = (f'<span class="key"><i class="{c}"></i>{n}</span>' for n, c in _PARTS.items())
        legend = "".join(keys)
        charts.append(_section(f"{scenario}: {step}", f'{bars}<div class="legend">{legend}</div>'))
    return charts


def _bars(result: Result, parts: Mapping[str, Result], kind: str, full: float) -> str:
    """Draw a bar for each contestant, of its steps one after the other."""
    sums = {
        name: {p: r.median(name) for p, r in parts.items() if name in r.samples}
        for name in result.samples
    }
    longest = max(sum(found.values()) for found in sums.values()) or 1.0
    drawn: list[str] = []
    top = 14.0
    for name, found in sums.items():
        values = result.values(name)
        words = f"{shown(result.median(name), 's')} [{min(values):.2f} to {max(values):.2f}]"
        drawn.append(f'<text class="label" x="0" y="{top}">{escape(name)}</text>')
        drawn.append(f'<text x="{full}" y="{top}" text-anchor="end">{escape(words)}</text>')
        left = 0.0
        for step, seconds in found.items():
            width = full * seconds / longest
            told = escape(f"{step}: {shown(seconds, 's')}")
            drawn.append(
                f'<rect class="{_PARTS[step]}" x="{left:.1f}" y="{top + 6}" width="{width:.1f}" '
                f'height="{_BAR}"><title>{told}</title></rect>'
            )
            left += width
        top += _BARS
    label = escape(f"{result.scenario}, {result.step}")
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {full:g} {top - 20:g}" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
    )


def _all(results: Sequence[Result]) -> str:
    """Show a row for each step and a column for each way, with how many times as much as ours."""
    ways = list(dict.fromkeys(name for result in results for name in result.samples))
    rows = [
        [f"{result.scenario}, {result.step}", *(compared(result, way, _times) for way in ways)]
        for result in results
    ]
    return _table("All numbers", ["What", *ways], rows)


def _times(ratio: Ratio) -> str:
    return f", {ratio.median:.2f} times [{ratio.low:.2f} to {ratio.high:.2f}]"


def _ways(report: Report) -> str:
    rows = [[name, about] for name, about in ABOUT.items() if name not in report.skipped]
    rows += [[name, f"left out: {why}"] for name, why in report.skipped.items()]
    return _table("Ways", ["Way", "What it is"], rows)


def _machine(report: Report) -> str:
    machine = report.machine
    rows = [
        ["processor", f"{machine.cores}, {machine.processor}"],
        ["memory", shown(machine.memory, "B")],
        ["kernel", machine.kernel],
        ["file system", machine.file_system],
        *([name, number] for name, number in machine.versions.items()),
    ]
    return _table("Machine", ["", ""], rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th class="text">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
    return _section(title, f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _cell(label: str, text: str) -> str:
    return f'<td class="text" data-label="{escape(label)}">{escape(printable(text))}</td>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"
