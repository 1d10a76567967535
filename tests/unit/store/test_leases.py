import errno
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.index import IndexDatabase
from ocistow.store.leases import Leases, is_alive, this_process

A, B = (Digest("sha256", letter * 64) for letter in "ab")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def test_what_is_leased_is_held_until_released(database: Path) -> None:
    leases = Leases(IndexDatabase(database))
    leases.take(this_process(), [A, B])
    assert leases.held() == {A, B}
    leases.release(this_process())
    assert leases.held() == frozenset()


def test_a_lease_expires(database: Path) -> None:
    leases = Leases(IndexDatabase(database))
    leases.take(this_process(), [A], duration=-1)
    leases.take(this_process(), [B])
    assert leases.held() == {B}


def test_a_lease_ends_with_the_process_that_took_it(database: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ocistow.oci.digest import Digest\n"
        "from ocistow.store.index import IndexDatabase\n"
        "from ocistow.store.leases import Leases, this_process\n"
        "owner = this_process()\n"
        "Leases(IndexDatabase(Path(sys.argv[1]))).take(owner, [Digest('sha256', 'a' * 64)])\n"
        "print(owner, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")},
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert is_alive(owner)
        assert Leases(IndexDatabase(database)).held() == {A}
        process.kill()
        process.wait()
        assert not is_alive(owner)
        assert Leases(IndexDatabase(database)).held() == frozenset()


def test_copies_in_one_process_keep_their_blobs_apart(database: Path) -> None:
    leases = Leases(IndexDatabase(database))
    with leases.keeping([A]):
        with leases.keeping([A, B]):
            assert leases.held() == {A, B}
        assert leases.held() == {A}
    assert leases.held() == frozenset()


def test_a_store_that_may_only_be_read_gives_no_leases(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(IndexDatabase(database))

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with leases.keeping([A]):
            patch.undo()
            assert leases.held() == frozenset()


@pytest.mark.parametrize("owner", ["", "x", "boot/0/1", "boot/notanumber/1", "a/b"])
def test_a_name_of_nobody_is_not_alive(owner: str) -> None:
    assert not is_alive(owner)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"", b"SQLite format 3\0junk"])
def test_a_damaged_database_is_replaced(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    leases = Leases(IndexDatabase(database))
    leases.take(this_process(), [A])
    assert leases.held() == {A}


def test_a_database_of_another_version_is_replaced(database: Path) -> None:
    def develop(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE future (x)")
        connection.execute("PRAGMA user_version = 99")

    IndexDatabase(database).write(develop)
    leases = Leases(IndexDatabase(database))
    leases.take(this_process(), [A])
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    names = IndexDatabase(database).write(lambda connection: connection.execute(tables).fetchall())
    assert ("leases",) in names
    assert ("future",) not in names


def test_many_threads_may_start_on_an_empty_database(database: Path) -> None:
    digests = [Digest("sha256", f"{number:064x}") for number in range(16)]
    leases = Leases(IndexDatabase(database))
    threads = [
        threading.Thread(target=leases.take, args=(this_process(), [digest])) for digest in digests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leases.held() == set(digests)
