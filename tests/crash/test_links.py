"""What linking an image to a plain layout leaves when the power or a call of the disk fails."""

import errno
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.oci.errors import OcistowError
from ocistow.oci.reference import Reference
from ocistow.publish.linking import link, places
from ocistow.store.disk import Disk
from ocistow.store.links import AUTO, Links, Way
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.forgetful import ForgetfulDisk
from ocistow.testing.invariants import images, index_violations, strays, violations
from ocistow.testing.minimal import minimal_image

NAME = Reference.parse("example.com/app:1")
PATH = "example.com/app/1"
OLD = minimal_image("old", ["one"])
NEW = minimal_image("new", ["one", "two"])


@dataclass(frozen=True)
class Case:
    """What lies at the target, and what is to lie there."""

    before: Way | None
    ways: tuple[Way, ...]
    max_links: int = 65_000

    def __str__(self) -> str:
        few = " few" if self.max_links < 10 else ""
        return f"{self.before or 'nothing'}-{'-'.join(self.ways)}{few}"


CASES = [
    Case(None, AUTO),
    Case(Way.COPY, AUTO),
    Case(Way.HARDLINK, (Way.COPY,)),
    Case(Way.SYMLINK, (Way.COPY,)),
    Case(Way.HARDLINK, (Way.SYMLINK,)),
    Case(Way.COPY, AUTO, max_links=2),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def prepare(root: Path, case: Case) -> dict[str, str]:
    """Make a store, and a layout of the older image; return the images of layouts."""
    root.mkdir()
    with Store.create(root / "store", QuickDisk()) as store:
        for image in (OLD, NEW):
            image.add_to(store.blobs)
            store.put(NAME, image.root)
            if image is OLD and case.before is not None:
                run(root, QuickDisk(), (case.before,))
    return images(root / "out") if case.before is not None else {}


def run(root: Path, disk: Disk, ways: tuple[Way, ...]) -> None:
    with Store.open(root / "store", disk) as store:
        (place,) = places([NAME.path], root / "out" / "layouts")
        link(store, store.layout(NAME.path), place, Links(store.blobs, ways), jobs=1, disk=disk)


def wrong_with(root: Path, *allowed: dict[str, str]) -> list[str]:
    (root / "out" / "layouts").mkdir(parents=True, exist_ok=True)
    wrong = [*violations(root / "store"), *index_violations(root / "out")]
    if images(root / "out") not in allowed:
        wrong.append(f"{images(root / 'out')}")
    if images(root / "store") != {PATH: str(NEW.root.digest)}:
        wrong.append("the store has changed")
    return wrong


@each_case
def test_after_a_crash_there_is_the_old_image_or_the_new_one(scratch: Path, case: Case) -> None:
    root = scratch / "now"
    before = prepare(root, case)
    disk = ForgetfulDisk(root)
    disk.max_links = case.max_links
    run(root, disk, case.ways)
    after = {PATH: str(NEW.root.digest)}
    seen: list[dict[str, str]] = []
    last = len(disk.calls) - 1
    for number, state in disk.states(scratch / "after"):
        allowed = [after] if number == last else [before, after]
        assert wrong_with(state, *allowed) == [], disk.calls[: number + 1]
        seen.append(images(state / "out"))
        shutil.rmtree(state)
    assert before in seen
    assert after in seen


@each_case
@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMLINK], ids=errno.errorcode.get
)
def test_every_failing_call_leaves_the_layout_whole(scratch: Path, case: Case, code: int) -> None:
    at = -1
    for at in itertools.count():
        root = scratch / f"{at}"
        before = prepare(root, case)
        disk = FailingDisk(at, code)
        disk.max_links = case.max_links
        files = open_files()
        after = {PATH: str(NEW.root.digest)}
        failed = failure_of(root, disk, case)
        assert open_files() <= files
        assert wrong_with(root, before if failed else after, after) == []
        assert not strays(root / "out") or disk.failed == "unlink"
        if disk.failed is None:
            break
        run(root, QuickDisk(), case.ways)
        assert wrong_with(root, after) == []
        shutil.rmtree(root)
    assert at >= 10


def failure_of(root: Path, disk: Disk, case: Case) -> Exception | None:
    try:
        run(root, disk, case.ways)
    except (OSError, OcistowError) as error:
        return error
    return None
