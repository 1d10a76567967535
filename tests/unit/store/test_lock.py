"""One holder at a time, among threads and processes; the kernel frees what a dead process held."""

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.oci.errors import Busy
from ocistow.store.lock import Lock

SHORT = 0.02  # seconds: long enough to ask more than once
LONG = 60.0  # seconds: only waited for in full when something is broken

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.pwrite(file, b"%d" % os.getpid(), 0)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_busy_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", SHORT)
    with another_process_holding(tmp_path / "lock") as process:
        with pytest.raises(Busy) as caught, lock.held():
            pytest.fail("two held it")
        assert str(caught.value) == f"{tmp_path}/lock: held by process {process.pid}"


def test_the_lock_is_free_when_its_holder_dies(tmp_path: Path) -> None:
    with another_process_holding(tmp_path / "lock") as process:
        process.kill()
        process.wait()
        with Lock(tmp_path / "lock", LONG).held():
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_process_waits_for_another(tmp_path: Path) -> None:
    with another_process_holding(tmp_path / "lock") as process:
        end = threading.Thread(target=process.communicate)
        end.start()
        with Lock(tmp_path / "lock", LONG).held():
            pass
        end.join()
        assert process.returncode == 0


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock").held():
        again = Lock(tmp_path / "lock", SHORT)
        with pytest.raises(Busy, match=f"held by process {os.getpid()}"), again.held():
            pytest.fail("two held it")


def test_an_unreadable_holder_is_unknown(tmp_path: Path) -> None:
    with another_process_holding(tmp_path / "lock"):
        os.truncate(tmp_path / "lock", 0)
        with pytest.raises(Busy, match="unknown"), Lock(tmp_path / "lock", 0).held():
            pytest.fail("two held it")


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", SHORT)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.held():
            held.set()
            done.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LONG)
    with pytest.raises(Busy, match="another thread"), lock.held():
        pytest.fail("two held it")
    done.set()
    thread.join()


def test_a_thread_may_take_it_twice(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", SHORT)
    other = Lock(tmp_path / "lock", SHORT)
    with lock.held():
        with lock.held():
            pass
        with pytest.raises(Busy), other.held():
            pytest.fail("the inner block freed it")
    with other.held():
        pass


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", SHORT)
    with pytest.raises(ZeroDivisionError), lock.held():
        raise ZeroDivisionError
    with Lock(tmp_path / "lock", SHORT).held():
        pass


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), Lock(tmp_path / "lock").held():
        pytest.fail("followed")
    assert victim.read_text() == "precious"


def test_who_holds_a_lock_again_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1234567\n")
    with Lock(path, SHORT).held():
        assert path.read_text() == f"{os.getpid()}\n"
    os.utime(path, ns=(0, 0))
    with Lock(path, SHORT).held():
        assert path.stat().st_mtime_ns == 0
