"""One mount for the tests that leave it usable, and a way to get others."""

import os
import subprocess
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from ocistow.fusefs.engines.choice import NAMES
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, mounted, unmount

from ..conftest import program

Mounter = Callable[..., AbstractContextManager[Mount]]
Run = Callable[..., str]


@pytest.fixture(scope="session", params=NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each of the engines that work here; what does not ask for it has the one of choice."""
    name = str(request.param)
    if name == "kernel" and os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    return name


@pytest.fixture(scope="session")
def shared_mount(
    fuse: None, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Mount]:
    """A mount that many tests use; at its end the store is checked file by file."""
    directory = tmp_path_factory.mktemp("shared")
    with mounted(directory / "store", directory / "mnt", "--engine", engine) as mount:
        yield mount
    assert violations(mount.store, sparse=True) == []


@pytest.fixture
def here(shared_mount: Mount, request: pytest.FixtureRequest) -> Path:
    """A directory on the shared mount for one test; the mount must survive the test."""
    assert shared_mount.is_alive, shared_mount.log.lines[-20:]
    name = str(request.node.name)
    path = shared_mount.path / "".join(c if c.isalnum() or c in "-_" else "." for c in name)
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def the_mount_survives(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail the test that ended the shared mount, not one of those after it."""
    yield
    if "shared_mount" in request.fixturenames:
        mount = request.getfixturevalue("shared_mount")
        assert mount.is_alive, mount.log.lines[-40:]


@pytest.fixture
def small(fuse: None, tmp_path: Path) -> Generator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", path], check=True)
    try:
        yield path
    finally:
        unmount(path)


@pytest.fixture(scope="session")
def forget() -> Callable[[Path], None]:
    """Make the kernel ask again for every name on a mount that nobody has open."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the kernel forget names")

    def forget(path: Path) -> None:
        Path("/proc/sys/vm/drop_caches").write_text("2")

    return forget


@pytest.fixture
def mount_store(fuse: None, tmp_path: Path) -> Mounter:
    """Mount the store at `tmp_path / "store"`, at `tmp_path / "mnt"`."""
    return partial(mounted, tmp_path / "store", tmp_path / "mnt")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> GeneratedImage:
    """An image of three layers on the plain disk, which no store holds at first."""
    path = tmp_path_factory.mktemp("image") / "layout"
    return image_layout(path, seed=1, layers=3, layer_size=100_000)


@pytest.fixture(scope="session")
def run_tool() -> Run:
    """Run a program, which must succeed, and return what it prints; skip if it is missing."""

    def run(*command: object, cwd: Path | None = None, stdin: bytes = b"") -> str:
        words = [program(str(command[0])), *map(str, command[1:])]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=60, cwd=cwd)
        assert done.returncode == 0, (words, done.stderr, done.stdout)
        return done.stdout.decode()

    return run
