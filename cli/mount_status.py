"""`ocistow mount --status`: what running mounts do, for people, scripts and Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..fusefs.health.status import statuses
from ..oci.document import inner
from ..oci.errors import NotFound
from . import output

Status = Mapping[str, object]

_CONTENT = {
    "saved": "not written, since the pool had it",
    "present": "written, though the pool had it",
    "committed": "new in the pool",
    "refused": "refused",
}
_GAUGES = {
    "handles": "open files",
    "directories": "open directories",
    "staged": "staged files",
    "waitingIndexes": "indexes that wait",
    "inodes": "inodes known",
}


def show(mountpoint: Path | None, store: Path, *, as_json: bool, prometheus: bool) -> None:
    """Print the status of one mount, or of all mounts of a store.

    Raises:
        NotFound: there is no such mount, or it does not tell this user.
    """
    known = [*statuses()]
    if mountpoint is None:
        found = [status for status in known if status.get("store") == str(store.resolve())]
    else:
        found = _at(mountpoint.parent.resolve() / mountpoint.name, known)
        found = found or _at(mountpoint.resolve(), known)  # which asks the mount, if it is one
    if not found:
        raise NotFound(f"a running mount {f'at {mountpoint}' if mountpoint else f'of {store}'}")
    found.sort(key=lambda status: str(status["mountpoint"]))
    if as_json:
        output.listing("mounts", found)
    elif prometheus:
        output.line("\n".join(_metrics(found)))
    else:
        for number, status in enumerate(found):
            if number:
                output.line("")
            _print(status)


def _at(place: Path, known: Iterable[Status]) -> list[Status]:
    return [status for status in known if status.get("mountpoint") == str(place)]


def _print(status: Status) -> None:
    reads, requests = _numbers(status, "reads"), _numbers(status, "requests")
    total = sum(reads.values())
    hits = f"{reads['cached'] / total:.0%} of {total:.0f}" if total else "none"
    read_only = ", read-only" if status["readOnly"] else ""
    rows = [
        ["store", f"{status['store']}{read_only}"],
        ["server", f"process {status['pid']}, engine {status['engine']}"],
        ["up", _span(_number(status, "uptimeSeconds"))],
        *([label, f"{_numbers(status, 'kept')[name]:.0f}"] for name, label in _GAUGES.items()),
        ["under way", _under_way(requests)],
        ["reads from memory", hits],
    ]
    output.table([str(status["mountpoint"]), ""], rows, right=[])
    amounts = _members(status, "content")
    output.line("")
    output.table(
        ["CONTENT", "BLOBS", "BYTES"],
        [
            [label, f"{amounts[name]['files']:.0f}", output.human(int(amounts[name]["bytes"]))]
            for name, label in _CONTENT.items()
        ],
        right=[1, 2],
    )
    output.line("")
    output.table(
        ["REQUEST", "COUNT", "P50", "P99", "LONGEST"],
        [
            [
                name,
                f"{times['count']:.0f}",
                *(_span(times[key]) for key in ("p50Seconds", "p99Seconds", "longestSeconds")),
            ]
            for name, times in _members(status, "operations").items()
        ],
        right=[1, 2, 3, 4],
    )
    if errors := _numbers(status, "errors"):
        output.line("")
        rows = [[name, f"{count:.0f}"] for name, count in errors.items()]
        output.table(["ERROR", "COUNT"], rows, right=[1])


def _under_way(requests: Mapping[str, float]) -> str:
    number = int(requests["underWay"])
    oldest = f", the oldest for {_span(requests['oldestSeconds'])}" if number else ""
    return f"{output.count(number, 'request')}{oldest}"


def _span(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1e6:.0f} us"


def _metrics(found: Iterable[Status]) -> Iterator[str]:
    """Yield lines in Prometheus' text format, version 0.0.4."""
    samples: dict[str, list[str]] = {}

    def add(name: str, kind: str, status: Status, value: float, **labels: str) -> None:
        at = {"mountpoint": str(status["mountpoint"]), "store": str(status["store"]), **labels}
        words = ",".join(f'{key}="{_escaped(text)}"' for key, text in at.items())
        family = name.removesuffix("_sum").removesuffix("_count") if kind == "summary" else name
        lines = samples.setdefault(family, [f"# TYPE ocistow_mount_{family} {kind}"])
        lines.append(f"ocistow_mount_{name}{{{words}}} {value:.9g}")

    for status in found:
        add("uptime_seconds", "gauge", status, _number(status, "uptimeSeconds"))
        for kind, amount in _members(status, "content").items():
            add("content_files_total", "counter", status, amount["files"], what=kind)
            add("content_bytes_total", "counter", status, amount["bytes"], what=kind)
        for where, count in _numbers(status, "reads").items():
            add("reads_total", "counter", status, count, where=where)
        for what, count in _numbers(status, "kept").items():
            add("kept", "gauge", status, count, what=what)
        requests = _numbers(status, "requests")
        add("requests_under_way", "gauge", status, requests["underWay"])
        add("oldest_request_seconds", "gauge", status, requests["oldestSeconds"])
        for name, count in _numbers(status, "errors").items():
            add("errors_total", "counter", status, count, errno=name)
        for name, times in _members(status, "operations").items():
            for share, key in (("0.5", "p50Seconds"), ("0.99", "p99Seconds")):
                value = times[key]
                add("request_seconds", "summary", status, value, operation=name, quantile=share)
            add("request_seconds_sum", "summary", status, times["totalSeconds"], operation=name)
            add("request_seconds_count", "summary", status, times["count"], operation=name)
    for lines in samples.values():
        yield from lines


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(status: Status, name: str) -> float:
    value = status[name]
    assert isinstance(value, int | float), name
    return value


def _numbers(status: Status, name: str) -> Mapping[str, float]:
    members = inner(status, name, "status")
    return {key: _number(members, key) for key in members}


def _members(status: Status, name: str) -> Mapping[str, Mapping[str, float]]:
    members = inner(status, name, "status")
    return {key: _numbers(members, key) for key in members}
