"""Taking a bad blob away and bringing it back, interrupted anywhere."""

import errno
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.repair import Repairer, open_places
from ocistow.store.disk import Disk
from ocistow.store.store import Store
from ocistow.store.verification.layouts import LayoutChecker
from ocistow.store.verification.surroundings import directories
from ocistow.store.verification.verifier import Choice, Verifier
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.forgetful import ForgetfulDisk
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

A = minimal_image("a")
NAMES = [Reference.parse(f"example.com/app:{number}") for number in range(2)]
LAYER, _, CONFIG, MANIFEST = A.blobs


@pytest.fixture
def scratch() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def spare(scratch: Path) -> Path:
    with Store.create(scratch / "spare", QuickDisk()) as store:
        A.add_to(store.blobs)
        store.put(NAMES[0], A.root)
    return scratch / "spare"


def prepare(root: Path) -> None:
    """Make a store in which a layer and a manifest are bad, and one copy of the layer is good."""
    root.mkdir()
    with Store.create(root / "store", QuickDisk()) as store:
        A.add_to(store.blobs)
        for name in NAMES:
            store.put(name, A.root)
    for digest in (LAYER, MANIFEST):
        file = root / "store" / "blobs" / "sha256" / digest.encoded
        file.chmod(0o644)
        file.write_bytes(A.blobs[digest] + b" ")


def mend(path: Path, disk: Disk, spare: Path) -> None:
    with Store.open(path, disk) as store:
        verifier = Verifier(store, Choice(jobs=1, cached=True))
        checker = LayoutChecker(store, verifier)
        for finding in verifier.run():
            for file in verifier.tally.bad.get(finding.digest or LAYER, ()):
                store.quarantine.take(finding.digest or LAYER, file, iter(()))
        for directory in directories(store):
            list(checker.check(directory))
        for digest, files in verifier.tally.bad.items():
            for file in files:
                store.quarantine.take(digest, file, (d.name for d in directories(store)))
        with open_places([str(spare)], store, Access()) as places:
            repairer = Repairer(store, checker.copies, places)
            for name in checker.incomplete:
                list(repairer.complete(name))


def wrong(store: Path) -> list[str]:
    """Return what is wrong apart from the bad blobs, which were wrong from the start."""
    known = (LAYER.encoded, MANIFEST.encoded)
    return [text for text in violations(store) if not any(name in text for name in known)]


def test_no_power_loss_loses_more(scratch: Path, spare: Path) -> None:
    prepare(scratch / "now")
    disk = ForgetfulDisk(scratch / "now")
    mend(scratch / "now" / "store", disk, spare)
    assert violations(scratch / "now" / "store") == []
    last = len(disk.calls) - 1
    for number, state in disk.states(scratch / "after"):
        assert wrong(state / "store") == [], disk.calls[number]
        if number == last:
            assert violations(state / "store") == []
        mend(state / "store", QuickDisk(), spare)
        assert violations(state / "store") == [], disk.calls[number]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_what_failed_can_be_done_again(scratch: Path, spare: Path, code: int) -> None:
    at = -1
    for at in itertools.count():
        root = scratch / str(at)
        prepare(root)
        disk = FailingDisk(at, code)
        files = open_files()
        with suppress(OSError):
            mend(root / "store", disk, spare)
        assert open_files() <= files
        assert wrong(root / "store") == []
        if disk.failed is None:
            break
        mend(root / "store", QuickDisk(), spare)
        assert violations(root / "store") == []
        shutil.rmtree(root)
    assert at > 10
