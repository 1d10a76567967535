"""Bugs and hangs that are put into a real mount: it ends loudly, and clients are told."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from ocistow.testing.mounts import (
    Mount,
    command_line,
    environment,
    mount_points,
    unmount,
    wait_until,
)

pytestmark = pytest.mark.fuse

PATIENCE = 0.4  # seconds
ABORTED = (errno.ECONNABORTED, errno.ENOTCONN)

FAULTS = """
import os, sys, threading, time
import trio
from ocistow.cli.main import main
from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.health.causes import Causes

original = FileSystem.lookup
lock = trio.Lock()
is_deaf = False
wait_readable = trio.lowlevel.wait_readable

async def wait(file):
    if is_deaf and os.readlink(f"/proc/self/fd/{file}") == "/dev/fuse":
        await trio.sleep_forever()
    await wait_readable(file)

trio.lowlevel.wait_readable = wait

async def lookup(self, parent, name, thread):
    if name == b"deaf":
        global is_deaf
        is_deaf = True
    if name == b"blind":
        Causes.look = None
    if name == b"bug":
        raise KeyError("unforeseen")
    if name == b"sleeps":
        time.sleep(1000)
    if name == b"spins":
        while True:
            pass
    if name == b"forgotten":
        await trio.Event().wait()
    if name == b"locked":
        await self._view.blocking(threading.Semaphore(0).acquire)
    if name == b"twice":
        async with lock:
            await trio.Event().wait()
    if name == b"behind":
        async with lock:
            pass
    if name.startswith(b"disk"):
        async with lock:
            os.close(await self._view.blocking(os.open, os.environ["FIFO"], os.O_RDONLY))
    return await original(self, parent, name, thread)

FileSystem.lookup = lookup
sys.argv[0] = "ocistow"
main()
"""

Faulty = Callable[..., AbstractContextManager[Mount]]


@pytest.fixture
def faulty(fuse: None, tmp_path: Path) -> Faulty:
    """Mount with faults, which looking up certain names brings about."""
    os.mkfifo(tmp_path / "fifo")
    return partial(faulty_mount, tmp_path)


@contextmanager
def faulty_mount(directory: Path, *options: str, patience: float = PATIENCE) -> Generator[Mount]:
    path, store = directory / "mnt", directory / "store"
    path.mkdir()
    arguments = ("--verbose", "mount", f"--patience={patience}", *options, str(path))
    _, _, _, *words = command_line(store, *arguments)
    process = subprocess.Popen(
        [sys.executable, "-c", FAULTS, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "FIFO": str(directory / "fifo")},
    )
    mount = Mount(store, path, process)
    try:
        mount.wait_until_usable()
        yield mount
    finally:
        if mount.is_alive:
            mount.kill()
        unmount(path)
        mount.log.join()


@pytest.fixture
def clients() -> Generator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def stating(clients: ThreadPoolExecutor, path: Path) -> Future[os.stat_result]:
    return clients.submit(os.stat, path)


def exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def assert_ended(mount: Mount, reason: str) -> None:
    """Check that the mount is gone, and that one error says why and shows the state."""
    assert mount.wait() == os.EX_SOFTWARE
    assert mount.path not in mount_points()
    said = mount.log.join()
    [told] = mount.log.matching(
        r"^ERROR ocistow\.fusefs\.health\.watchdog: .*(waits|bug|does not end)"
    )
    assert reason in told
    assert sum(line.startswith("requests under way: ") for line in said) == 1
    assert any("MainThread" in line for line in said)


def test_an_exception_that_nobody_foresaw_ends_the_mount(faulty: Faulty) -> None:
    with faulty(patience=20) as mount:  # which the end takes no part of
        with pytest.raises(OSError, match=r"abort|not connected") as caught:
            os.stat(mount.path / "bug")
        assert caught.value.errno in ABORTED
        assert_ended(mount, "lookup 1 b'bug': a bug ends the mount")
        assert mount.log.matching("^KeyError: 'unforeseen'")
        assert len(mount.log.matching("^Traceback")) == 1


@pytest.mark.parametrize("fault", ["sleeps", "spins"])
def test_an_event_loop_that_does_not_turn_ends_the_mount(
    faulty: Faulty, clients: ThreadPoolExecutor, fault: str
) -> None:
    with faulty() as mount:
        first, second = (stating(clients, mount.path / name) for name in (fault, "other"))
        for waiting in (first, second):
            error = waiting.exception(60)
            assert isinstance(error, OSError)
            # Who asks only when nothing is mounted any more sees the directory below.
            assert error.errno in (*ABORTED, errno.ENOENT)
        assert_ended(mount, "the event loop did not turn")
        assert any("lookup" in line and "<string>" in line for line in mount.log.lines)


def test_requests_that_nobody_reads_end_the_mount(
    faulty: Faulty, clients: ThreadPoolExecutor, engine: str
) -> None:
    with faulty("--engine", engine) as mount:
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / "deaf")
        # some that come at once are still read
        waiting = clients.submit(lambda: [exists(mount.path / f"{n}") for n in range(100)])
        error = waiting.exception(60)
        assert isinstance(error, OSError)
        assert error.errno in ABORTED
        assert_ended(mount, "no request was read")


def test_a_watchdog_that_dies_ends_the_mount(faulty: Faulty) -> None:
    with faulty() as mount:
        exists(mount.path / "blind")
        assert mount.wait() == os.EX_SOFTWARE
        assert mount.path not in mount_points()
        mount.log.join()
        assert len(mount.log.matching("^ERROR .*nobody watches the mount any more")) == 1
        assert len(mount.log.matching("^TypeError")) == 1


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("forgotten",), "forgotten"),
        (("locked",), "locked"),
        (("twice", "behind"), "waits for nothing"),
    ],
)
def test_a_request_that_nothing_will_answer_ends_the_mount(
    faulty: Faulty, clients: ThreadPoolExecutor, names: tuple[str, ...], told: str
) -> None:
    with faulty() as mount:
        # in directories of their own, or the kernel would send one after the other
        for number, _ in enumerate(names):
            (mount.path / str(number)).mkdir()
        waiting = [
            stating(clients, mount.path / str(number) / name) for number, name in enumerate(names)
        ]
        for client in waiting:
            assert isinstance(client.exception(60), OSError)
        assert mount.wait() == os.EX_SOFTWARE
        assert mount.path not in mount_points()
        mount.log.join()
        assert mount.log.matching(f"^ERROR .*{told}.*")
        assert len(mount.log.matching("^ERROR .*was not answered")) == len(names)
        assert len(mount.log.matching("^ERROR .*ending the mount by force")) == 1


def test_a_slow_disk_is_waited_for(
    faulty: Faulty, clients: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with faulty() as mount:
        for number in range(2):
            (mount.path / str(number)).mkdir()
        waiting = [stating(clients, mount.path / str(n) / f"disk-{n}") for n in range(2)]
        slow = mount.log.wait_for("^WARNING .*waits for the disk below", count=2)
        assert all("was not answered for" in line for line in slow)
        passed = threading.Event()
        passed.wait(3 * PATIENCE)  # in which a bug would have ended it
        assert mount.is_alive
        with (tmp_path / "fifo").open("wb"):
            for client in waiting:
                assert isinstance(client.exception(60), FileNotFoundError)
        mount.log.wait_for("^INFO .*was answered", count=2)
        assert mount.stop() == 0
        assert mount.log.matching("^ERROR") == []


def test_an_end_that_does_not_come_is_forced(faulty: Faulty, clients: ThreadPoolExecutor) -> None:
    with faulty() as mount:
        client = stating(clients, mount.path / "disk")
        mount.log.wait_for("^WARNING .*waits for the disk below")
        mount.stop()
        assert isinstance(client.exception(60), OSError)
        assert_ended(mount, "the mount does not end")


def test_a_server_that_gets_no_more_memory_ends_its_mount(faulty: Faulty, engine: str) -> None:
    """By a limit of its own; of the machine's memory the kernel makes a SIGKILL."""
    with faulty("--engine", engine) as mount:
        (mount.path / "before").write_bytes(b"content")
        found = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{mount.pid}/status").read_text())
        assert found is not None
        size = int(found[1]) << 10
        resource.prlimit(mount.pid, resource.RLIMIT_AS, (size, size))
        blobs = mount.path / "image" / "blobs" / "sha256"
        with suppress(OSError):
            blobs.mkdir(parents=True)

        def write(number: int) -> None:
            for round_ in range(1000):
                (blobs / f"{number}-{round_}").write_bytes(bytes(2_000_000))

        with ThreadPoolExecutor(4) as clients:
            for client in [clients.submit(write, number) for number in range(4)]:
                error = client.exception(60)
                assert isinstance(error, OSError)
                assert error.errno in (*ABORTED, errno.ENOENT)
        assert mount.wait() == os.EX_SOFTWARE
        assert mount.path not in mount_points()
        assert (mount.layouts / "before").read_bytes() == b"content"
        mount.log.join()
        assert mount.log.matching("^ERROR "), "\n".join(mount.log.lines)


def test_time_in_which_the_process_was_stopped_does_not_count(
    faulty: Faulty, clients: ThreadPoolExecutor
) -> None:
    with faulty() as mount:
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            client = stating(clients, mount.path / "file")
            until = time.monotonic() + 3 * PATIENCE
            while (left := until - time.monotonic()) > 0:
                threading.Event().wait(left)
            assert not client.done()
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert isinstance(client.exception(60), FileNotFoundError)
        assert mount.stop() == 0
        assert mount.log.matching("^(ERROR|WARNING)") == []


def test_sigusr1_shows_the_state(
    faulty: Faulty, clients: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with faulty(patience=60) as mount:
        blobs = mount.path / "image" / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        with (mount.path / "file").open("wb") as file, (blobs / "part").open("wb") as part:
            for stream in (file, part):
                stream.write(b"secret content")
                stream.flush()
            client = stating(clients, mount.path / "disk")

            def asked() -> bool:
                os.kill(mount.pid, signal.SIGUSR1)
                return bool(mount.log.matching("open in thread"))

            wait_until(asked, "a worker thread is in open(2)")
            with (tmp_path / "fifo").open("wb"):
                assert isinstance(client.exception(60), FileNotFoundError)
        said = "\n".join(mount.log.lines)
        assert "WARNING ocistow.fusefs.health.watchdog: asked for the state of the mount" in said
        assert "lookup 1 b'disk'" in said
        assert "ordinary file" in said
        assert "part: 14 bytes, 1 open" in said
        assert "secret" not in said
        assert mount.stop() == 0
