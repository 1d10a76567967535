"""Set the draft's measurements beside ours in docs/bench.md: `python scripts/draft.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bench.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- What follows is written by python scripts/draft.py -->\n"
END = "<!-- end -->\n"
DAEMON = "daemon"
# what is compared with, first; of the other ways, variants of these, docs/bench.md tells
WAYS = (DAEMON, "daemon, Go's lifecycle", "layout", "registry", "ocistow")


@dataclass(frozen=True, slots=True)
class Draft:
    """What the draft's author measured of one application, in seconds of export and copying.

    Source: buildpacks/rfcs, layout format, revisions be4c854 and d9cbdcf.

    Attributes:
        daemon: the export into the daemon.
        layout: run image to a layout by skopeo, export, application into the daemon by skopeo.
    """

    app: str
    step: str
    daemon: float
    layout: tuple[float, float, float]


DRAFT = (
    Draft("java", "first build", 4.29, (2.41, 4.76, 3.21)),
    Draft("java", "second build", 3.20, (3.47, 4.98, 3.02)),
    Draft("kotlin", "first build", 4.27, (2.39, 4.73, 3.38)),
    Draft("kotlin", "second build", 3.17, (3.47, 5.11, 3.22)),
    Draft("ruby", "first build", 1.15, (2.59, 1.31, 0.89)),
    Draft("ruby", "second build", 0.68, (2.44, 1.51, 1.13)),
)


class _Sample(TypedDict):
    seconds: float


class _Contestant(TypedDict):
    samples: list[_Sample]


class _Result(TypedDict):
    scenario: str
    step: str
    contestants: dict[str, _Contestant]


def latest() -> Path | None:
    """Return the last committed run of the ways."""
    return max(RESULTS.glob("*-ways.json"), default=None)


def table(run: Path | None) -> Iterator[str]:
    """Yield the lines; without a run only the draft's."""
    measured = _measured(run) if run else {}
    ways = [way for way in WAYS if any(way in found for found in measured.values())]
    titles = ["Export", "draft: daemon", "draft: layout, skopeo", *(f"here: {w}" for w in ways)]
    yield f"| {' | '.join(titles)} |"
    yield f"| --- |{' ---: |' * (len(titles) - 1)}"
    for draft in DRAFT:
        layout = sum(draft.layout)
        found = measured.get((draft.app, draft.step), {})
        cells = [
            f"{draft.app}, {draft.step}",
            f"{draft.daemon:.2f} s",
            f"{layout:.2f} s, {_more(layout / draft.daemon)}",
            *(
                _cell(found[way], found[DAEMON], is_base=way == DAEMON) if way in found else ""
                for way in ways
            ),
        ]
        yield f"| {' | '.join(cells)} |"


def written(text: str) -> str:
    """Return the page with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *table(latest()), "", END + after])


def _measured(run: Path) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return the seconds of each way in each round, by application and build."""
    results: list[_Result] = json.loads(run.read_text())["results"]
    wanted = {(draft.app, draft.step) for draft in DRAFT}
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results:
        key = result["scenario"].removeprefix("ways, "), result["step"]
        if key in wanted:
            found[key] = {
                way: [sample["seconds"] for sample in contestant["samples"]]
                for way, contestant in result["contestants"].items()
            }
    return found


def _cell(seconds: Sequence[float], daemon: Sequence[float], *, is_base: bool) -> str:
    shown = f"{statistics.median(seconds):.2f} s"
    if is_base:
        return shown
    ratios = [ours / theirs for ours, theirs in zip(seconds, daemon, strict=True)]
    return f"{shown}, {_more(statistics.median(ratios))}"


def _more(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.0f}\N{NO-BREAK SPACE}%"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
