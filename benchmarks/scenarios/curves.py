"""How do time and memory grow with layouts, blobs, layers, the size of a layer, and writers?

Each size of a curve is a contestant whose name begins with the size: `charts.py` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ocistow.bench.measure import Contestant, Result, Steps, compare
from ocistow.bench.processes import OCISTOW, Sample, at_once, cpu_of, peak_of, timed, warmth
from ocistow.bench.servers import Mount, mounted
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.images import GeneratedImage
from ocistow.testing.population import populate

from .bench import HOST, MIB, Bench, add, ocistow
from .programs import PLAIN
from .scale import BLOBS, one_of

LAYOUTS = (10, 100, 1000, 10_000, 100_000)
POOL = (400, 1000, 10_000, 100_000)  # blobs
VERIFIED = 10_000  # blobs; more take minutes
OFTEN = 10_000  # layouts or blobs; of more, all are looked at only once
LAYERS = (1, 10, 100, 1000)  # of one image
SIZES = (1, 16, 256, 1024, 4096)  # MiB of one layer
WRITERS = (1, 2, 4, 8, 16)
COPY = "dd conv=fsync"  # of the layer, without ocistow
ROUNDS = 3  # they are of processor time, which varies little
_QUICK = 2  # sizes: the first ones
_FEW = 100  # names in a pool of many blobs
_SMALL = 16 << 10  # bytes of a layer that is one of many
_WRITTEN = 8 * MIB  # bytes of a writer's layer


def run(bench: Bench) -> Iterator[Result]:
    yield from _grown(bench, "layouts", LAYOUTS, partial(_of_layouts, bench))
    yield from _grown(bench, "blobs in the pool", POOL, partial(_of_pool, bench))
    yield from _grown(bench, "layers of an image", LAYERS, partial(_of_layers, bench))
    yield from _grown(bench, "MiB in a layer", SIZES, partial(_of_size, bench))
    yield from _grown(bench, "writers at once", WRITERS, partial(_of_writers, bench))


def _grown(
    bench: Bench, axis: str, sizes: Sequence[int], prepare: Callable[[int], Contestant]
) -> Iterator[Result]:
    """Measure the largest size first: it is ours, and the smaller ones are its baselines."""
    chosen = sizes[:_QUICK] if bench.quick else sizes
    contestants = {f"{size:,} {axis}": prepare(size) for size in reversed(chosen)}
    yield from compare(f"curve, {axis}", contestants, min(bench.rounds, ROUNDS))


def _of_layouts(bench: Bench, count: int) -> Contestant:
    store, archive = bench.fresh(f"layouts-{count}"), bench.fresh("archive")
    name = one_of(populate(store, names=count, blobs=BLOBS * count))
    whole = _rarely(lambda: _whole(store), count)

    def steps() -> Steps:
        mountpoint, path = bench.empty("mountpoint"), Path(*name.rpartition(":")[::2])
        return {
            "ls NAME": ocistow(store, "ls", name),
            "inspect": ocistow(store, "inspect", name),
            "tag": ocistow(store, "tag", name, f"{HOST}/tagged:1"),
            "rm": ocistow(store, "rm", f"{HOST}/tagged:1"),
            "publish oci-archive:": ocistow(store, "publish", name, f"oci-archive:{archive}"),
            "mount, stat": ocistow(
                store, "mount", mountpoint, "--", "stat", mountpoint / path / "index.json"
            ),
            **whole(),
        }

    return steps


def _of_pool(bench: Bench, count: int) -> Contestant:
    """A store of few names, and many blobs that nobody mentions, which is the most that gc does."""
    store = bench.fresh(f"pool-{count}")
    name = one_of(populate(store, names=_FEW, blobs=BLOBS * _FEW))
    with Store.open(store, QuickDisk()) as opened:
        for number in range(count - BLOBS * _FEW):
            opened.blobs.add([b"%d" % number])

    def verified() -> Steps:
        if count > VERIFIED:
            return {}
        return {"verify": ocistow(store, "verify", "--restart")}

    whole = _rarely(lambda: {**_whole(store), **verified()}, count)

    def steps() -> Steps:
        return {
            "inspect": ocistow(store, "inspect", name),
            "tag": ocistow(store, "tag", name, f"{HOST}/tagged:1"),
            **whole(),
        }

    return steps


def _of_layers(bench: Bench, count: int) -> Contestant:
    image = bench.layers(count, _SMALL)

    def steps() -> Steps:
        store, archive = bench.fresh("store"), bench.fresh("archive")
        return {
            "add": add(store, image.path, "app"),
            "add, present": add(store, image.path, "app"),
            "inspect": ocistow(store, "inspect", f"{HOST}/app"),
            "tag": ocistow(store, "tag", f"{HOST}/app", f"{HOST}/tagged:1"),
            "publish oci-archive:": ocistow(
                store, "publish", f"{HOST}/app", f"oci-archive:{archive}"
            ),
        }

    return steps


def _of_size(bench: Bench, count: int) -> Contestant:
    image = bench.one_layer(count * MIB)
    name, layer = f"{HOST}/app", image.blob(image.layers[0])
    warm = max(warmth.get(), count * MIB)  # a layer fills so much of the page cache

    def steps() -> Steps:
        before = warmth.set(warm)
        try:
            return {**copied(), **stored()}
        finally:
            warmth.reset(before)

    def copied() -> Steps:
        """What the kernel and the disk take: a step in it is not ours."""
        copy = bench.fresh("copy")
        done = timed("dd", f"if={layer}", f"of={copy}", "bs=1M", "conv=fsync")
        copy.unlink()
        return {COPY: done}

    def stored() -> Steps:
        store, archive = bench.fresh("store"), bench.fresh("archive")
        found = {
            "add": add(store, image.path, "app"),
            "inspect": ocistow(store, "inspect", name),
            "tag": ocistow(store, "tag", name, f"{HOST}/tagged:1"),
            "verify": ocistow(store, "verify", "--restart"),
            "publish oci-archive:": ocistow(store, "publish", name, f"oci-archive:{archive}"),
        }
        archive.unlink()
        with mounted(store) as mount:
            shown = mount.path / _layer_of(image)
            found["mount, stat"] = _served(mount, lambda: timed("stat", shown))
            read = ("dd", f"if={shown}", "of=/dev/null", "bs=1M")
            found["mount, read"] = _served(mount, lambda: timed(*read))
        return found

    return steps


def _of_writers(bench: Bench, count: int) -> Contestant:
    """Each has an image of its own: nobody finds the layer of another."""
    images = [bench.one_layer(_WRITTEN, seed=number + 1) for number in range(count)]
    first = bench.one_layer(_SMALL)

    def steps() -> Steps:
        store = bench.fresh("store")
        add(store, first.path, "first")  # makes the store
        names = [f"{HOST}/app{number}:1" for number in range(count)]
        found = {
            "add": at_once(
                [
                    (*OCISTOW, "--store", store, "add", f"oci:{image.path}:latest", name)
                    for image, name in zip(images, names, strict=True)
                ]
            ),
            "tag": at_once(
                [(*OCISTOW, "--store", store, "tag", name, f"{name}-again") for name in names]
            ),
        }
        with mounted(bench.fresh("store")) as mount:
            directories = [mount.path / HOST / f"app{number}" / "1" for number in range(count)]
            for directory in directories:
                directory.joinpath("blobs", "sha256").mkdir(parents=True)
            writers = [
                (
                    *(*PLAIN, "write"),
                    image.blob(layer := image.layers[0]),
                    directory / "blobs" / "sha256" / layer.encoded,
                )
                for image, directory in zip(images, directories, strict=True)
            ]
            found["mount, write"] = _served(mount, lambda: at_once(writers))
        return found

    return steps


def _whole(store: Path) -> Steps:
    return {
        "ls -q": ocistow(store, "ls", "-q"),
        "du": ocistow(store, "du"),
        "gc --dry-run": ocistow(store, "gc", "--dry-run"),
    }


def _rarely(work: Callable[[], Steps], count: int) -> Callable[[], Steps]:
    """Do it only once in a large store: what looks at everything takes long, and varies little."""
    left = [work]
    return work if count <= OFTEN else lambda: left.pop()() if left else {}


def _served(mount: Mount, work: Callable[[], Sample]) -> Sample:
    """Count the processor time of the process that serves the mount, too, and its memory only."""
    before = cpu_of(mount.pid)
    sample = work()
    return replace(sample, cpu=sample.cpu + cpu_of(mount.pid) - before, peak=peak_of(mount.pid))


def _layer_of(image: GeneratedImage) -> Path:
    return Path(HOST, "app", "latest", "blobs", "sha256", image.layers[0].encoded)
