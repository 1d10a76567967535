"""How fast are blobs read through the mount, next to their files?"""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ocistow.bench.measure import Goal, Result, Steps, compare
from ocistow.bench.processes import clocked
from ocistow.bench.servers import mounted

from .bench import GIB, HOST, MIB, Bench, add

COLD, WARM, BELOW = "both caches cold", "warm", "only the mount's cold"
OURS, PLAIN = "through the mount", "the file itself"
PAGE = 4096
_READ = MIB  # bytes a read(2), as `dd bs=1M`
_ATTEMPTS = 10  # the kernel keeps pages that another core is about to put on its lists

SEQUENTIAL: Mapping[str, Mapping[str, Goal]] = {
    "pyfuse3": {WARM: Goal(PLAIN, 0.9), BELOW: Goal(PLAIN, 0.35)},
    "kernel": dict.fromkeys((COLD, WARM, BELOW), Goal(PLAIN, 0.95)),
}
RANDOM: Mapping[str, Mapping[str, Goal]] = {
    "pyfuse3": {WARM: Goal(PLAIN, 0.9)},
    "kernel": dict.fromkeys((COLD, WARM, BELOW), Goal(PLAIN, 0.95)),
}


def run(bench: Bench) -> Iterator[Result]:
    large = bench.one_layer(64 * MIB if bench.quick else GIB)
    many = bench.layers(20 if bench.quick else 200, 2 * MIB)
    store = bench.fresh("store")
    add(store, large.path, "large")
    add(store, many.path, "many")
    names = {"large": large, "many": many}
    blobs = Path("blobs", "sha256")
    files = {n: [store / blobs / layer.encoded for layer in i.layers] for n, i in names.items()}
    for engine in bench.engines:
        with mounted(store, f"--engine={engine}") as mount:
            shown = {
                name: [mount.path / HOST / name / "latest" / blobs / file.name for file in below]
                for name, below in files.items()
            }
            for name, below in files.items():
                size = below[0].stat().st_size // MIB
                yield from compare(
                    f"read {len(below)} x {size} MiB, {engine}",
                    {
                        OURS: partial(_sequentially, shown[name], below),
                        PLAIN: partial(_sequentially, below, below),
                    },
                    bench.rounds,
                    goals=SEQUENTIAL[engine],
                )
            (one,), (file,) = shown["large"], files["large"]
            yield from compare(
                f"random reads of {PAGE} bytes, {engine}",
                {
                    OURS: partial(_randomly, one, file, quick=bench.quick),
                    PLAIN: partial(_randomly, file, file, quick=bench.quick),
                },
                bench.rounds,
                goals=RANDOM[engine],
            )


@contextmanager
def _kept(paths: Sequence[Path]) -> Generator[None]:
    """Let the kernel not forget files in the block, since their pages would go with them.

    It may forget those that nobody has open: while other processes dropped caches, a second read
    of 1 GiB made 1,000 to 3,000 requests. O_PATH is no open that a server is asked about.
    """
    with ExitStack() as held:
        for path in paths:
            held.callback(os.close, os.open(path, os.O_PATH))
        yield


def evict(files: Sequence[Path]) -> None:
    """Drop what the page cache holds of some files, and nothing else; needs no root."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _sequentially(paths: Sequence[Path], files: Sequence[Path]) -> Steps:
    """Read what lies in `files` by these names."""
    with _kept(paths), _kept(files):
        _chill(paths, files)
        cold, warm = (clocked(partial(_read, paths)) for _ in range(2))
        if paths is not files:
            evict(paths)
        return {COLD: cold, WARM: warm, BELOW: clocked(partial(_read, paths))}


def _read(paths: Sequence[Path]) -> None:
    buffer = bytearray(_READ)
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _randomly(path: Path, file: Path, *, quick: bool) -> Steps:
    few, many = (100, 1000) if quick else (1000, 20_000)
    with _kept([path, file]):
        _chill([path], [file])
        cold = clocked(partial(_pick, path, few))
        _read([path])
        warm = clocked(partial(_pick, path, many))
        if path != file:
            evict([path])
        return {COLD: cold, WARM: warm, BELOW: clocked(partial(_pick, path, many))}


def _pick(path: Path, count: int) -> None:
    dice = random.Random(count)
    pages = path.stat().st_size // PAGE
    offsets = [dice.randrange(pages) * PAGE for _ in range(count)]
    buffers = [bytearray(PAGE)]
    with path.open("rb", buffering=0) as stream:
        file = stream.fileno()
        for offset in offsets:
            os.preadv(file, buffers, offset)


def _chill(paths: Sequence[Path], files: Sequence[Path]) -> None:
    """Let no page cache hold anything.

    Raises:
        RuntimeError: the kernel kept a file, so that nothing cold can be measured.
    """
    kept: Sequence[Path] = []
    evict(paths)
    for _ in range(_ATTEMPTS):
        evict(files)
        if not (kept := [path for path in files if _is_cached(path)]):
            return
    raise RuntimeError(f"{kept[0]} stays in the page cache")


def _is_cached(path: Path) -> bool:
    with path.open("rb", buffering=0) as stream:
        file = stream.fileno()
        try:
            middle = os.fstat(file).st_size // 2
            return os.preadv(file, [bytearray(1)], middle, os.RWF_NOWAIT) > 0
        except BlockingIOError:  # it would have to be read
            return False
