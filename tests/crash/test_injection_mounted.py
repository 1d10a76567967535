"""What a mount leaves when strace fails, or kills it at, any system call that serves a writer.

The engines take turns, since what they call for a change is the same: every fault befalls one of
them. OCISTOW_FUZZ lets every fault befall all.
"""

import errno
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count, product
from pathlib import Path

import pytest

from ocistow.fusefs.engines.choice import NAMES
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.injection import Fault, happened, injected, made, traced
from ocistow.testing.invariants import strays, violations
from ocistow.testing.layout_writer import Image, Layer, write_image
from ocistow.testing.minimal import MinimalImage, minimal_image
from ocistow.testing.mounts import unmount, wait_until
from ocistow.testing.warm import Warm

pytestmark = [pytest.mark.slow, pytest.mark.fuse]

A = minimal_image("a", ["one"])
B = minimal_image("b", ["two"])
OLD, NEW = Path("example.com/app/1"), Path("example.com/app/2")
CHANGES = (
    "pwrite64", "copy_file_range", "ftruncate", "fallocate", "fsync", "fdatasync", "linkat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
    "fchmod", "symlinkat",
)  # fmt: skip
OTHERS = ("openat", "ioctl")
ENGINES = NAMES if os.geteuid() == 0 else ("pyfuse3",)
REFUSED = {errno.EIO, errno.ENOSPC}
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
MAX_CALLS = 300
TIMEOUT = 60.0  # seconds until a mount that hangs is killed


class Runs:
    """Mounts a store again and again with one engine, and writes to it."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.engine = engine
        self._directory = directory
        directory.mkdir()
        self._numbers = count()
        self._template = directory / "template"
        self._template.mkdir()
        (self._template / "mounted").mkdir()
        with Store.create(self._template / "store", QuickDisk()) as store:
            A.add_to(store.blobs)
            store.put(Reference.parse("example.com/app:1"), A.root)
            store.layers.find([A.root.digest])  # makes index.sqlite
        self.calls: dict[str, int] = {}
        self.hits: list[bool] = []  # of the faults: worker threads may share the calls otherwise

    def start(self, warm: Warm) -> None:
        """Write without a fault."""
        root = self._new()
        with (
            mounted(warm, self.engine, root, []) as pid,
            traced([*CHANGES, *OTHERS], pid, root / "log", ends=False),
        ):
            write(root / "mounted")
        self.calls = made(root / "log")
        assert max(self.calls.values()) < MAX_CALLS
        assert found(root / "store") == {NEW: str(B.root.digest)}

    def sweep(self, warm: Warm, call: str, effect: str) -> Iterator[str]:
        """Yield what is wrong after the effect at each of the calls."""
        for at in range(1, self.calls[call] + 1):
            fault = Fault(call, effect, at)
            wrong: list[str] = []
            self.hits.append(self._disturb(warm, fault, wrong))
            yield from (f"{self.engine}: {fault}: {one}" for one in wrong)

    def _disturb(self, warm: Warm, fault: Fault, wrong: list[str]) -> bool:
        """Write while the fault happens, see what that leaves, and write again."""
        root = self._new()
        error: OSError | None = None
        with mounted(warm, self.engine, root, wrong) as pid:
            with injected(fault, pid, root / "log", ends=False):
                try:
                    write(root / "mounted")
                except OSError as caught:
                    error = caught
            dead = not alive(pid)
            wrong += unlike(root / "store", error, dead=dead)
            if not dead:
                write(root / "mounted")
        if dead:
            with mounted(warm, self.engine, root, wrong):
                write(root / "mounted")
        wrong += violations(root / "store")
        if found(root / "store") != {NEW: str(B.root.digest)}:
            wrong.append(f"again: there are {found(root / 'store')}")
        hit = dead if fault.effect == "signal=SIGKILL" else happened(fault, root / "log", 0)
        if dead and fault.effect != "signal=SIGKILL":
            wrong.append(f"the mount ended: {(root / 'output').read_text()}")
        shutil.rmtree(root)
        return hit

    def _new(self) -> Path:
        root = self._directory / str(next(self._numbers))
        subprocess.run(["cp", "-a", self._template, root], check=True)
        return root


@contextmanager
def mounted(warm: Warm, engine: str, root: Path, wrong: list[str]) -> Generator[int]:
    """Mount a store for the block, in a process with the number that this yields."""
    path = root / "mounted"
    command = [f"--store={root / 'store'}", "mount", f"--engine={engine}", str(path)]
    pid = warm.prepare(command, root / "output")
    warm.go()
    wait_until(lambda: path.is_mount() or not alive(pid), "it is mounted")
    watch = threading.Timer(TIMEOUT, os.kill, [pid, signal.SIGKILL])
    watch.start()
    try:
        yield pid
    finally:
        killed = not alive(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        status = warm.wait()
        watch.cancel()
        unmount(path)
        if not killed and (status != 0 or "Traceback" in (root / "output").read_text()):
            wrong.append(f"status {status}: {(root / 'output').read_text()}")


def alive(pid: int) -> bool:
    """Tell whether a process runs, which may be another one's child."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def write(mounted: Path) -> None:
    """Write a new image as go-containerregistry does, and remove the old one."""
    layer = minimal_layer(B)
    config = json.loads(B.load(B.root))["config"]["digest"]
    image = Image(
        [Layer(layer, content=B.blobs[layer])],
        B.blobs[Digest.parse(config)],
        B.load(B.root),
    )
    write_image(mounted / NEW, image)
    with suppress(FileNotFoundError):
        (mounted / OLD / "index.json").unlink()  # not the blobs before what mentions them
    with suppress(FileNotFoundError):
        shutil.rmtree(mounted / OLD)


def minimal_layer(image: MinimalImage) -> Digest:
    return Digest.parse(json.loads(image.load(image.root))["layers"][0]["digest"])


def unlike(store: Path, error: OSError | None, *, dead: bool) -> Iterator[str]:
    """Yield what is wrong with a store after a write that the fault disturbed."""
    yield from violations(store)
    there = found(store)
    old, new = {OLD: str(A.root.digest)}, {NEW: str(B.root.digest)}
    if there not in (old, old | {NEW: ""}, old | new, new):
        yield f"there are {there}"
    if error is None and (there != new or dead):
        yield f"nobody said a word, but there are {there}"
    if error is not None and error.errno not in (DEAD | REFUSED if dead else REFUSED):
        yield f"the writer heard {error!r}"
    if not dead and (left := strays(store)):
        yield f"it left {left}"


def found(store: Path) -> dict[Path, str]:
    """Return the manifest that each index names; nothing for one that names none."""
    layouts = store / "layouts"
    entries = {
        index.parent.relative_to(layouts): json.loads(index.read_bytes())["manifests"]
        for index in layouts.rglob("index.json")
    }
    return {name: given[0]["digest"] if given else "" for name, given in entries.items()}


def test_no_fault_of_a_mount_breaks_a_promise(
    scratch: Path, warm: "queue.SimpleQueue[Warm]"
) -> None:
    all_runs = [Runs(scratch / engine, engine) for engine in ENGINES]

    def sweep(runs: Runs, fault: tuple[str, str]) -> list[str]:
        process = warm.get()
        try:
            return list(runs.sweep(process, *fault))
        finally:
            warm.put(process)

    process = warm.get()
    for runs in all_runs:
        runs.start(process)
    warm.put(process)
    work = [(runs, fault) for runs in all_runs for fault in faults_of(runs)]
    if "OCISTOW_FUZZ" not in os.environ:
        turns = itertools.cycle(all_runs)
        work = [(in_turn(turns, fault), fault) for fault in sorted({fault for _, fault in work})]
    with ThreadPoolExecutor(warm.qsize()) as threads:
        wrong = list(threads.map(sweep, (runs for runs, _ in work), (fault for _, fault in work)))
    assert [one for part in wrong for one in part] == []
    hits = [hit for runs in all_runs for hit in runs.hits]
    assert sum(hits) > 0.8 * len(hits), "faults that do not happen show nothing"


def in_turn(turns: Iterator[Runs], fault: tuple[str, str]) -> Runs:
    """Return the next whose engine makes that call."""
    return next(runs for runs in turns if fault[0] in runs.calls)


def faults_of(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield calls with what is to happen to them."""
    yield from product(sorted(runs.calls), ["error=EIO"])
    yield from product(sorted(runs.calls.keys() & {*CHANGES}), ["error=ENOSPC", "signal=SIGKILL"])
