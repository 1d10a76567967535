"""How long does it take to write an image through the mount, next to a directory?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .bench import HOST, MIB, Bench, add, skopeo
from .measure import Result, Steps, compare
from .processes import EXPORT, PLAIN, timed
from .servers import mounted, require


def run(bench: Bench) -> Iterator[Result]:
    require("skopeo")
    yield from _copies(bench)
    yield from _exports(bench)
    yield from _one_blob(bench)


def _copies(bench: Bench) -> Iterator[Result]:
    app, rebuilt = f"oci:{bench.app.path}:latest", f"oci:{bench.rebuilt.path}:latest"

    def ours() -> Steps:
        with mounted(bench.fresh("store")) as mount:
            names = mount.path / HOST
            names.mkdir()
            return {
                "empty store": skopeo(app, f"oci:{names}/app:latest"),
                "base present": skopeo(rebuilt, f"oci:{names}/rebuilt:latest"),
                "all present": skopeo(rebuilt, f"oci:{names}/same:latest"),
            }

    def plain() -> Steps:
        work = bench.empty("plain")
        return {
            "empty store": skopeo(app, f"oci:{work}/app:latest"),
            "base present": skopeo(rebuilt, f"oci:{work}/rebuilt:latest"),
            "all present": skopeo(rebuilt, f"oci:{work}/same:latest"),
        }

    def shared() -> Steps:
        work = bench.empty("shared")
        pool = ("--dest-shared-blob-dir", work / "pool")
        return {
            "empty store": skopeo(*pool, app, f"oci:{work}/app:latest"),
            "base present": skopeo(*pool, rebuilt, f"oci:{work}/rebuilt:latest"),
            "all present": skopeo(*pool, rebuilt, f"oci:{work}/same:latest"),
        }

    yield from compare(
        "skopeo copy oci: oci:",
        {"to the mount": ours, "to a directory": plain, "with a shared blob directory": shared},
        bench.rounds,
    )


def _exports(bench: Bench) -> Iterator[Result]:
    """An app image above a base that the layout directory has, as the lifecycle exports it."""
    base, app = bench.base, bench.app.path
    layers = str(len(base.layers))

    def export(target: Path, below: Path) -> Steps:
        return {"base present": timed(*EXPORT, app, target, below, layers)}

    def ours() -> Steps:
        store = bench.fresh("store")
        add(store, base.path, "base")
        with mounted(store) as mount:
            names = mount.path / HOST
            return export(names / "app" / "latest", names / "base" / "latest")

    def plain() -> Steps:
        names = bench.empty("plain")
        timed("cp", "-a", base.path, names / "base")
        return export(names / "app", names / "base")

    yield from compare(
        "write as go-containerregistry",
        {"to the mount": ours, "to a directory": plain},
        bench.rounds,
    )


def _one_blob(bench: Bench) -> Iterator[Result]:
    image = bench.one_layer((16 if bench.quick else 256) * MIB)
    (layer,) = image.layers
    source = image.blob(layer)
    name = f"one blob of {source.stat().st_size // MIB} MiB"

    def ours() -> Steps:
        with mounted(bench.fresh("store")) as mount:
            blobs = mount.path / HOST / "app" / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            return {name: timed(*PLAIN, "write", source, blobs / layer.encoded)}

    def plain(*options: str) -> Steps:
        target = bench.empty("plain") / layer.encoded
        return {name: timed(*PLAIN, "write", *options, source, target)}

    yield from compare(
        "write and rename",
        {
            "through the mount": ours,
            "write": plain,
            "write, sha256": lambda: plain("--hash"),
            "write, sha256, fsync": lambda: plain("--hash", "--sync"),
        },
        bench.rounds,
    )
