"""What real commands leave when strace fails, or kills them at, any of their system calls."""

import hashlib
import os
import queue
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import pytest

from ocistow.cli.exits import FINDINGS
from ocistow.oci.reference import Reference
from ocistow.store.spares import is_spare
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.injection import Fault, happened, injected, made, traced
from ocistow.testing.invariants import images, pool, strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image
from ocistow.testing.mounts import command_line, environment
from ocistow.testing.registry import Registry
from ocistow.testing.warm import Warm

pytestmark = pytest.mark.slow

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])
C = minimal_image("c", ["one"])
ONE, TWO = "example.com/app:1", "example.com/app:2"

CHANGES = (
    "write", "pwrite64", "writev", "copy_file_range", "sendfile", "ftruncate", "fallocate",
    "fsync", "fdatasync", "sync_file_range", "syncfs", "link", "linkat", "symlink", "symlinkat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
    "fchmod", "fchmodat", "chmod", "utimensat", "fchown", "fchownat", "fsetxattr",
)  # fmt: skip
OTHERS = ("openat", "open", "ioctl")
"""Those that look, mostly. A process that is killed there leaves what the change before left; an
unnamed file for which there is no space is in test_operations.py.
"""
STATUSES = {0, os.EX_IOERR, os.EX_TEMPFAIL}
MAX_CALLS = 500
IGNORED = {"leases", "dedupe", "quarantine"}  # directories of a store


@dataclass(frozen=True)
class Command:
    """A command, the store that it finds, and the images before and after it.

    Attributes:
        is_again: the exit status when what was to be done has been done already.
        shrinks: it removes blobs.
        finds: there is a bad blob until it has done its work, and it says so by its status.
        last: the calls that may fail once the images are as they shall be: what makes that
            survive power loss, what says so, and what tidies up.
    """

    name: str
    prepare: Callable[[Path], None]
    arguments: Sequence[str]
    before: dict[str, str]
    after: dict[str, str]
    is_again: int = 0
    shrinks: bool = False
    finds: bool = False
    last: tuple[str, ...] = ("fsync", "write")

    def __str__(self) -> str:
        return self.name


def nothing(_: Path) -> None:
    """There is no store yet."""


def with_image(path: Path) -> None:
    with Store.create(path / "store", QuickDisk()) as store:
        A.add_to(store.blobs)
        store.put(Reference.parse(ONE), A.root)
        store.layers.knows_size(0)  # makes index.sqlite


def with_images(path: Path) -> None:
    with_image(path)
    with Store.open(path / "store", QuickDisk()) as store:
        B.add_to(store.blobs)
        store.put(Reference.parse(TWO), B.root)


def with_garbage(path: Path) -> None:
    with_images(path)
    with Store.open(path / "store", QuickDisk()) as store:
        store.put(Reference.parse(ONE), B.root)
    (path / "store" / "leases").mkdir(exist_ok=True)
    (path / "store" / "leases" / "0123456789abcdef").touch()  # its owner died


def with_copies(path: Path) -> None:
    """Two layouts elsewhere have a layer of the store's, and what only they have."""
    with_image(path)
    for name in ("one", "two"):
        C.write_to(path / "elsewhere" / "layouts" / name)


def with_deduplicated(path: Path) -> None:
    with_copies(path)
    command = command_line(path / "store", "dedupe", "--mode=hardlink", str(path / "elsewhere"))
    subprocess.run(command, env=environment(), check=True, capture_output=True)


def with_rot(path: Path) -> None:
    """A layer, which the pool and a layout have by the same file, lost a bit."""
    with_image(path)
    layer = max((path / "store" / "blobs" / "sha256").iterdir(), key=is_layer)
    layer.chmod(0o644)
    layer.write_bytes(bytes([layer.read_bytes()[0] ^ 1]) + layer.read_bytes()[1:])
    layer.chmod(0o444)


def is_layer(blob: Path) -> tuple[bool, str]:
    return blob.read_bytes().startswith(b"layer"), blob.name


def named(**names: MinimalImage) -> dict[str, str]:
    return {f"example.com/app/{tag[1:]}": str(image.root.digest) for tag, image in names.items()}


BOTH = named(_1=A, _2=B)
COMMANDS = [
    Command("add the first", nothing, ["add", "oci:{source}", ONE], {}, named(_1=A)),
    Command("replace", with_images, ["add", "oci:{source}", TWO], BOTH, named(_1=A, _2=A)),
    Command("tag", with_image, ["tag", ONE, TWO], named(_1=A), named(_1=A, _2=A)),
    Command(
        "rm",
        with_images,
        ["rm", TWO],
        BOTH,
        named(_1=A),
        is_again=os.EX_NOINPUT,
        last=("fsync", "write", "unlink", "unlinkat", "rmdir", "openat"),
    ),
    Command(
        "gc", with_garbage, ["gc", "--grace=0"], named(_1=B, _2=B), named(_1=B, _2=B), shrinks=True
    ),
    Command(
        "publish", with_image, ["publish", ONE, "docker://{host}/{run}:1"], named(_1=A), named(_1=A)
    ),
    Command(
        "link", with_images, ["link", ONE, TWO, "{root}/elsewhere/layouts", "--jobs=1"], BOTH, BOTH
    ),
    Command(
        "link copies",
        with_image,
        ["link", ONE, "{root}/elsewhere/layouts", "--mode=copy"],
        named(_1=A),
        named(_1=A),
    ),
    Command(
        "dedupe",
        with_copies,
        ["dedupe", "{root}/elsewhere", "--mode=hardlink"],
        named(_1=A),
        named(_1=A),
    ),
    Command(
        "verify",
        with_rot,
        ["verify", "--jobs=1", "--repair=oci:{source}"],
        named(_1=A),
        named(_1=A),
        finds=True,
    ),
    Command(
        "undo",
        with_deduplicated,
        ["dedupe", "--undo"],
        named(_1=A),
        named(_1=A),
        is_again=os.EX_NOINPUT,
    ),
]


class Runs:
    """Runs a command again and again, each time on a store of its own."""

    def __init__(self, command: Command, directory: Path, host: str) -> None:
        self.command = command
        self._directory = directory / command.name.replace(" ", "-")
        self._host = host
        self._directory.mkdir()
        self._template = self._directory / "template"
        self._template.mkdir()
        A.write_to(self._template / "source")
        command.prepare(self._template)
        self._numbers = count()
        self.calls: dict[str, int] = {}
        self.undisturbed: dict[str, object] = {}
        self._well: set[frozenset[object]] = set()  # what was left where it went well again

    def start(self, warm: Warm) -> None:
        """Run it without a fault, and keep what it leaves."""
        root = self._new()
        arguments, output = self._arguments(root), root / "output"
        pid = warm.prepare(arguments, output)
        with traced([*CHANGES, *OTHERS], pid, root / "log"):
            warm.go()
            assert warm.wait() == (FINDINGS if self.command.finds else 0), output.read_text()
        self.calls = made(root / "log")
        assert max(self.calls.values()) < MAX_CALLS
        assert images(root / "store") == self.command.after
        self.undisturbed = snapshot(root)

    def sweep(self, warm: Warm, call: str, effect: str) -> Iterator[str]:
        """Yield what is wrong after the effect at each of the calls."""
        for at in range(1, self.calls[call] + 1):
            fault = Fault(call, effect, at)
            root = self._new()
            arguments, output = self._arguments(root), root / "output"
            pid = warm.prepare(arguments, output)
            with injected(fault, pid, root / "log"):
                warm.go()
                status = warm.wait()
            wrong = list(self._wrong(fault, status, root))
            if not happened(fault, root / "log", status):
                assert at > 1, f"there is no {call} any more"  # threads may share later ones
            wrong += self._again(warm, arguments, root)
            said = output.read_text().strip()
            yield from (
                f"{self.command}: {fault}: {one} (status {status}: {said})" for one in wrong
            )
            shutil.rmtree(root)

    def _again(self, warm: Warm, arguments: Sequence[str], root: Path) -> list[str]:
        """Run the command again, unless that went well where the same was left; say what is wrong.

        Most of the faults leave what some other has left. A registry may differ, too.
        """
        left = everything(root)
        if left in self._well:
            return []
        status = warm.run(arguments, root / "again")
        wrong = list(self._wrong_again(status, root))
        if not wrong and self.command.name != "publish":
            self._well.add(left)
        return wrong

    def _wrong(self, fault: Fault, status: int, root: Path) -> Iterator[str]:
        store, command = root / "store", self.command
        wrong = [*violations(store), *violations(root / "elsewhere")]
        bad = violations(self._template / "store") if command.finds else []
        words = tuple(re.findall("[0-9a-f]{64}", " ".join(bad)))
        yield from (one for one in wrong if not any(word in one for word in words))
        said = (root / "output").read_text()
        found = images(store)
        if found not in (command.before, command.after):
            yield f"there are {found}"
        kept = {
            blob for blob in pool(self._template / "store") if not blob.endswith(words or ("!",))
        }
        if not command.shrinks and not pool(store) >= kept:
            yield "blobs are lost"
        if status >= 0:
            ends_well = {0, FINDINGS} if command.finds else {0}
            if status not in STATUSES | ends_well or "Traceback" in said:
                yield "it ended in an undocumented way"
            if (
                status not in (0, FINDINGS)
                and len(re.findall("^ocistow: ", said, re.MULTILINE)) != 1
            ):
                yield "it does not say why"
            if status == 0 and found != command.after:
                yield "it says that it succeeded"
            committed = found == command.after != command.before or self._published(root)
            if status and committed and fault.call not in command.last:
                yield "it failed although the image was committed"
            if command.name == "publish" and status == 0 and not committed:
                yield "it published nothing"
            if "unlink" not in fault.call and (left := strays(root)):
                yield f"it left {left}"

    def _wrong_again(self, status: int, root: Path) -> Iterator[str]:
        store, said = root / "store", (root / "again").read_text()
        yield from [*violations(store), *violations(root / "elsewhere")]
        done = status == self.command.is_again
        if status not in (0, FINDINGS if self.command.finds else 0) and not done:
            yield f"again: status {status}: {said}"
        found, expected = snapshot(root), self.undisturbed
        if done and status:  # directories that became empty may be left
            found = {path: node for path, node in found.items() if node != "directory"}
            expected = {path: node for path, node in expected.items() if node != "directory"}
        for path in sorted(found.keys() ^ expected.keys()):
            yield f"again: {path} is {'there' if path in found else 'missing'}"
        for path in sorted(found.keys() & expected.keys()):
            if found[path] != expected[path]:
                yield f"again: {path} is {found[path]}, not {expected[path]}"
        if self.command.name == "gc" and (left := os.listdir(store / "leases")):
            yield f"again: the leases {left} stay"
        if self.command.name == "publish" and not self._published(root):
            yield "again: the registry does not have the image"

    def _published(self, root: Path) -> bool:
        """Tell whether the registry has the image, where the command is to bring it there."""
        if self.command.name != "publish":
            return False
        url = f"http://{self._host}/v2/run{root.name}/manifests/1"
        request = urllib.request.Request(url, headers={"Accept": A.root.media_type})
        try:
            with urllib.request.urlopen(request) as answer:
                return hashlib.sha256(answer.read()).hexdigest() == A.root.digest.encoded
        except urllib.error.HTTPError:
            return False

    def _new(self) -> Path:
        root = self._directory / str(next(self._numbers))
        subprocess.run(["cp", "-a", self._template, root], check=True)
        for journal in root.glob("store/dedupe/*"):
            journal.write_text(journal.read_text().replace(str(self._template), str(root)))
        return root

    def _arguments(self, root: Path) -> list[str]:
        words = {
            "root": root,
            "source": root / "source",
            "host": self._host,
            "run": f"run{root.name}",
        }
        return [f"--store={root / 'store'}"] + [a.format(**words) for a in self.command.arguments]


def snapshot(root: Path) -> dict[str, object]:
    """Return what a store and the layouts elsewhere hold.

    Caches, locks, journals and what a dead process left for gc are left out.
    """
    found: dict[str, object] = {}
    files: dict[int, list[str]] = {}
    for above, directories, names in os.walk(root):
        if Path(above) == root:
            continue
        directories[:] = [name for name in directories if name not in IGNORED]
        for name in directories:
            found[str(Path(above, name).relative_to(root))] = "directory"
        for name in names:
            file = Path(above, name)
            path = str(file.relative_to(root))
            if is_spare(name) or name.startswith(("index.sqlite", "index.lock")) or name == "lock":
                continue
            status = file.stat()
            shared = files.setdefault(status.st_ino, [])
            shared.append(path)
            found[path] = (
                oct(status.st_mode),
                hashlib.sha256(file.read_bytes()).hexdigest(),
                shared,
            )
    for shared in files.values():
        shared.sort()
    return found


def everything(root: Path) -> frozenset[object]:
    """Return all files below directories, caches and journals too, wherever the root lies."""
    found: list[object] = []
    files: dict[int, str] = {}
    place = os.fsencode(root)
    for above, directories, names in os.walk(root):
        directories.sort()
        at = above.removeprefix(str(root))
        found.append(at)
        for name in sorted(names) if at else ():
            file = Path(above, name)
            status = file.lstat()
            content = file.read_bytes().replace(place, b"") if file.is_file() else b""
            first = files.setdefault(status.st_ino, f"{at}/{name}")
            found.append((f"{at}/{name}", status.st_mode, first, content))
    return frozenset(found)


@pytest.fixture(scope="module")
def registry() -> Generator[str]:
    with Registry() as registry:
        yield registry.host


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_no_fault_of_any_call_breaks_a_promise(
    command: Command, scratch: Path, registry: str, warm: "queue.SimpleQueue[Warm]"
) -> None:
    runs = Runs(command, scratch, registry)

    def sweep(fault: tuple[str, str]) -> list[str]:
        process = warm.get()
        try:
            return list(runs.sweep(process, *fault))
        finally:
            warm.put(process)

    process = warm.get()
    runs.start(process)
    warm.put(process)
    faults = [
        *product(sorted(runs.calls), ["error=EIO"]),
        *product(sorted(runs.calls.keys() & {*CHANGES}), ["error=ENOSPC", "signal=SIGKILL"]),
    ]
    with ThreadPoolExecutor(warm.qsize()) as threads:
        found = list(threads.map(sweep, faults))
    assert [wrong for part in found for wrong in part] == []
