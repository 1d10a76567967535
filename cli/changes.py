"""How two runs of a benchmark compare, for reading and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..bench.report import shown
from ..bench.runs import HARDWARE, MEASURED, QUICK, Change, read_run
from ..oci.errors import InvalidContent
from ..oci.wording import printable
from .output import document, line, table


def print_changes(old: Path, new: Path, *, as_json: bool) -> None:
    """Print what is in both runs, and on stderr what else differs than the code.

    Raises:
        InvalidContent: a file is no such run, or they have nothing in common.
    """
    before, after = read_run(old), read_run(new)
    found, unlike = after.since(before), after.unlike(before)
    if not found:
        raise InvalidContent(f"{old} and {new} have no scenario in common")
    if as_json:
        _print_document(found, unlike)
        return
    if unlike:
        line(f"warning: these runs {_difference(unlike)}; RATIO compares that, too:", aside=True)
        for name, (was, now) in unlike.items():
            line(printable(f"  {name}: {was}; now {now}"), aside=True)
    rows = [
        [
            *change.key,
            shown(change.old[0], change.unit),
            shown(change.new[0], change.unit),
            f"{change.ratio:.2f}",
            "" if change.is_clear else "within its range",
        ]
        for change in found
    ]
    table(("SCENARIO", "STEP", "WAY", "OLD", "NEW", "RATIO", ""), rows, right=(3, 4, 5))


def _difference(unlike: Mapping[str, object]) -> str:
    if not unlike.keys().isdisjoint(HARDWARE):
        return "are of different machines"
    if not unlike.keys().isdisjoint((MEASURED, QUICK)):
        return "measured different images"
    return "used different programs"


def _print_document(changes: Iterable[Change], unlike: Mapping[str, tuple[str, str]]) -> None:
    members = [
        {
            **dict(zip(("scenario", "step", "way"), change.key, strict=True)),
            "unit": change.unit,
            "old": change.old[0],
            "new": change.new[0],
            "ratio": change.ratio,
            "clear": change.is_clear,
        }
        for change in changes
    ]
    differences = [{"what": name, "old": was, "new": now} for name, (was, now) in unlike.items()]
    document({"differences": differences, "changes": members})
