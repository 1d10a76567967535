"""What fsx and fsstress do to a file system, which Debian does not have: seeded, and bounded.

OCISTOW_STRESS=100 makes it 100 times as long, OCISTOW_SEED=1 another one.
"""

import hashlib
import json
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ocistow.testing.mounts import Mount, environment
from ocistow.testing.stress import Client, tree

pytestmark = pytest.mark.fuse

FACTOR = int(os.environ.get("OCISTOW_STRESS", "1"))
SEED = int(os.environ.get("OCISTOW_SEED", "0"))
LARGEST = 200_000  # bytes of the file that fsx works on
CLIENTS = 4
RACES = ("ESTALE", "EIO", "EBUSY", "EAGAIN")  # what no name says because of other clients


class Fsx:
    """One file, what it must contain, and every way to read and change it."""

    def __init__(self, path: Path, seed: int, *, maps: bool) -> None:
        self._dice = random.Random(seed)
        self._path = path
        self._content = bytearray()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._ways: Sequence[Callable[[], None]] = [
            self._read,
            self._read,
            self._write,
            self._write,
            self._append,
            self._cut,
            self._cut_by_name,
            self._open_again,
            self._move,
            self._sync,
            *([self._map, self._map_and_write] if maps else [self._map_privately]),
        ]

    def run(self, count: int) -> bytes:
        """Do something `count` times; return what the file must contain."""
        for _ in range(count):
            way = self._dice.choice(self._ways)
            way()
            assert os.fstat(self._file).st_size == len(self._content), way
        os.close(self._file)
        assert self._path.read_bytes() == self._content
        return bytes(self._content)

    @property
    def path(self) -> Path:
        return self._path

    def _range(self, end: int = LARGEST) -> tuple[int, int]:
        start = self._dice.randrange(end)
        return start, self._dice.randrange(start, min(end, start + 70_000)) + 1

    def _read(self) -> None:
        start, end = self._range()
        assert os.pread(self._file, end - start, start) == self._content[start:end]

    def _write(self) -> None:
        start, end = self._range()
        self._put(start, self._dice.randbytes(end - start))

    def _put(self, start: int, data: bytes) -> None:
        assert os.pwrite(self._file, data, start) == len(data)
        self._content.extend(bytes(max(0, start - len(self._content))))
        self._content[start : start + len(data)] = data

    def _append(self) -> None:
        data = self._dice.randbytes(self._dice.randrange(1, 3_000))
        other = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        assert os.write(other, data) == len(data)
        os.close(other)
        self._content += data

    def _resized(self, length: int) -> None:
        del self._content[length:]
        self._content.extend(bytes(length - len(self._content)))

    def _cut(self) -> None:
        length = self._dice.randrange(LARGEST)
        os.ftruncate(self._file, length)
        self._resized(length)

    def _cut_by_name(self) -> None:
        length = self._dice.randrange(LARGEST)
        os.truncate(self._path, length)
        self._resized(length)

    def _open_again(self) -> None:
        again = os.open(self._path, os.O_RDWR)  # while it is open, so that it has an owner
        os.close(self._file)
        self._file = again

    def _move(self) -> None:
        self._path = self._path.rename(self._path.with_name(f"moved-{self._dice.randrange(9)}"))

    def _sync(self) -> None:
        os.fsync(self._file)

    def _map_privately(self) -> None:
        if self._content:
            with mmap.mmap(self._file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as pages:
                assert pages[:] == self._content

    def _map(self) -> None:
        if self._content:
            with mmap.mmap(self._file, 0, prot=mmap.PROT_READ) as pages:
                assert pages[:] == self._content

    def _map_and_write(self) -> None:
        if self._content:
            start, end = self._range(len(self._content))
            data = self._dice.randbytes(end - start)
            with mmap.mmap(self._file, 0) as pages:
                pages[start:end] = data
                if self._dice.random() < 0.5:
                    pages.flush()
            self._content[start:end] = data


@pytest.mark.parametrize("seed", range(2))
def test_fsx_finds_what_it_wrote(here: Path, shared_mount: Mount, seed: int) -> None:
    fsx = Fsx(here / "file", SEED + seed, maps=True)
    content = fsx.run(400 * FACTOR)
    assert os.listdir(here) == [fsx.path.name]
    assert (shared_mount.layouts / here.name / fsx.path.name).read_bytes() == content


@pytest.mark.parametrize("seed", range(2))
def test_fsx_makes_a_blob(here: Path, shared_mount: Mount, seed: int) -> None:
    blobs = here / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    fsx = Fsx(blobs / "temporary", SEED + seed, maps=False)
    content = fsx.run(300 * FACTOR)
    digest = hashlib.sha256(content).hexdigest()
    fsx.path.rename(blobs / digest)
    assert (shared_mount.store / "blobs" / "sha256" / digest).read_bytes() == content


def test_clients_on_their_own_see_what_they_see_on_the_disk(
    here: Path, shared_mount: Mount, tmp_path: Path
) -> None:
    """Several at once on the mount; each answer must be what one alone gets elsewhere."""
    count = 1_000 * FACTOR
    (here / "shared").mkdir()
    clients = list[subprocess.Popen[str]]()
    for number in range(CLIENTS):
        (here / f"{number}").mkdir()
        clients.append(stress(here / f"{number}", SEED + number, count))
        clients.append(stress(here / "shared", SEED + 100 + number, count))
    said = [answers(client) for client in clients]
    for number in range(CLIENTS):
        beside = tmp_path / f"{number}"
        beside.mkdir()
        expected = Client(str(beside), SEED + number).run(count)
        for step, (on_mount, on_disk) in enumerate(zip(said[2 * number], expected, strict=True)):
            assert on_mount == on_disk, f"seed {SEED + number}, step {step}"
        assert tree(str(here / f"{number}")) == tree(str(beside))
    shared = {answer for client in said[1::2] for answer in client}
    bad = {f"{how}: {name}" for how in ("mkdir", "rename", "list") for name in RACES}
    bad.remove("list: ESTALE")  # it opens, and others may be faster twice: see docs/posix.md
    assert not shared & bad
    assert tree(str(here / "shared")) == tree(str(shared_mount.layouts / here.name / "shared"))


def stress(directory: Path, seed: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ocistow.testing.stress", str(directory), str(seed)]
    return subprocess.Popen(
        [*command, str(count)], env=environment(), stdout=subprocess.PIPE, text=True
    )


def answers(client: subprocess.Popen[str]) -> list[str]:
    said, _ = client.communicate(timeout=60 * FACTOR)
    assert client.returncode == 0
    answers: list[str] = json.loads(said)
    return answers
