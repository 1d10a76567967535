"""The mount, held to the tests of everything that stores blobs."""

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.fusefs.engines.choice import NAMES
from ocistow.testing.blob_suite import Blobs, BlobSuite, DirectoryBlobs, Kind
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, mounted

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module", params=NAMES)
def mount(
    fuse: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Mount]:
    engine = str(request.param)
    if engine == "kernel" and os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    directory = tmp_path_factory.mktemp("mounted")
    options = ("--engine", engine, "--no-virtual-presence")
    # The suite begins with an empty store, and the pool keeps what one test has written.
    with mounted(directory / "store", directory / "mnt", *options) as mount:
        yield mount
    assert violations(directory / "store") == []


@pytest.fixture
def kind(mount: Mount) -> Kind:
    @contextmanager
    def layout(path: Path) -> Generator[Blobs]:
        blobs = mount.path / path.name / "blobs"
        blobs.mkdir(parents=True)
        yield DirectoryBlobs(blobs)
        assert sorted(os.listdir(blobs.parent)) == ["blobs"]

    return Kind("mounted", layout, OSError, errno.EIO)


@pytest.fixture
def blobs(kind: Kind, tmp_path: Path) -> Iterator[Blobs]:
    with kind.open(tmp_path) as found:
        yield found


class TestMountedBlobs(BlobSuite):
    """The suite, through the kernel."""
