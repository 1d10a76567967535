"""Results as one JSON document, and as a table for reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from .machine import Machine
from .measure import Ratio, Result

SCHEMA = 1
_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Attributes:
        started: ISO 8601.
        skipped: scenario -> what it lacked.
        what: was measured, if anybody chose it.
    """

    started: str
    rounds: int
    quick: bool
    machine: Machine
    results: Sequence[Result]
    skipped: Mapping[str, str]
    what: str = ""


def document(report: Report) -> str:
    """Return the run as JSON; `ratio` is baseline / ours, in the same round."""
    return json.dumps(
        {
            "schemaVersion": SCHEMA,
            "started": report.started,
            "rounds": report.rounds,
            "quick": report.quick,
            **({"what": report.what} if report.what else {}),
            "machine": asdict(report.machine),
            "skipped": dict(report.skipped),
            "results": [_result(result) for result in report.results],
        },
        indent=1,
    )


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines of a Markdown table, one a baseline."""
    yield "| scenario | step | ours | | baseline | | times as fast or small | goal |"
    yield "| --- | --- | --- | ---: | --- | ---: | ---: | --- |"
    for result in results:
        ours = f"{result.ours} | {shown(result.median(result.ours), result.unit)}"
        baselines = [name for name in result.samples if name != result.ours]
        for name in baselines:
            ratio = result.ratio(name)
            yield (
                f"| {result.scenario} | {result.step} | {ours} | {name} "
                f"| {shown(result.median(name), result.unit)} "
                f"| {ratio.median:.2f} [{ratio.low:.2f} to {ratio.high:.2f}] "
                f"| {_judged(result, name)} |"
            )
        if not baselines:
            yield f"| {result.scenario} | {result.step} | {ours} | | | | |"


def _judged(result: Result, baseline: str) -> str:
    goal = result.goal
    if goal is None or goal.baseline != baseline:
        return ""
    return f"{goal.ratio:.2f}, {'met' if result.is_met(goal) else '**missed**'}"


def _result(result: Result) -> dict[str, object]:
    return {
        "scenario": result.scenario,
        "step": result.step,
        "unit": result.unit,
        "ours": result.ours,
        **_goal(result),
        "contestants": {
            name: {
                "median": result.median(name),
                "samples": [asdict(sample) for sample in samples],
                **({} if name == result.ours else {"ratio": asdict(result.ratio(name))}),
            }
            for name, samples in result.samples.items()
        },
    }


def _goal(result: Result) -> dict[str, object]:
    if result.goal is None:
        return {}
    return {"goal": {**asdict(result.goal), "met": result.is_met(result.goal)}}


def shown(value: float, unit: str) -> str:
    """Return seconds (`s`) or bytes (`B`) for reading."""
    if unit == "B":
        if 0 < value < _MIB:
            return f"{value / _KIB:.0f} KiB"
        size = value / _MIB
        return f"{size:.0f} MiB" if size >= 10 or not size else f"{size:.1f} MiB"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def times(ratio: Ratio) -> str:
    """Return how many times as much for reading; `~` before it says that it tells nothing."""
    digits = 2 if ratio.median < 10 else 1 if ratio.median < 100 else 0
    return f"{'' if ratio.is_clear else '~'}{ratio.median:.{digits}f}"
