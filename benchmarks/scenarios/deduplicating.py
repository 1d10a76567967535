"""What do many images on one run image take, and how fast do plain layouts of them become small?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ocistow.bench.measure import Result, Steps, compare
from ocistow.bench.processes import Sample, timed
from ocistow.bench.servers import require
from ocistow.testing.images import image_layout

from .bench import MIB, Bench, add, ocistow

APPS, QUICK_APPS = 30, 5


def run(bench: Bench) -> Iterator[Result]:
    """Deduplicate plain layouts in place, next to tools that know nothing of digests."""
    require("jdupes", "rmlint")
    layouts = _layouts(bench)
    left: dict[str, int] = {}

    def ours() -> Steps:
        tree, store = _copy(layouts, bench), bench.fresh("store")
        sample = ocistow(store, "dedupe", "--mode=hardlink", tree)
        left["ocistow dedupe"] = _on_disk(tree, store)
        again = ocistow(store, "dedupe", "--mode=hardlink", tree)
        return {"in place": sample, "once more": again}

    def jdupes() -> Steps:
        tree = _copy(layouts, bench)
        sample = timed("jdupes", "-q", "-r", "-L", tree)
        left["jdupes -L"] = _on_disk(tree)
        return {"in place": sample, "once more": timed("jdupes", "-q", "-r", "-L", tree)}

    def rmlint() -> Steps:
        tree = _copy(layouts, bench)
        sample = _rmlint(tree, bench)
        left["rmlint"] = _on_disk(tree)
        return {"in place": sample, "once more": _rmlint(tree, bench)}

    contestants = {"ocistow dedupe": ours, "jdupes -L": jdupes, "rmlint": rmlint}
    yield from compare("dedupe", contestants, bench.rounds)
    left = {**left, "before": _on_disk(layouts)}
    sizes = {name: [Sample(0, 0, size)] for name, size in left.items()}
    yield Result("dedupe", "on disk afterwards", sizes, "B")
    yield _in_store(bench, layouts)


def _in_store(bench: Bench, layouts: Path) -> Result:
    store = bench.fresh("store")
    for layout in sorted(layouts.iterdir()):
        add(store, layout, layout.name)
    sizes = {"ocistow store": _on_disk(store), "plain layouts": _on_disk(layouts)}
    count = len(os.listdir(layouts))
    samples = {name: [Sample(0, 0, size)] for name, size in sizes.items()}
    return Result("disk use", f"{count} images on one run image", samples, "B")


def _layouts(bench: Bench) -> Path:
    """Make whole layouts: each has its own copy of the run image, and three small layers."""
    top = bench.directory / "images" / "many"
    size = MIB // 16 if bench.quick else 2 * MIB
    for number in range(QUICK_APPS if bench.quick else APPS):
        path = top / f"app-{number:02}"
        app = image_layout(path, seed=100 + number, layers=3, layer_size=size, base=bench.base)
        for digest in bench.base.layers:
            shutil.copyfile(bench.base.blob(digest), app.blob(digest))
    return top


def _copy(layouts: Path, bench: Bench) -> Path:
    tree = bench.fresh("tree")
    timed("cp", "-a", layouts, tree)
    os.sync()  # or who comes first waits for what was just written
    return tree


def _rmlint(tree: Path, bench: Bench) -> Sample:
    """Let rmlint find duplicates and write a script, and run that."""
    script = bench.fresh("rmlint.sh")
    find = ("rmlint", "--types=duplicates", "-c", "sh:hardlink", "-o", f"sh:{script}", tree)
    # it leaves a stamp where it is run
    return timed(*find) + timed("env", "-C", script.parent, "sh", script, "-d", "-q")


def _on_disk(*trees: Path) -> int:
    """Return the bytes that files and directories take, each inode once."""
    found: dict[int, int] = {}
    for tree in trees:
        for above, _, names in os.walk(tree):
            for path in (above, *(os.path.join(above, name) for name in names)):
                status = os.lstat(path)
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())
