import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import Busy
from ocistow.store import leases as module
from ocistow.store.leases import Leases

A, B = (Digest("sha256", letter * 64) for letter in "ab")
CODE = """
import sys
from pathlib import Path
from ocistow.oci.digest import Digest
from ocistow.store.leases import Leases
owner = Leases(Path(sys.argv[1])).owner()
owner.take([Digest('sha256', 'a' * 64)])
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases"


def start(path: Path, *before: str) -> subprocess.Popen[str]:
    """Start a process that takes a lease on A and says so."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", CODE, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def test_what_is_leased_is_held_until_its_owner_ends(path: Path) -> None:
    leases = Leases(path)
    assert set(leases.held()) == set()
    with leases.owner() as owner:
        owner.take([A])
        owner.take([B])
        assert set(leases.held()) == {A, B}
        assert A in Leases(path).held()
        (holder,) = leases.held().holders(A)
        assert holder.pid == os.getpid()
    assert set(leases.held()) == set()
    assert os.listdir(path) == []


def test_a_lease_expires(path: Path) -> None:
    leases = Leases(path)
    with leases.owner(-1) as late, leases.owner() as owner:
        late.take([A])
        owner.take([B])
        assert set(leases.held()) == {B}
        assert A not in leases.held()
        assert leases.held().holders(A) == ()


@pytest.mark.parametrize("before", [(), ("unshare", "--fork", "--pid", "--kill-child")])
def test_a_lease_ends_with_the_process_that_took_it(path: Path, before: tuple[str, ...]) -> None:
    """Also when that lives in a container of its own, where its PID means another process."""
    if before and os.geteuid() != 0:
        pytest.skip("a PID namespace needs root")
    leases = Leases(path)
    with start(path, *before) as process:
        assert leases.while_fixed(lambda held: A in held)
        process.kill()
        process.wait()
    while leases.while_fixed(lambda held: A in held):
        pass  # the child of a namespace dies after its parent
    assert os.listdir(path) == []


def test_who_only_looks_sees_no_leases_of_the_dead(path: Path) -> None:
    with start(path) as process:
        assert A in Leases(path).held()
        process.kill()
        process.wait()
    assert A not in Leases(path).held()
    assert len(os.listdir(path)) == 1  # that is for garbage collection to remove


def test_copies_in_one_process_keep_their_blobs_apart(path: Path) -> None:
    leases = Leases(path)
    with leases.keeping([A]):
        with leases.keeping([A, B]):
            assert set(leases.held()) == {A, B}
        assert set(leases.held()) == {A}
    assert set(leases.held()) == set()


def test_nobody_takes_a_lease_while_others_are_looked_at(path: Path) -> None:
    leases = Leases(path)
    started = threading.Event()

    def take() -> None:
        started.set()
        with leases.owner() as owner:
            owner.take([A])
            done.append(A)

    def look(held: module.Held) -> list[Digest]:
        thread.start()
        assert started.wait(60)
        thread.join(0.02)
        return [*held, *done]

    done: list[Digest] = []
    thread = threading.Thread(target=take)
    assert leases.while_fixed(look) == []
    thread.join()
    assert done == [A]


def test_who_waits_for_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.01)
    leases = Leases(path)

    def look(_: module.Held) -> None:
        with leases.owner() as owner, pytest.raises(Busy, match="leases"):
            owner.take([A])

    leases.while_fixed(look)


def test_a_store_that_may_only_be_read_gives_no_leases(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(path)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with leases.keeping([A]):
            patch.undo()
            assert set(leases.held()) == set()


def test_what_a_full_disk_took_in_part_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(path)
    with leases.owner() as owner:
        owner.take([A])
        write = os.write

        def fill(file: int, data: memoryview) -> int:
            if len(data) > 50:
                return write(file, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fill)
            with pytest.raises(OSError, match="No space"):
                owner.take([B])
        owner.take([B])
        assert set(leases.held()) == {A, B}


def test_a_mount_of_months_keeps_no_books_of_months(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1e9
    monkeypatch.setattr("ocistow.store.leases.time.time", lambda: now)
    leases = Leases(path)
    with leases.owner() as owner:
        for number in range(100):
            now += module.DURATION / 4
            owner.take([Digest("sha256", f"{number:064x}")])
            assert 4 <= len(set(leases.held())) <= 5 or number < 4
            assert len(os.listdir(path)) <= 3


def test_leases_that_somebody_removed_are_taken_anew(path: Path) -> None:
    leases = Leases(path)
    with leases.owner() as owner:
        owner.take([A])
        for file in path.iterdir():
            file.unlink()
        owner.take([B])
        assert set(leases.held()) == {B}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"1 2\n\n{\n{}\n", b"9e99 sha256:x\n"])
def test_a_stranger_among_the_leases_is_nobody(path: Path, content: bytes) -> None:
    path.mkdir()
    (path / "stranger").write_bytes(content)
    leases = Leases(path)
    assert set(leases.held()) == set()
    assert not leases.while_fixed(lambda held: A in held)


def test_many_threads_may_be_the_first(path: Path) -> None:
    digests = [Digest("sha256", f"{number:064x}") for number in range(16)]
    owners = [Leases(path).owner() for _ in digests]
    threads = [
        threading.Thread(target=owner.take, args=([digest],))
        for owner, digest in zip(owners, digests, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Leases(path).held()) == set(digests)
    for owner in owners:
        owner.close()


@pytest.mark.parametrize(
    "line", [b'{"a": ' + b"[" * 5000, b'{"pid": Infinity}', b'{"pid": 1e999}', b"\xff", b"x x"]
)
def test_what_a_stranger_wrote_is_no_lease(path: Path, line: bytes) -> None:
    path.mkdir()
    (path / "strange").write_bytes(line + b"\n9999999999 " + str(A).encode() + b"\n")
    with (path / "strange").open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert list(Leases(path).held()) == [A]
