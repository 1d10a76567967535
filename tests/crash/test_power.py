"""What is left on real file systems when the power fails at any moment.

The commands run on a disk that logs what it is told. Afterwards the log is played up to some
moment, with any of what was not flushed then, and the file system recovers as after a reboot.
OCISTOW_FAILURES is how many moments are tried, OCISTOW_SEED chooses others.
"""

import os
import queue
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.fusefs.engines.choice import NAMES
from ocistow.oci.reference import Reference
from ocistow.store.disk import Disk
from ocistow.store.store import Store
from ocistow.testing.filesystems import Unavailable
from ocistow.testing.invariants import garbage, images, violations
from ocistow.testing.minimal import minimal_image
from ocistow.testing.mounts import mounted
from ocistow.testing.power import Recording
from ocistow.testing.warm import Warm

pytestmark = [pytest.mark.slow, pytest.mark.fuse]

LARGE = "layer " * 60_000  # it takes several writes and many blocks
A = minimal_image("a", [LARGE, "one"])
B = minimal_image("b", ["two", "three"])
C = minimal_image("c", ["one", "four"])
ONE, TWO, THREE = "example.com/app:1", "example.com/app:2", "example.com/app:3"
SEED = int(os.environ.get("OCISTOW_SEED", "0"))
MOMENTS = int(os.environ.get("OCISTOW_FAILURES", "60"))
HARSH = "noauto_da_alloc,data=writeback"  # only a sync brings bytes to the disk before their names
KINDS = [("ext4", HARSH, MOMENTS), ("ext4", "", MOMENTS // 6), ("xfs", "", 0), ("btrfs", "", 0)]

State = dict[str, str]  # the digest of each image, by where its layout lies


@dataclass(frozen=True)
class Mark:
    """What there must be from a moment on, until the next thing begins to happen."""

    moment: int
    state: State


class Story:
    """What happens on a recorded disk, and what power failures make of it."""

    def __init__(self, directory: Path, kind: str, options: str) -> None:
        self._recording = Recording(directory, kind)
        self._options = options
        self._marks = [Mark(0, {})]

    def record(self, happenings: Callable[[Path], Iterator[None]]) -> None:
        """Let things happen; each yields once it promises that it survives."""
        with self._recording.running(self._options) as root:
            for _ in happenings(root):
                self._marks.append(Mark(self._recording.now(), state(root)))

    def failures(self, number: int, chance: random.Random) -> Iterator[tuple[str, Path, list[str]]]:
        """Yield when the power failed, what is there, and what is wrong with it.

        It fails once after each thing that happened, and at `number` moments between.
        """
        marks = [mark.moment for mark in self._marks]
        during = [m for m in self._recording.moments() if marks[0] < m < marks[-1]]
        chosen = chance.sample(during, min(len(during), number))
        for moment in sorted([*chosen, *marks]):
            last = max(n for n, mark in enumerate(marks) if mark <= moment)
            before, *rest = self._marks[last:]
            after = rest[0] if rest else before
            with self._recording.failed(moment, chance) as root:
                wrong = list(wrong_between(before.state, after.state, root))
                yield f"{moment - before.moment} bytes after step {last}", root, wrong


def state(root: Path) -> State:
    """Return the images of the store and of the layouts elsewhere."""
    return {
        f"{place}/{path}": digest
        for place in ("store", "elsewhere")
        for path, digest in images(root / place).items()
    }


def wrong_between(before: State, after: State, root: Path) -> Iterator[str]:
    """Yield what is neither as before nor as after, and whatever is not whole."""
    try:
        yield from [*violations(root / "store"), *violations(root / "elsewhere")]
        found = state(root)
    except ValueError as error:  # no JSON
        yield str(error)
        return
    for name in sorted({*before, *after, *found}):
        if found.get(name) not in (before.get(name), after.get(name)):
            yield f"{name} is {found.get(name)}, not {before.get(name)} or {after.get(name)}"


def commands(warm: Warm, scratch: Path) -> Callable[[Path], Iterator[None]]:
    sources = {"a": A, "b": B, "c": C}
    for name, image in sources.items():
        image.write_to(scratch / name)

    def happen(root: Path) -> Iterator[None]:
        def command(*arguments: object) -> None:
            output = scratch / "output"
            status = warm.run([f"--store={root / 'store'}", *map(str, arguments)], output)
            assert status == 0, output.read_text()

        elsewhere = root / "elsewhere" / "layouts"
        command("add", f"oci:{scratch / 'a'}", ONE)
        yield
        command("add", f"oci:{scratch / 'b'}", TWO)
        yield
        command("add", f"oci:{scratch / 'c'}", TWO)
        yield
        command("tag", ONE, THREE)
        yield
        command("link", ONE, TWO, elsewhere)
        yield
        command("rm", ONE)
        yield
        command("gc", "--grace=0")
        yield
        for name in ("x", "y"):
            A.write_to(elsewhere / name)
        os.sync()
        yield
        command("dedupe", root / "elsewhere", "--mode=hardlink")
        yield
        command("dedupe", "--undo")
        yield
        for engine in NAMES:
            with mounted(root / "store", scratch / "mount", f"--engine={engine}") as mount:
                A.write_to(mount.path / "example.com" / "written" / engine)
                yield
                B.write_to(mount.path / "example.com" / "written" / engine)
                yield
        command("rm", TWO)
        yield
        command("rm", THREE)
        yield
        command("gc", "--grace=0")
        yield
        command("add", f"oci:{scratch / 'b'}", TWO)
        yield

    return happen


@pytest.mark.parametrize(("kind", "options", "moments"), KINDS)
def test_whatever_was_done_survives_power_loss(
    kind: str, options: str, moments: int, scratch: Path, warm: "queue.SimpleQueue[Warm]"
) -> None:
    story, process = Story(scratch, kind, options), warm.get()
    try:
        story.record(commands(process, scratch))
        for number, (when, root, wrong) in enumerate(story.failures(moments, random.Random(SEED))):
            assert wrong == [], f"{when}, OCISTOW_SEED={SEED}"
            if number % 4 == 3 and (root / "store" / "ocistow.json").exists():
                assert refused(process, root, scratch / "output") == "", when
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        warm.put(process)


def refused(warm: Warm, root: Path, output: Path) -> str:
    """Return what the commands say that find or leave something wrong there."""
    before = state(root)
    for command in ("verify", "gc --grace=0", "ls"):
        if warm.run([f"--store={root / 'store'}", *command.split()], output):
            return output.read_text()
    return "" if state(root) == before and not garbage(root / "store") else "gc was wrong"


class Careless(Disk):
    """A disk that leaves out the sync of one type of file."""

    def __init__(self, type_: int) -> None:
        self._type = type_

    def sync(self, file: int) -> None:
        if stat.S_IFMT(os.fstat(file).st_mode) != self._type:
            super().sync(file)


@pytest.mark.parametrize("type_", [stat.S_IFREG, stat.S_IFDIR])
def test_a_store_that_leaves_out_a_sync_does_not_survive(type_: int, scratch: Path) -> None:
    def happen(root: Path) -> Iterator[None]:
        with Store.create(root / "store", Careless(type_)) as store:
            for name, image in ((ONE, A), (TWO, B), (ONE, C)):
                image.add_to(store.blobs)
                store.put(Reference.parse(name), image.root)
                yield

    story = Story(scratch, "ext4", HARSH)
    try:
        story.record(happen)
        assert any(wrong for _, _, wrong in story.failures(20, random.Random(SEED)))
    except Unavailable as reason:
        pytest.skip(str(reason))
