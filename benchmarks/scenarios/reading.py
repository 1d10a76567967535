"""How fast is one large blob read through the mount, next to its file?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .bench import GIB, HOST, MIB, Bench, add
from .measure import Result, Steps, compare
from .processes import timed
from .servers import mounted


def run(bench: Bench) -> Iterator[Result]:
    image = bench.one_layer(64 * MIB if bench.quick else GIB)
    (layer,) = image.layers
    store = bench.fresh("store")
    add(store, image.path, "large")
    blob = store / "blobs" / "sha256" / layer.encoded
    with mounted(store) as mount:
        shown = mount.path / HOST / "large" / "latest" / "blobs" / "sha256" / layer.encoded

        def ours() -> Steps:
            evict(shown)
            evict(blob)
            cold = timed("dd", f"if={shown}", "of=/dev/null", "bs=1M")
            warm = timed("dd", f"if={shown}", "of=/dev/null", "bs=1M")
            evict(shown)
            below = timed("dd", f"if={shown}", "of=/dev/null", "bs=1M")
            return {"both caches cold": cold, "warm": warm, "only the mount's cold": below}

        def plain() -> Steps:
            evict(shown)
            evict(blob)
            cold = timed("dd", f"if={blob}", "of=/dev/null", "bs=1M")
            warm = timed("dd", f"if={blob}", "of=/dev/null", "bs=1M")
            again = timed("dd", f"if={blob}", "of=/dev/null", "bs=1M")
            return {"both caches cold": cold, "warm": warm, "only the mount's cold": again}

        size = f"{image.blob(layer).stat().st_size // MIB} MiB"
        contestants = {"through the mount": ours, "the file itself": plain}
        yield from compare(f"read {size}", contestants, bench.rounds)


def evict(path: Path) -> None:
    """Drop what the page cache holds of one file, and nothing else; needs no root.

    Raises:
        RuntimeError: the kernel kept it, so that nothing cold can be measured.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        if _is_cached(file):
            raise RuntimeError(f"{path} stays in the page cache")
    finally:
        os.close(file)


def _is_cached(file: int) -> bool:
    try:
        return os.preadv(file, [bytearray(1)], os.fstat(file).st_size // 2, os.RWF_NOWAIT) > 0
    except OSError:  # EAGAIN: it would have to be read.  EOPNOTSUPP: FUSE cannot tell.
        return False
