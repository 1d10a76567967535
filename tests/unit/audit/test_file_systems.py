"""What the numbers say against what real file systems say, and against their free space."""

import fcntl
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.audit.usage import usage
from ocistow.oci.descriptor import OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import Collector
from ocistow.store.disk import Disk
from ocistow.store.reading import open_directory
from ocistow.store.store import Store
from ocistow.testing.filesystems import KINDS
from ocistow.testing.images import GeneratedImage, image_layout

FileSystem = Callable[[str], Path]

FICLONERANGE = 0x4020940D
SIZE = 700_000  # bytes of a layer, so that metadata is little beside it
SLACK = 300_000  # bytes of metadata that a file system may keep beside files and directories


def put(store: Store, image: GeneratedImage, name: str) -> Path:
    for blob in (image.path / "blobs" / "sha256").iterdir():
        store.blobs.add([blob.read_bytes()], Digest("sha256", blob.name))
    size = image.blob(image.manifest).stat().st_size
    layout = store.put(Reference.parse(name), Descriptor(OCI_MANIFEST, image.manifest, size))
    return store.layouts / layout.name


def measured(path: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", path], stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[0])


def used(path: Path) -> int:
    subprocess.run(["sync", "-f", path], check=True)
    space = os.statvfs(path)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def copy_in_place(layout: Path, digest: Digest) -> None:
    """Give a layout a reflink, or a copy, in the place of a link."""
    blobs = layout / "blobs" / "sha256"
    directory = open_directory(blobs)
    with (blobs / digest.encoded).open("rb") as source:
        Disk().copy(source.fileno(), directory, digest.encoded)
    os.close(directory)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_reflinks_and_links_count_once(kind: str, tmp_path: Path, file_system: FileSystem) -> None:
    top = file_system(kind)
    base = image_layout(tmp_path / "base", seed=1, layer_size=SIZE, compression="none")
    app = image_layout(tmp_path / "app", seed=2, layers=1, base=base, layer_size=SIZE)
    empty = used(top)
    with Store.create(top / "store") as store:
        first, second = put(store, base, "e.x/base:1"), put(store, app, "e.x/app:1")
        put(store, image_layout(tmp_path / "gone", seed=3, layer_size=SIZE), "e.x/gone:1")
        store.find("e.x/gone:1").remove()
        linked = usage(store)
        assert linked.everything == measured(store.path)
        copy_in_place(first, base.layers[0])
        copy_in_place(second, base.layers[0])
        (store.layouts / "note").write_bytes(random.Random(0).randbytes(SIZE))
        shutil.copytree(base.path / "blobs", store.path / "kept")
        found = usage(store)
        awaited(lambda: used(top) - empty, found.everything)
        taken = (first / "blobs/sha256" / base.layers[0].encoded).stat().st_blocks * 512
        if kind == "ext4":  # copies are copies
            assert found.everything == measured(store.path)
            assert found.unlinked == taken
            assert found.total.on_disk == linked.total.on_disk + taken
        else:
            assert found.everything == measured(store.path) - 2 * taken
            assert found.unlinked == 0
            assert found.total.on_disk == linked.total.on_disk
            assert [c.exclusive for c in found.layouts] == [c.exclusive for c in linked.layouts]
        assert sum(c.amortised for c in found.layouts) == found.total.on_disk
        before = used(top)
        store.find("e.x/app:1").remove()
        Collector(store, grace=0, clock=lambda: time.time() + 3600).collect()
        expected = found.garbage + found.layouts[0].reclaimable
        awaited(lambda: before - used(top), expected)


def awaited(number: Callable[[], int], expected: int) -> None:
    """Wait until a number is about what it should be: XFS frees files when it finds time."""
    until = time.monotonic() + 60
    while abs((found := number()) - expected) >= SLACK:
        assert time.monotonic() < until, (found, expected)


def test_half_a_reflink_is_shared_by_half(tmp_path: Path, file_system: FileSystem) -> None:
    """FICLONERANGE, as tools that deduplicate blocks use it."""
    top = file_system("xfs")
    data = random.Random(1).randbytes(1 << 20)
    with Store.create(top / "store") as store:
        image = image_layout(tmp_path / "i", layer_size=SIZE)
        layout = put(store, image, "e.x/a:1")
        (layout / "whole").write_bytes(data)
        other = store.layouts / "other"
        other.write_bytes(random.Random(2).randbytes(1 << 20))
        with (layout / "whole").open("rb") as source, other.open("r+b") as file:
            os.fsync(source.fileno())
            request = struct.pack("qQQQ", source.fileno(), 1 << 19, 1 << 19, 0)
            fcntl.ioctl(file, FICLONERANGE, request)
        subprocess.run(["sync", "-f", top], check=True)
        found = usage(store)
        assert found.outside == 1 << 19
        assert found.everything == measured(store.path) - (1 << 19)


@pytest.mark.parametrize("kind", [k for k in KINDS if k in ("tmpfs", "ext4")])
def test_what_cannot_share_is_never_asked(
    kind: str, tmp_path: Path, file_system: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("asked for extents")

    monkeypatch.setattr("ocistow.audit.extents.extents", asked)
    with Store.create(file_system(kind) / "store") as store:
        put(store, image_layout(tmp_path / "i"), "e.x/a:1")
        assert usage(store).everything == measured(store.path)
