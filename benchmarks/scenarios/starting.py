"""How long do the commands take that do next to nothing?"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ocistow.bench.measure import Result, compare
from ocistow.bench.processes import timed
from ocistow.bench.servers import require

from .bench import HOST, Bench, add, ocistow, step

IMAGES, QUICK = 50, 5


def run(bench: Bench) -> Iterator[Result]:
    require("skopeo")
    store, layout, name = bench.fresh("store"), bench.app.path, f"{HOST}/app"
    add(store, layout, "app")
    images = QUICK if bench.quick else IMAGES
    for number in range(images - 1):
        ocistow(store, "tag", name, f"{name}:{number}")
    scenario = f"small commands, {images} images"
    yield from compare(
        scenario,
        {
            "ocistow": step("--help", lambda: ocistow(store, "--help")),
            "python -c pass": step("--help", lambda: timed(sys.executable, "-c", "pass")),
        },
        bench.rounds,
    )
    yield from compare(
        scenario,
        {
            "ocistow": step("ls", lambda: ocistow(store, "ls")),
            "ls -R": step("ls", lambda: timed("ls", "-R", store / "layouts")),
        },
        bench.rounds,
    )
    yield from compare(
        scenario,
        {
            "ocistow": step("inspect", lambda: ocistow(store, "inspect", name)),
            "skopeo inspect": step(
                "inspect", lambda: timed("skopeo", "inspect", f"oci:{layout}:latest")
            ),
        },
        bench.rounds,
    )
