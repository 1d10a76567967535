"""Write the README's table of measurements out of committed runs: `python scripts/headline.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- What follows is written by python scripts/headline.py -->\n"
END = "<!-- end -->\n"
STORE, MOUNT, WAYS = "2026-11-21-store", "2026-11-22-mount", "2026-11-22-ways"
ADDING, EXPORT, PUBLISHING = "2026-11-21-rest", "2026-11-21-export", "2026-11-21-publishing"
GO = "daemon, Go's lifecycle"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One line: how a reader calls it, and which measurement of which run it is."""

    what: str
    run: str
    scenario: str
    step: str
    baseline: str
    called: str


def _rows() -> Iterator[Row]:
    layout = "a layout and `skopeo`"
    for step, what, way, called in (
        ("first build", "first", GO, "Go's lifecycle"),
        ("first build", "first", "layout", layout),
        ("second build", "next", GO, "Go's lifecycle"),
        ("second build", "next", "layout", layout),
        ("unchanged", "unchanged", GO, "Go's lifecycle"),
        ("rebase", "rebased", "daemon", "the daemon directly"),
    ):
        java = f"Java application built into the Docker daemon, {what}"
        yield Row(java, WAYS, "ways, java", step, way, called)
    written = "Written to disks by the next build of that"
    yield Row(written, WAYS, "ways, java, written", "second build", GO, "Go's lifecycle")
    skopeo, directory, go = "skopeo copy", "to a directory", "Go's exporter"
    plain = "`skopeo copy oci: oci:`"
    for step, what in (("fresh store", "new"), ("all present", "all of it present")):
        called = f"`add` of 160 MiB, {what}"
        yield Row(called, ADDING, "add oci:", step, plain.strip("`"), plain)
    for step, what in (("base present", "base present"), ("empty store", "all new")):
        called = f"`skopeo copy` into the mount, {what}"
        yield Row(
            called, MOUNT, "skopeo copy oci: oci:, kernel", step, directory, "into a directory"
        )
    copying, layer = (
        "copy a layer of 256 MiB to another layout, kernel",
        "`cp` of a layer of 256 MiB",
    )
    yield Row(f"{layer} within the mount", MOUNT, copying, "copy", directory, "within a directory")
    file, cold = "the file itself", "only the mount's cold"
    yield Row(
        "read 1 GiB first through the mount", MOUNT, "read 1 x 1024 MiB, kernel", cold, file, file
    )
    yield Row("… with `--engine pyfuse3`", MOUNT, "read 1 x 1024 MiB, pyfuse3", cold, file, file)
    writing, pieces = "write a blob of 256 MiB and rename it, kernel", "in pieces of 1 MiB"
    synced = "write, sha256, fsync"
    yield Row(
        "write a new layer of 256 MiB through the mount", MOUNT, writing, pieces, synced, synced
    )
    for step, what in (
        ("first build", "130 MB of JRE and 40 MB of app, first build"),
        ("unchanged", "unchanged"),
        ("one file changed", "one file changed"),
    ):
        yield Row(f"`exporter`, {what}", EXPORT, "export", step, go, go)
    for step, what in (
        ("empty", "new, 162 MB"),
        ("other repository", "another repository"),
        ("second build", "next build"),
        ("unchanged", "unchanged"),
    ):
        called = f"`publish` to a registry, {what}"
        yield Row(called, PUBLISHING, "registry, java", step, skopeo, f"`{skopeo}`")
    for step, what in (
        ("run image present", "run image present"),
        ("second build", "next build"),
        ("unchanged", "unchanged"),
    ):
        called = f"`publish` to the Docker daemon, {what}"
        yield Row(called, PUBLISHING, "docker daemon, java", step, skopeo, f"`{skopeo}`")
    twice, ctr = "skopeo copy, twice", "ctr images import"
    there_and_back = "run image out of the daemon, next build into it"
    yield Row(
        *(there_and_back, PUBLISHING, "daemon, build, daemon", "second build, java", twice),
        called="`skopeo copy`, twice",
    )
    containerd = "`publish` to containerd, next build"
    yield Row(containerd, PUBLISHING, "containerd, java", "second build", ctr, f"`{ctr}`")
    many, plainly = "30 images on one run image", "plain layouts"
    yield Row(f"{many}, on disk", STORE, "disk use", many, plainly, plainly)
    yield Row("`dedupe` of these", STORE, "dedupe", "in place", "rmlint", "`rmlint`")


def table() -> Iterator[str]:
    """Yield the lines."""
    yield "| What | ocistow | Compared with | | Times as fast, or small |"
    yield "| --- | ---: | --- | ---: | ---: |"
    for row in _rows():
        unit, ours, theirs, ratio = _measured(row)
        yield (
            f"| {row.what} | {_shown(ours, unit)} | {row.called} | {_shown(theirs, unit)} "
            f"| {_ratio(ratio)} |"
        )


def sentence() -> str:
    """Return what is no row: the longest pause, and how much memory."""
    store = json.loads((RESULTS / f"{STORE}.json").read_text())["results"]
    step = "lease and lock, longest"
    [pause] = [r["contestants"][r["ours"]]["median"] for r in store if r["step"] == step]
    peaks = [
        result["contestants"][result["ours"]]["median"]
        for run in ("2026-11-21", "2026-11-21-daemon-memory", EXPORT)
        for result in json.loads((RESULTS / f"{run}.json").read_text())["results"]
        if result["scenario"].endswith("peak memory")
    ]
    low, high = (f"{peak / _MIB:.0f}" for peak in (min(peaks), max(peaks)))
    return (
        f"`gc` keeps a writer waiting for {_shown(pause, 's')} at most while it removes 20,000 "
        f"blobs. Memory stays between {low} and {high} MiB, the exporter's most of all, and does "
        "not grow with the layers."
    )


def written(text: str) -> str:
    """Return the README with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *table(), "", sentence(), "", END + after])


def _measured(row: Row) -> tuple[str, float, float, float]:
    """Return the unit, our median, theirs, and the median of the ratios of each round."""
    run = json.loads((RESULTS / f"{row.run}.json").read_text())
    [result] = [
        result
        for result in run["results"]
        if (result["scenario"], result["step"]) == (row.scenario, row.step)
        and row.baseline in result["contestants"]
    ][:1]
    contestants = result["contestants"]
    ours, theirs = contestants[result["ours"]]["median"], contestants[row.baseline]
    return result["unit"], ours, theirs["median"], theirs["ratio"]["median"]


def _shown(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / _MIB:.0f} MiB"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
