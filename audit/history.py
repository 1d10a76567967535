"""What a store cost when somebody looked: runs that `du --record` keeps, and forgets sparsely.

`usage.jsonl` in the store has one JSON object a line, the oldest first. It is no cache: what
was recorded cannot be measured again. It is replaced as a whole, its bytes synced before and its
directory after that, so that power loss leaves the old runs or the new ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..oci.document import Object, inner, parse_object
from ..oci.errors import InvalidContent
from ..oci.reference import Reference
from ..store.disk import Disk
from ..store.reading import open_directory, open_file
from ..store.store import Store
from .usage import Usage

FILE = "usage.jsonl"
ALL = 100  # runs that are kept, the newest ones; of those before, one a day
DAYS = 400  # days of which one run is kept; of those before, one of thirty days
OLDEST = 120  # runs from before that
REPOSITORIES = 100  # of a run, those that take most

_DAY = 86_400  # seconds
_MAX_FILE = 32 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Run:
    """What a store cost at a time. Bytes on disk, unless it says otherwise.

    Attributes:
        time: seconds since the epoch.
        images: how many layouts.
        apparent: bytes of content of all their files.
        on_disk: of all layouts together.
        separate: of all layouts, if none shared anything.
        unreferenced: of blobs of the pool that no layout has.
        everything: of the whole store.
        repositories: what the largest ones bear (`Cost.amortised`), by name.
    """

    time: int
    images: int
    apparent: int
    on_disk: int
    separate: int
    unreferenced: int
    everything: int
    repositories: dict[str, int]


def run_of(usage: Usage, now: float | None = None) -> Run:
    """Return what is recorded of a usage of all layouts; `now` is in seconds since the epoch."""
    repositories: dict[str, int] = {}
    for cost in usage.layouts:
        above = _repository(cost.name)
        repositories[above] = repositories.get(above, 0) + cost.amortised
    largest = sorted(repositories.items(), key=lambda one: (-one[1], one[0]))[:REPOSITORIES]
    return Run(
        int(time.time() if now is None else now),
        len(usage.layouts),
        usage.total.apparent,
        usage.total.on_disk,
        usage.separate,
        usage.unreferenced,
        usage.everything,
        dict(sorted(largest)),
    )


def runs(store: Store) -> list[Run]:
    """Return what was recorded, the oldest first; lines that mean nothing are left out."""
    directory = open_directory(store.path)
    try:
        with open(open_file(FILE, directory), "rb") as file:
            raw = file.read(_MAX_FILE)
    except FileNotFoundError:
        return []
    finally:
        os.close(directory)
    found: list[Run] = []
    for line in raw.splitlines():
        with suppress(InvalidContent):
            found.append(_parsed(line))
    return sorted(found, key=lambda run: run.time)


def record(store: Store, run: Run, disk: Disk | None = None) -> None:
    """Add a run to those of the store, and forget some of the old ones.

    When this returns it survives power loss.

    Raises:
        Busy: another process holds the store.
    """
    disk = disk or Disk()
    with store.lock.held():
        kept = thinned([*runs(store), run])
        content = b"".join(json.dumps(members(one)).encode() + b"\n" for one in kept)
        directory = open_directory(store.path)
        try:
            disk.put(directory, FILE, content)
            disk.sync(directory)
        finally:
            os.close(directory)


def thinned(found: Sequence[Run]) -> list[Run]:
    """Return the runs that are worth keeping: the newest, then the last one of each day."""
    ordered = sorted(found, key=lambda run: run.time)
    old, new = ordered[:-ALL], ordered[-ALL:]
    first = (new[-1].time // _DAY) - DAYS if new else 0
    by_day = {run.time // _DAY: run for run in old}
    days = [run for day, run in by_day.items() if day >= first]
    by_month = {day // 30: run for day, run in by_day.items() if day < first}
    return [*list(by_month.values())[-OLDEST:], *days, *new]


def sparkline(numbers: Iterable[int], width: int = 40) -> str:
    """Return numbers as a row of bars, from nothing to the largest; the newest `width`.

    >>> sparkline([0, 4, 8])
    '▁▄█'
    """
    shown = list(numbers)[-width:]
    top = max(shown, default=0)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[min(7, number * 7 // top)] if top else bars[0] for number in shown)


def _repository(name: PurePosixPath) -> str:
    reference = Reference.from_path(name)
    return f"{reference.registry}/{reference.repository}" if reference else str(name.parent)


def members(run: Run) -> dict[str, object]:
    """Return a run for a JSON document, which is how it is kept, too."""
    return {
        "time": run.time,
        "images": run.images,
        "apparent": run.apparent,
        "onDisk": run.on_disk,
        "separate": run.separate,
        "unreferenced": run.unreferenced,
        "everything": run.everything,
        "repositories": run.repositories,
    }


def _parsed(line: bytes) -> Run:
    found = parse_object(line, FILE)
    repositories = inner(found, "repositories", FILE)
    return Run(
        _number(found, "time"),
        _number(found, "images"),
        _number(found, "apparent"),
        _number(found, "onDisk"),
        _number(found, "separate"),
        _number(found, "unreferenced"),
        _number(found, "everything"),
        {name: _number(repositories, name) for name in repositories},
    )


def _number(found: Object, key: str) -> int:
    value = found.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise InvalidContent(f"{key} of {FILE} is not a number")
    return value
