"""How long does it take to write an image through the mount, next to a directory?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ocistow.bench.measure import Goal, Result, Steps, compare
from ocistow.bench.processes import Sample, clocked
from ocistow.bench.servers import mounted, require
from ocistow.testing.images import GeneratedImage
from ocistow.testing.layout_writer import Layer, Report, image_of, write_image, write_layer

from .bench import HOST, MIB, Bench, add, skopeo
from .plain import write

OURS, HASHED, DIRECTORY = "through the mount", "write, sha256", "to a directory"
PIECES = {"in pieces of 1 MiB": MIB, "in pieces of 32 KiB": MIB // 32}  # a write(2)
SMALL = "a layer of 1 MiB"

ONE_BLOB: Mapping[str, Goal] = {"pyfuse3": Goal(HASHED, 0.6), "kernel": Goal(HASHED, 0.85)}
REPLAY = {"base present": Goal(DIRECTORY, 2.0)}
INSIDE: Mapping[str, Mapping[str, Goal]] = {
    "pyfuse3": {},
    "kernel": {"copy": Goal(SMALL, 0.5)},  # that is, it takes no longer for more
}


def run(bench: Bench) -> Iterator[Result]:
    require("skopeo")
    size = (16 if bench.quick else 256) * MIB
    layers = [bench.one_layer(size, seed=seed) for seed in range(len(PIECES))]
    small = bench.one_layer(MIB)
    for engine in bench.engines:
        option = f"--engine={engine}"
        yield from _copies(bench, option, engine)
        yield from _replay(bench, option, engine)
        yield from _blobs(bench, layers, option, engine)
        yield from _inside(bench, {"large": layers[0], "small": small}, option, engine)


def _copies(bench: Bench, option: str, engine: str) -> Iterator[Result]:
    app, rebuilt = f"oci:{bench.app.path}:latest", f"oci:{bench.rebuilt.path}:latest"

    def ours() -> Steps:
        with mounted(bench.fresh("store"), option) as mount:
            names = mount.path / HOST
            names.mkdir()
            return {
                "empty store": skopeo(app, f"oci:{names}/app:latest"),
                "base present": skopeo(rebuilt, f"oci:{names}/rebuilt:latest"),
                "all present": skopeo(rebuilt, f"oci:{names}/same:latest"),
            }

    def plain(*options: str | Path) -> Steps:
        work = bench.empty("plain")
        shared = [work / option if option == "pool" else option for option in options]
        return {
            "empty store": skopeo(*shared, app, f"oci:{work}/app:latest"),
            "base present": skopeo(*shared, rebuilt, f"oci:{work}/rebuilt:latest"),
            "all present": skopeo(*shared, rebuilt, f"oci:{work}/same:latest"),
        }

    yield from compare(
        f"skopeo copy oci: oci:, {engine}",
        {
            OURS: ours,
            DIRECTORY: plain,
            "with a shared blob directory": partial(plain, "--dest-shared-blob-dir", "pool"),
        },
        bench.rounds,
    )


def _replay(bench: Bench, option: str, engine: str) -> Iterator[Result]:
    """An app image above a base that the layout directory has, as the lifecycle writes it."""
    base = bench.base

    def replay(target: Path, below: Path) -> Steps:
        image = image_of(bench.app, base=below, base_layers=len(base.layers))
        return {"base present": clocked(partial(write_image, target, image))}

    def ours() -> Steps:
        store = bench.fresh("store")
        add(store, base.path, "base")
        with mounted(store, option) as mount:
            names = mount.path / HOST
            return replay(names / "app" / "latest", names / "base" / "latest")

    def plain() -> Steps:
        return replay(bench.empty("plain") / "app", base.path)

    contestants = {OURS: ours, DIRECTORY: plain}
    name = f"write as go-containerregistry, {engine}"
    yield from compare(name, contestants, bench.rounds, goals=REPLAY)


def _blobs(
    bench: Bench, layers: list[GeneratedImage], option: str, engine: str
) -> Iterator[Result]:
    """Write a blob beside its name and rename it, twice: the pool has it the second time."""
    contents = {
        name: image.blob(image.layers[0]) for name, image in zip(PIECES, layers, strict=True)
    }
    size = next(iter(contents.values())).stat().st_size // MIB

    def put(directory: Path, *options: str) -> dict[str, Sample]:
        directory.mkdir(parents=True)
        return {
            name: clocked(partial(write, source, directory / source.name, options, PIECES[name]))
            for name, source in contents.items()
        }

    def ours() -> Steps:
        with mounted(bench.fresh("store"), option) as mount:
            names = mount.path / HOST
            new = put(names / "app" / "blobs" / "sha256")
            known = put(names / "same" / "blobs" / "sha256")
        return {**new, **{f"{name}, content known": sample for name, sample in known.items()}}

    def plain(*options: str) -> Steps:
        work = bench.empty("plain")
        new, known = put(work / "new", *options), put(work / "known", *options)
        return {**new, **{f"{name}, content known": sample for name, sample in known.items()}}

    goal = ONE_BLOB[engine]
    yield from compare(
        f"write a blob of {size} MiB and rename it, {engine}",
        {
            OURS: ours,
            HASHED: partial(plain, "--hash"),
            "write": plain,
            "write, sha256, fsync": partial(plain, "--hash", "--sync"),
        },
        bench.rounds,
        goals={step: goal for name in PIECES for step in (name, f"{name}, content known")},
    )


def _inside(
    bench: Bench, images: Mapping[str, GeneratedImage], option: str, engine: str
) -> Iterator[Result]:
    """Copy a layer to another layout, as go-containerregistry does where it is not yet there."""

    def copy(name: str, layout: Path, target: Path) -> Steps:
        (digest,) = images[name].layers
        source = layout / "blobs" / "sha256" / digest.encoded
        (target / "blobs" / "sha256").mkdir(parents=True)
        layer = Layer(digest, source=source)
        return {"copy": clocked(partial(write_layer, target, layer, Report()))}

    def ours(name: str) -> Steps:
        store = bench.fresh("store")
        add(store, images[name].path, "base")
        with mounted(store, option, "--no-virtual-presence") as mount:
            names = mount.path / HOST
            return copy(name, names / "base" / "latest", names / "app")

    def plain() -> Steps:
        return copy("large", images["large"].path, bench.empty("plain") / "app")

    (large,) = images["large"].layers
    size = images["large"].blob(large).stat().st_size // MIB
    yield from compare(
        f"copy a layer of {size} MiB to another layout, {engine}",
        {OURS: partial(ours, "large"), DIRECTORY: plain, SMALL: partial(ours, "small")},
        bench.rounds,
        goals=INSIDE[engine],
    )
