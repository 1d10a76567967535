"""Six clients do anything with anything; whatever happens, the mount lives and nothing lies."""

import errno
import hashlib
import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ocistow.testing.clients import watched
from ocistow.testing.descriptors import open_files
from ocistow.testing.invariants import index_violations, strays, violations
from ocistow.testing.minimal import minimal_image
from ocistow.testing.mounts import Mount, wait_until

from .conftest import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

CLIENTS = 6
SECONDS = 4.0  # of which a mount that works needs less than the operations below take
OPERATIONS = 3000  # a client
OPEN = 20  # files a client keeps

IMAGE = minimal_image("fuzz")
INDEX = json.dumps({"schemaVersion": 2, "manifests": [IMAGE.root.to_document()]}).encode()
MARKER = b'{"imageLayoutVersion": "1.0.0"}'
CONTENTS = [
    b"",
    b"a",
    random.Random(1).randbytes(70_000),
    random.Random(2).randbytes(200_000),
    *IMAGE.blobs.values(),
]
DOCUMENTS = [INDEX, MARKER, b"{}", b'{"schemaVersion":2,"manifests":[]}']
HASHED = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
ORDINARY = ["x", "y", "temporary", "index.json.new", "\udcff\udc80", "a\nb"]
NAMES = [
    *ORDINARY,
    *("blobs", "sha256", "sha512", "blake3", "index.json", "oci-layout"),
    ".ocistow-1",
    *HASHED,
]
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


class Client:
    """One who does what its dice say.

    Attributes:
        errors: how often a call ended with which errno.
    """

    def __init__(self, root: Path, seed: str, *, removes: bool) -> None:
        self.errors = Counter[str]()
        self._root = root
        self._layouts = "xyz" if removes else "xy"  # nobody writes to z: it can be removed
        self._dice = random.Random(seed)
        self._files: list[int] = []
        self._calls: Sequence[Callable[[], object]] = [
            self._make_directories,
            *(self._open, self._open, self._open_again),
            *(self._write, self._write),
            self._close,
            *(self._put, self._put),
            *(self._document, self._document),
            self._rename_ordinary,
            self._link,
            self._symlink,
            self._truncate,
            self._truncate_by_name,
            self._list,
            self._change,
            self._ask,
            *([self._rename, self._rename_directory, self._unlink, self._rmdir] if removes else []),
        ]

    def run(self) -> None:
        """Do what there is to do, and close everything."""
        end = time.monotonic() + SECONDS
        for _ in range(OPERATIONS):
            self._try(self._dice.choice(self._calls))
            while len(self._files) > OPEN:
                self._try(self._close)
            if time.monotonic() > end or self.errors.keys() & {errno.errorcode[n] for n in DEAD}:
                break
        while self._files:
            self._try(self._close)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self.errors[errno.errorcode[error.errno or 0]] += 1

    def _path(self, names: Sequence[str] = NAMES) -> Path:
        layout = self._root / self._dice.choice(self._layouts)
        match self._dice.randrange(4):
            case 0:
                above = [self._dice.choice(NAMES) for _ in range(self._dice.randrange(3))]
                return self._root.joinpath(*above, self._dice.choice(names))
            case 1:
                return layout / self._dice.choice(names)
            case _:
                algorithm = self._dice.choice(["sha256", "sha256", "sha512"])
                return layout / "blobs" / algorithm / self._dice.choice(names)

    def _file(self) -> int:
        if not self._files:
            self._open()
        return self._dice.choice(self._files)

    def _make_directories(self) -> None:
        self._dice.choice([self._path, self._directory])().mkdir(parents=True, exist_ok=True)

    def _flags(self) -> int:
        access = self._dice.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
        return access | self._dice.choice([0, os.O_TRUNC, os.O_APPEND])

    def _open(self) -> None:
        flags = self._flags() | self._dice.choice(
            [0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_PATH]
        )
        self._files.append(os.open(self._path(), flags, 0o644))

    def _open_again(self) -> None:
        """Open without a name, whatever has become of that."""
        self._files.append(os.open(f"/proc/self/fd/{self._file()}", self._flags()))

    def _write(self) -> None:
        content = self._dice.choice([*CONTENTS, *DOCUMENTS])
        os.pwrite(self._file(), content, self._dice.choice([0, 0, 0, 5, 100_000]))

    def _close(self) -> None:
        if self._files:
            os.close(self._files.pop(self._dice.randrange(len(self._files))))

    def _put(self) -> None:
        """Write a blob as one does: at its name, or beside it, or in the layout."""
        content = self._dice.choice(CONTENTS)
        blobs = self._root / self._dice.choice("xy") / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        final = blobs / hashlib.sha256(content).hexdigest()
        first = self._dice.choice([final, blobs / "temporary", blobs.parents[1] / "temporary"])
        first.write_bytes(content)
        if first != final:
            first.rename(final)

    def _document(self) -> None:
        layout = self._root / self._dice.choice("xy")
        layout.mkdir(exist_ok=True)
        name = self._dice.choice(["index.json", "oci-layout", "index.json.new"])
        (layout / name).write_bytes(self._dice.choice(DOCUMENTS))
        if name == "index.json.new":
            (layout / name).rename(layout / "index.json")

    def _directory(self) -> Path:
        layout = self._root / self._dice.choice(self._layouts)
        return layout / self._dice.choice(["blobs", "blobs/sha256", "blobs/sha512", "."])

    def _rename(self) -> None:
        self._path().rename(self._path())

    def _rename_directory(self) -> None:
        self._directory().rename(self._directory())

    def _rename_ordinary(self) -> None:
        file = self._path(ORDINARY)
        if not file.is_dir():
            file.rename(self._path())

    def _link(self) -> None:
        self._path().hardlink_to(self._path())

    def _unlink(self) -> None:
        self._path().unlink()

    def _rmdir(self) -> None:
        self._dice.choice([self._path, self._directory])().rmdir()

    def _symlink(self) -> None:
        self._path(ORDINARY).symlink_to("x")

    def _truncate(self) -> None:
        os.ftruncate(self._file(), self._dice.choice([0, 1, 10, 100_000]))

    def _truncate_by_name(self) -> None:
        os.truncate(self._path(), self._dice.choice([0, 5]))

    def _list(self) -> None:
        with os.scandir(self._path()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    entry.stat(follow_symlinks=False)

    def _change(self) -> None:
        path = self._path()
        changes: list[Callable[[], object]] = [
            lambda: path.chmod(0o600),
            lambda: os.utime(path),
            lambda: os.chown(path, 1, 1),
        ]
        self._dice.choice(changes)()

    def _ask(self) -> None:
        file = self._file()
        questions: list[Callable[[], object]] = [
            lambda: os.fsync(file),
            lambda: os.pread(file, 100_000, 0),
            lambda: os.fstat(file),
        ]
        self._dice.choice(questions)()


def is_about_a_marker(lie: str) -> bool:
    """Tell whether an index is only said to have no marker, which is left to who writes it."""
    return re.search(r": \[Errno \d+\] .*/oci-layout'$", lie) is not None


def count_open(mount: Mount) -> int:
    """Return how many files the server has open, but for directories, leases and clients."""
    spared = (mount.store / "blobs", mount.store / "leases")
    files = [Path(name) for _, name in open_files(mount.pid)]
    return sum(file.parent not in spared and not file.is_relative_to("/proc") for file in files)


@pytest.mark.parametrize("removes", [False, True], ids=["adds only", "removes too"])
def test_nothing_lies_whatever_clients_do(mount_store: Mounter, removes: bool) -> None:
    """What a client removes an index may still mention, so indexes are checked without that."""
    with mount_store() as mount, watched(mount):
        root = mount.path / "root"
        for name in "xy":
            (root / name).mkdir(parents=True)
            (root / name / "oci-layout").write_bytes(MARKER)
        (root / "file").write_bytes(bytes(200_000))
        (root / "file").unlink()
        before = count_open(mount)
        clients = [Client(root, f"{removes} {n}", removes=removes) for n in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as threads:
            for done in [threads.submit(client.run) for client in clients]:
                done.result()
        errors = sum((client.errors for client in clients), Counter[str]())
        assert mount.is_alive, mount.log.lines[-30:]
        dead = errors.keys() & {errno.errorcode[number] for number in DEAD}
        assert not dead, mount.log.lines[-30:]
        assert not mount.log.matching("Traceback|^ERROR ")
        allowed = index_violations(mount.store, sparse=True)
        if not removes:
            allowed = [lie for lie in allowed if is_about_a_marker(lie)]
        assert [lie for lie in violations(mount.store, sparse=True) if lie not in allowed] == []
        assert strays(mount.store) == []
        subprocess.run(["rm", "-rf", root], check=True)
        assert os.listdir(mount.path) == []
        wait_until(lambda: count_open(mount) <= before, f"only {before} files are open")
