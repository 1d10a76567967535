"""How much memory does it take? It must not grow with the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ocistow.bench.apps import one_layer
from ocistow.bench.measure import Result, Steps, compare
from ocistow.bench.processes import Sample, peak_of, timed
from ocistow.bench.servers import Mount, docker_daemon, mounted, registry, require
from ocistow.testing.images import GeneratedImage

from .bench import GIB, HOST, MIB, Bench, add, ocistow
from .programs import PLAIN

SCENARIO = "peak memory"
ROUNDS = 3  # it hardly varies


def run(bench: Bench) -> Iterator[Result]:
    require("docker-registry")
    small = bench.one_layer(64 * MIB)
    large = bench.one_layer(128 * MIB if bench.quick else 2 * GIB)
    contestants = {
        f"a layer of {_size(image)} MiB": _contestant(bench, image) for image in (large, small)
    }
    yield from compare(SCENARIO, contestants, min(bench.rounds, ROUNDS), unit="B")


def of_daemon(bench: Bench) -> Iterator[Result]:
    """A layer that is inflated on its way into a Docker daemon, and compressed on its way back."""
    sizes = (128 * MIB if bench.quick else GIB, 64 * MIB)
    layouts = {size: one_layer(bench.fresh(f"layer-{size}"), size) for size in sizes}
    with docker_daemon(bench.empty("docker"), 24 * GIB) as host:

        def steps(size: int) -> Steps:
            store, other = bench.fresh("store"), bench.fresh("other")
            name, image = f"{HOST}/layer:{size}", f"docker-daemon:{HOST}/layer:{size}"
            ocistow(store, "add", f"oci:{layouts[size]}:latest", name)
            archive = bench.fresh("archive")
            return {
                "publish docker-daemon:": ocistow(store, "publish", name, image, docker_host=host),
                "add docker-daemon:": ocistow(other, "add", image, docker_host=host),
                "publish docker-archive:": ocistow(
                    store, "publish", name, f"docker-archive:{archive}"
                ),
                "add docker-archive:": ocistow(
                    bench.fresh("third"), "add", f"docker-archive:{archive}", name
                ),
            }

        contestants = {f"a layer of {size // MIB} MiB": partial(steps, size) for size in sizes}
        yield from compare(SCENARIO, contestants, min(bench.rounds, ROUNDS), unit="B")


def _contestant(bench: Bench, image: GeneratedImage) -> Callable[[], Steps]:
    def steps() -> Steps:
        store = bench.fresh("store")
        found = {"ocistow add": add(store, image.path, "app")}
        with registry(bench.fresh("registry")) as server:
            target = f"docker://{server.host}/bench/app:latest"
            found["ocistow publish"] = ocistow(store, "publish", f"{HOST}/app", target)
        layer = image.layers[0].encoded
        shown = Path(HOST, "app", "latest", "blobs", "sha256", layer)
        with mounted(store) as mount:
            found["ocistow mount, read"] = _served(
                mount, timed("dd", f"if={mount.path / shown}", "of=/dev/null", "bs=1M")
            )
        with mounted(bench.fresh("store")) as mount:
            path = mount.path / shown
            path.parent.mkdir(parents=True)
            written = timed(*PLAIN, "write", image.blob(image.layers[0]), path)
            found["ocistow mount, written"] = _served(mount, written)
        return found

    return steps


def _served(mount: Mount, sample: Sample) -> Sample:
    """Return what the process that served a client took."""
    return replace(sample, peak=peak_of(mount.pid))


def _size(image: GeneratedImage) -> int:
    return image.blob(image.layers[0]).stat().st_size // MIB
