"""How long does it take to add an image, next to copying its layout?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ocistow.bench.measure import Result, Steps, compare
from ocistow.bench.processes import Sample, timed
from ocistow.bench.servers import require

from .bench import Bench, add, skopeo
from .programs import PLAIN

SCENARIO = "add oci:"
Copy: TypeAlias = Callable[[Path, Path], Sample]


def run(bench: Bench) -> Iterator[Result]:
    require("skopeo")
    app, rebuilt = bench.app.path, bench.rebuilt.path

    def ours() -> Steps:
        store = bench.fresh("store")
        return {
            "fresh store": add(store, app, "first"),
            "base present": add(store, rebuilt, "second"),
            "all present": add(store, rebuilt, "third"),
        }

    def cp() -> Steps:
        return in_turn("cp", lambda source, target: timed("cp", "-a", source, target))

    def safe() -> Steps:
        def copy(source: Path, target: Path) -> Sample:
            return timed(*PLAIN, "copy", "--hash", "--sync", source, target)

        return in_turn("safe", copy)

    def by_skopeo() -> Steps:
        def copy(source: Path, target: Path) -> Sample:
            return skopeo(f"oci:{source}:latest", f"oci:{target}:latest")

        return in_turn("skopeo", copy)

    def in_turn(name: str, copy: Copy) -> Steps:
        work = bench.empty(name)
        return {
            "fresh store": copy(app, work / "first"),
            "base present": copy(rebuilt, work / "second"),
            "all present": copy(rebuilt, work / "third"),
        }

    yield from compare(
        SCENARIO,
        {
            "ocistow add": ours,
            "cp -a": cp,
            "copy, sha256, fsync": safe,
            "skopeo copy oci: oci:": by_skopeo,
        },
        bench.rounds,
    )
    yield from _read_only(bench)


def _read_only(bench: Bench) -> Iterator[Result]:
    """From a layout whose blobs nobody may write, so that they can be linked or shared."""
    layout = bench.fresh("read-only")
    timed("cp", "-a", bench.app.path, layout)
    blobs = sorted((layout / "blobs" / "sha256").iterdir())
    for blob in blobs:
        blob.chmod(0o444)
    step = "read-only layout"
    yield from compare(
        SCENARIO,
        {
            "ocistow add": lambda: {step: add(bench.fresh("store"), layout, "linked")},
            "cp -a": lambda: {step: timed("cp", "-a", layout, bench.fresh("copy"))},
            "cp -al": lambda: {step: timed("cp", "-al", layout, bench.fresh("links"))},
            "sha256": lambda: {step: timed(*PLAIN, "hash", *blobs)},
        },
        bench.rounds,
    )
