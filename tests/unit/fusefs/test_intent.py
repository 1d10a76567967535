import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.fusefs.intent import CALLS, is_source, makes_new_name, opened_name, path_of
from ocistow.fusefs.intent import Path as ClientPath
from ocistow.testing.mounts import wait_until

NAMES = st.sampled_from([b"a", b"b", b"c"])
DIRECTORIES = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)


def test_other_processes_calls_are_known_for_this_machine() -> None:
    assert platform.machine() in CALLS


@given(mount=DIRECTORIES, directory=DIRECTORIES, name=NAMES)
def test_a_link_to_the_same_name_elsewhere_tells_its_ends_apart(
    mount: bytes, directory: bytes, name: bytes
) -> None:
    here, there = b"/%b/%b/%b" % (mount, directory, name), b"/elsewhere/%b" % name
    assert is_source(here, there, directory, name)
    assert not is_source(there, here, directory, name)


def test_a_source_of_another_name_is_not_looked_up_as_this() -> None:
    assert not is_source(b"/mnt/d/other", b"/mnt/d/name", b"d", b"name")


def test_the_source_is_the_path_that_leads_through_more_of_the_directory() -> None:
    source, made = b"/mnt/src/blobs/sha256/0", b"/mnt/dst/blobs/sha256/0"
    assert is_source(source, made, b"src/blobs/sha256", b"0")
    assert not is_source(source, made, b"dst/blobs/sha256", b"0")


def test_a_process_that_does_not_exist_makes_nothing() -> None:
    assert not makes_new_name(0, b".", b"name")


@contextmanager
def waiting_in(code: str, directory: Path) -> Generator[int]:
    """Run Python code in a directory until it sleeps in a system call with that path."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=directory) as process:
        try:
            wait_until(lambda: sleeps_in_a_known_call(process.pid), "it sleeps in its call")
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


def sleeps_in_a_known_call(process: int) -> bool:
    words = Path(f"/proc/{process}/syscall").read_text().split()
    return words[0].isdigit() and int(words[0]) in CALLS[platform.machine()]


@pytest.mark.skipif(platform.machine() not in CALLS, reason="unknown machine")
def test_a_sleeping_thread_tells_what_it_opens(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # whoever opens one to write sleeps until somebody reads
    with waiting_in("import os; os.open('fifo', os.O_WRONLY)", tmp_path) as process:
        assert not makes_new_name(process, b".", b"fifo")  # it does not insist
        mine = os.fsencode(tmp_path.name)
        assert opened_name(process, [b"other/fifo", b"%b/fifo" % mine]) == 1
        assert opened_name(process, [b"other/fifo", b"another/fifo"]) is None
        assert opened_name(process, [b"other", b"another"]) is None


def test_a_process_that_does_not_exist_opens_nothing() -> None:
    assert opened_name(0, [b"one", b"two"]) is None


def test_the_path_is_read_relative_to_its_directory(tmp_path: Path) -> None:
    text = ctypes.create_string_buffer(b"below//./name\0rest")
    address = ctypes.addressof(text)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        path = path_of(os.getpid(), [directory, address], ClientPath(1, 0))
        assert path == bytes(tmp_path / "below" / "name")
    finally:
        os.close(directory)
    path = path_of(os.getpid(), [0xFFFFFF9C, address], ClientPath(1, 0))
    assert path == os.path.join(os.getcwdb(), b"below", b"name")
    path = path_of(os.getpid(), [address], ClientPath(0))
    assert path == os.path.join(os.getcwdb(), b"below", b"name")
