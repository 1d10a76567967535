"""Clients in processes of their own: one that hands over hostile memory, one that ends a hang.

A thread that waits for a page of a mount holds the interpreter's lock, so no other thread of
its process could do the latter.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from .mounts import TIMEOUT, Mount, environment

_CONNECTIONS = Path("/sys/fs/fuse/connections")  # kernel documentation, filesystems/fuse.rst
_FIRED = 3  # exit status of a watch that ended the connection
_MAP_FIXED = 0x10
_PAGE = mmap.PAGESIZE


@contextmanager
def watched(mount: Mount, *, seconds: float = 2 * TIMEOUT) -> Generator[None]:
    """End the mount's connection when the block takes too long, so that its calls return.

    Raises:
        TimeoutError: that was needed.
    """
    connection = os.minor(mount.path.stat().st_dev)
    watch = subprocess.Popen(
        _command_line("watch", str(seconds), str(connection), str(mount.pid)),
        stdin=subprocess.PIPE,
        env=environment(),
    )
    try:
        yield
    finally:
        watch.communicate(timeout=TIMEOUT)
        if watch.returncode == _FIRED:
            raise TimeoutError(f"the mount did not answer for {seconds} s")
        assert watch.returncode == 0


def call_beside(call: str, path: Path, uncached: Path, *, gap: int = 0) -> str:
    """Make a system call in a child, its path `gap` bytes before a page of a mapped file.

    Args:
        call: `mkdir`, `open` or `link`; those make a name.
        path: the name.
        uncached: the file, whose last page nobody may have read yet.
        gap: unused bytes between the path and the page.

    Returns:
        What it ended with: the name of an errno, or nothing.
    """
    done = subprocess.run(
        _command_line("beside", call, str(path), str(uncached), str(gap)),
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        env=environment(),
        check=True,
    )
    return done.stdout.strip()


def _command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ocistow.testing.clients", *arguments]


def _watch(seconds: float, connection: str, pid: int) -> int:
    """Wait for the end of stdin; when it does not come, end the connection."""
    if select.select([sys.stdin], [], [], seconds)[0]:
        return 0
    try:
        with _connections() as connections:
            (connections / connection / "abort").write_text("1")
    except OSError:
        os.kill(pid, signal.SIGKILL)  # the kernel ends it then, unless the process is stuck
    return _FIRED


@contextmanager
def _connections() -> Generator[Path]:
    """Show the kernel's control files for the block, if they are not to be seen anyway."""
    is_ours = not os.path.ismount(_CONNECTIONS)
    if is_ours:
        subprocess.run(["mount", "-t", "fusectl", "none", _CONNECTIONS], check=False)
    try:
        yield _CONNECTIONS
    finally:
        if is_ours:
            subprocess.run(["umount", _CONNECTIONS], check=False)


def _beside(call: str, path: bytes, uncached: str, gap: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    number, pointer = ctypes.c_int, ctypes.c_void_p
    libc.mmap.argtypes = [pointer, ctypes.c_size_t, number, number, number, ctypes.c_long]
    libc.mmap.restype = pointer
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    page = libc.mmap(None, 2 * _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, 0)
    file = os.open(uncached, os.O_RDONLY)
    last = (os.fstat(file).st_size - 1) // _PAGE * _PAGE
    fixed = mmap.MAP_PRIVATE | _MAP_FIXED
    assert libc.mmap(page + _PAGE, _PAGE, mmap.PROT_READ, fixed, file, last) == page + _PAGE
    text = path + b"\0"
    address = page + _PAGE - len(text) - gap
    ctypes.memmove(address, text, len(text))
    at = pointer(address)
    calls: dict[str, Callable[[], int]] = {
        "mkdir": lambda: libc.mkdir(at, number(0o755)),
        "open": lambda: libc.open(at, number(os.O_CREAT | os.O_EXCL | os.O_WRONLY), number(0o644)),
        "link": lambda: libc.link(ctypes.c_char_p(os.fsencode(uncached)), at),
    }
    if calls[call]() >= 0:
        return ""
    return errno.errorcode[ctypes.get_errno()]


def _main(command: str, *arguments: str) -> int:
    if command == "watch":
        seconds, connection, pid = arguments
        return _watch(float(seconds), connection, int(pid))
    call, path, uncached, gap = arguments
    sys.stdout.write(_beside(call, os.fsencode(path), uncached, int(gap)))
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
