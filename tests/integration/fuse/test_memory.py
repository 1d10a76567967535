"""What a mount keeps of names that the kernel has asked for: nothing when that forgets them."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.minimal import minimal_image
from ocistow.testing.mounts import Mount, run, wait_until

from .conftest import Mounter

pytestmark = pytest.mark.fuse

LOOKUPS = int(os.environ.get("OCISTOW_LOOKUPS", "20000"))
IMAGES, FILES = 200, 2500  # of which each round looks up every name once
GROWTH = 6 << 20  # bytes; what Python's allocator keeps differs from round to round


def resident(mount: Mount) -> int:
    """Return the bytes of memory that a mount's process has."""
    status = Path(f"/proc/{mount.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def inodes(mount: Mount) -> int:
    """Return how many inodes a mount knows."""
    [status] = json.loads(run(mount.store, "mount", "--status", "--json", str(mount.path)).stdout)[
        "mounts"
    ]
    return int(status["kept"]["inodes"])


def test_what_the_kernel_forgets_is_forgotten(
    mount_store: Mounter, engine: str, tmp_path: Path, forget: Callable[[Path], None]
) -> None:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        for number in range(IMAGES):
            image = minimal_image(f"{number}", ["one", f"{number}"])
            image.add_to(store.blobs)
            store.put(Reference.parse(f"e.example/app{number % 10}:{number}"), image.root)
        plain = store.layouts / "plain"
        plain.mkdir()
        for number in range(FILES):
            (plain / f"{number}").touch()
    with mount_store("--engine", engine) as mount:
        seen, most, sizes = 0, 0, list[int]()
        while seen < LOOKUPS or len(sizes) < 3:
            for above, directories, files in os.walk(mount.path):
                for name in directories + files:
                    os.lstat(f"{above}/{name}")
                    seen += 1
            most = max(most, inodes(mount))
            forget(mount.path)
            wait_until(lambda: inodes(mount) < 10, "the kernel has forgotten all names")
            sizes.append(resident(mount))
        assert most > FILES
        assert max(sizes[1:]) - sizes[0] < GROWTH, (seen, sizes)
