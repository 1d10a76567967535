"""What writing an image to plain layouts leaves when the power or a call of the disk fails."""

import errno
import io
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.lifecycle.images.assembly import Assembly
from ocistow.lifecycle.images.config import moment
from ocistow.lifecycle.images.image import Layer, Saved
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.oci.errors import OcistowError
from ocistow.oci.platform import Platform
from ocistow.publish.packing import pack
from ocistow.store.disk import Disk
from ocistow.store.named_disk import NamedDisk
from ocistow.testing.apps import opened
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.forgetful import ForgetfulDisk
from ocistow.testing.images import image_layout
from ocistow.testing.invariants import images, index_violations, strays

NAMES = ("app", "other:2")
PATHS = ("index.docker.io/library/app/latest", "index.docker.io/library/other/2")


class ForgetfulNamedDisk(ForgetfulDisk, NamedDisk):
    """A disk without unnamed files that remembers what power loss could leave."""

    def __init__(self, root: Path) -> None:
        NamedDisk.__init__(self)
        ForgetfulDisk.__init__(self, root)

    def create(self, directory: int, mode: int | None = 0o444) -> int:
        """Create, and note the name that the file has meanwhile."""
        file = super().create(directory, mode)
        above, spare = self._spares[file]
        self._folder(above).change(spare, self._node(file))
        return file


class FailingNamedDisk(FailingDisk, NamedDisk):
    """A disk without unnamed files, one call of which fails."""

    def __init__(self, at: int, code: int) -> None:
        NamedDisk.__init__(self)
        FailingDisk.__init__(self, at, code)


def export(root: Path, run: Path, disk: Disk, content: bytes) -> Saved:
    target = LayoutTarget(
        root / "layouts", platform=Platform.parse("linux/amd64"), disk=disk, jobs=1
    )
    with target.staging(NAMES[0]) as staging, staging.blobs.ingest() as ingest:
        layer = pack(io.BytesIO(content), ingest, "sha256").layer
        assembly = Assembly(opened(run))
        assembly.add(Layer(layer.diff_id, layer.blob), ingest, "new")
        return target.save(assembly.finish(moment(None), with_history=True), NAMES)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    image_layout(tmp_path / "run", layers=2, layer_size=10)
    return tmp_path / "run"


def prepared(root: Path, run: Path, *, again: bool) -> tuple[Path, dict[str, str]]:
    """Return a directory with the image of a first export, if this is `again`, and its names."""
    (root / "layouts").mkdir(parents=True)
    if again:
        export(root, run, QuickDisk(), b"old")
    return root, images(root)


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("make", [ForgetfulDisk, ForgetfulNamedDisk])
def test_after_a_crash_every_name_has_the_old_image_or_the_new_one(
    tmp_path: Path, run: Path, make: Callable[[Path], ForgetfulDisk], again: bool
) -> None:
    root, before = prepared(tmp_path / "now", run, again=again)
    disk = make(root)
    saved = export(root, run, disk, b"new")
    assert saved.failed == ()
    seen: set[tuple[str | None, ...]] = set()
    for number, state in disk.states(tmp_path / "after"):
        (state / "layouts").mkdir(exist_ok=True)
        assert index_violations(state) == [], disk.calls[: number + 1]
        found = images(state)
        for path in PATHS:
            assert found.get(path) in {before.get(path), str(saved.digest)}
        seen.add(tuple(found.get(path) for path in PATHS))
        shutil.rmtree(state)
    assert len(seen) == 3  # before, with one name, after


@pytest.mark.parametrize("make", [FailingDisk, FailingNamedDisk])
def test_every_failing_call_leaves_every_name_whole(
    tmp_path: Path, run: Path, make: Callable[[int, int], FailingDisk]
) -> None:
    at = -1
    for at in itertools.count():
        root, before = prepared(tmp_path / f"{at}", run, again=True)
        disk = make(at, errno.ENOSPC)
        files = open_files()
        failed = False
        try:
            failed = bool(export(root, run, disk, b"new").failed)
        except (OSError, OcistowError):
            failed = True
        assert open_files() <= files
        assert index_violations(root) == []
        assert not [stray for stray in strays(root) if disk.failed != "unlink"]
        if disk.failed is None:
            break
        after = export(root, run, QuickDisk(), b"new")
        assert images(root) == dict.fromkeys(PATHS, str(after.digest))
        assert before.keys() == set(PATHS)
        assert failed or disk.failed in {"unlink", "rmdir"}
        shutil.rmtree(root)
    assert at >= 20
