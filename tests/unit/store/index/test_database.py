import contextlib
import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.index import database as index
from ocistow.store.index.database import IndexDatabase
from ocistow.testing.descriptors import open_files

A = Digest("sha256", "a" * 64)
MANY = [Digest("sha256", f"{number:064x}") for number in range(300)]  # several pages
PAGE, BLOCK = 4096, 512
PROCESSES, DATABASES = 8, 6


class Rows:
    """Rows of one table, by their digests."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database = database

    def take(self, digests: Iterable[Digest]) -> None:
        """Add rows."""
        rows = [("a", "b", str(digest), "", "", 0.0, "") for digest in digests]
        insert = "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._database.write(lambda connection: connection.executemany(insert, rows))

    def held(self) -> set[Digest]:
        """Return which there are."""
        select = "SELECT digest FROM uploads"
        return self._database.write(
            lambda connection: {Digest.parse(str(text)) for (text,) in connection.execute(select)}
        )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("used") / "index.sqlite"
    Rows(IndexDatabase(path)).take(MANY)
    content = path.read_bytes()
    assert len(content) >= 40 * BLOCK
    return content


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(directory: Path) -> None:
    with (directory / "everything").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(directory).f_bavail == 0


def root_page(content: bytes, copy: Path, table: str) -> int:
    copy.write_bytes(content)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(query, (table,)).fetchone()
    return int(page) - 1


def damaged(content: bytes, number: int, garbage: bytes) -> bytes:
    start = number * BLOCK
    return content[:start] + (garbage * BLOCK)[:BLOCK] + content[start + BLOCK :]


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"\x01", b"overwritten ", bytes(range(256))])
def test_damage_anywhere_is_repaired(used: bytes, garbage: bytes, tmp_path: Path) -> None:
    for number in range(len(used) // BLOCK):
        database = tmp_path / str(number) / "index.sqlite"
        database.parent.mkdir()
        database.write_bytes(damaged(used, number, garbage))
        rows = Rows(IndexDatabase(database))
        rows.held()
        rows.take([A])
        assert A in rows.held()


def test_damage_that_is_met_again_is_an_error(database: Path) -> None:
    """No code of ours does this; it must not go on for ever."""
    calls: list[int] = []

    def change(connection: sqlite3.Connection) -> None:
        calls.append(1)
        connection.execute("SELECT * FROM nowhere")

    with pytest.raises(OSError, match="no such table") as caught:
        IndexDatabase(database).write(change)
    assert caught.value.errno == errno.EIO
    assert len(calls) == 2  # on a new database, and on one more


def test_nothing_is_open_after_a_use(database: Path) -> None:
    """Who still has an old database open would remove the log of the one in its place."""
    insert = "INSERT INTO runs VALUES (?, 1)"
    cursors = IndexDatabase(database).write(lambda c: c.executemany(insert, [("a",), ("b",)]))
    assert not [path for _, path in open_files() if str(database) in path]
    del cursors


@pytest.mark.parametrize("table", ["", "uploads"], ids=["the header", "the table"])
def test_processes_that_find_damage_at_once_keep_each_others_rows(
    used: bytes, table: str, tmp_path: Path
) -> None:
    block = root_page(used, tmp_path / "copy", table) * PAGE // BLOCK if table else 0
    for number in range(DATABASES):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "index.sqlite").write_bytes(damaged(used, block, b"\xff"))
    code = (
        "import sys; from pathlib import Path\n"
        "from ocistow.oci.digest import Digest\n"
        "from ocistow.store.index.database import IndexDatabase\n"
        "from ocistow.store.index.uploads import Uploads\n"
        "path, digest = sys.argv[1:]\n"
        "print(flush=True); sys.stdin.read()\n"
        f"for number in range({DATABASES}):\n"
        "    database = IndexDatabase(Path(path, str(number), 'index.sqlite'))\n"
        "    Uploads(database).note('a', 'b', Digest.parse(digest), '')\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path, str(digest)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        )
        for digest in MANY[:PROCESSES]
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
    for number in range(DATABASES):
        rows = Rows(IndexDatabase(tmp_path / str(number) / "index.sqlite"))
        assert rows.held() == set(MANY[:PROCESSES])


def test_threads_that_begin_a_database_at_once_all_have_it(tmp_path: Path) -> None:
    def take(path: Path, began: threading.Barrier, number: int) -> set[Digest]:
        began.wait()
        rows = Rows(IndexDatabase(path))
        rows.take([MANY[number]])
        return rows.held()

    for number in range(40):
        path, began = tmp_path / f"{number}.sqlite", threading.Barrier(PROCESSES)
        with ThreadPoolExecutor(PROCESSES) as executor:
            found = executor.map(partial(take, path, began), range(PROCESSES))
            assert max(map(len, found)) == PROCESSES


def test_a_full_disk_is_said_to_be_full(small: Path) -> None:
    rows = Rows(IndexDatabase(small / "index.sqlite"))
    rows.take([A])
    fill(small)
    with pytest.raises(OSError, match=r"index\.sqlite") as caught:
        rows.take(MANY)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(small / "index.sqlite")
    (small / "everything").unlink()
    assert rows.held() == {A}


def test_a_disk_that_was_full_before_is_said_to_be_full(small: Path) -> None:
    fill(small)
    with pytest.raises(OSError, match=r"index\.") as caught:
        Rows(IndexDatabase(small / "index.sqlite")).take([A])
    assert caught.value.errno == errno.ENOSPC


def test_a_read_only_disk_is_said_to_be_read_only(small: Path) -> None:
    rows = Rows(IndexDatabase(small / "index.sqlite"))
    rows.take([A])
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(OSError, match=r"index\.") as caught:
        rows.take([A])
    assert caught.value.errno == errno.EROFS


def test_a_database_that_somebody_keeps_is_busy(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "TIMEOUT", 0.05)
    rows = Rows(IndexDatabase(database))
    rows.take([A])
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match=r"locked.*index\.sqlite") as caught:
        rows.held()
    assert caught.value.errno == errno.EBUSY
    holder.execute("ROLLBACK")
    holder.close()
    assert rows.held() == {A}


def test_a_repair_that_somebody_keeps_waiting_is_busy(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "TIMEOUT", 0.05)

    database.write_bytes(b"damaged" * 100)
    rows = Rows(IndexDatabase(database))
    with database.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(OSError, match=r"index\.lock") as caught:
            rows.take([A])
    assert caught.value.errno == errno.EBUSY
    assert rows.held() == set()


def test_without_a_store_it_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/index\."):
        Rows(IndexDatabase(tmp_path / "nowhere" / "index.sqlite")).held()
