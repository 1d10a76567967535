"""What a client is about to do with a name that it looks up, or which name it opens.

FUSE_LOOKUP says only the name. The kernel then answers open(O_CREAT|O_EXCL),
mkdir(2) and link(2) with EEXIST by itself when the name was found, and `cp -a` or
`cp -al` of an image whose blobs the pool holds would fail on every one of them. The
client sleeps in its system call while it waits for us, so procfs can tell. FUSE_OPEN says
only the inode, which a blob has under the names of all layouts.

The same call looks up the directories on its path, and link(2) the file that it links, so
its path must be read as well, out of the client's memory. That may be a file that the client
mapped, even one of this mount: whoever asks must go on to answer requests meanwhile.
"""

from __future__ import annotations

import itertools
import os
import platform
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

_CALLERS = 64  # threads of which a descriptor is kept
_LINE = 200  # bytes, enough for a line of `/proc/<thread>/syscall`
_TRIES = 50  # a client that was woken to send may not be asleep yet
_MAX_PATH = 4096  # PATH_MAX
_PAGE = 4096  # bytes, or a multiple
_AT_FDCWD = -100 & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Path:
    """Which arguments of a system call are a path: an index each, no directory for the cwd."""

    text: int
    directory: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that makes a name.

    Attributes:
        made: the name.
        flags: the argument that must have O_CREAT and O_EXCL; None when it always makes a new one.
        source: of a call that gives something another name, what it is called now.
    """

    made: Path
    flags: int | None = None
    source: Path | None = None


CALLS: dict[str, dict[int, Call]] = {
    "x86_64": {
        2: Call(Path(0), flags=1),  # open
        257: Call(Path(1, 0), flags=2),  # openat
        83: Call(Path(0)),  # mkdir
        258: Call(Path(1, 0)),  # mkdirat
        86: Call(Path(1), source=Path(0)),  # link
        265: Call(Path(3, 2), source=Path(1, 0)),  # linkat
    },
    "aarch64": {
        56: Call(Path(1, 0), flags=2),  # openat
        34: Call(Path(1, 0)),  # mkdirat
        37: Call(Path(3, 2), source=Path(1, 0)),  # linkat
    },
}
OPENING: dict[str, dict[int, Path]] = {
    "x86_64": {
        2: Path(0),  # open
        85: Path(0),  # creat
        257: Path(1, 0),  # openat
        437: Path(1, 0),  # openat2
    },
    "aarch64": {
        56: Path(1, 0),  # openat
        437: Path(1, 0),  # openat2
    },
}
_CALLS = CALLS.get(platform.machine(), {})
_OPENING = OPENING.get(platform.machine(), {})
_EXCLUSIVE = os.O_CREAT | os.O_EXCL


class Callers:
    """What client threads sleep in, at one system call for each that came before.

    Not thread-safe: its owner is the event loop. Nothing here waits.
    """

    def __init__(self) -> None:
        self._files: dict[int, int] = {}  # of procfs, by thread

    def may_make(self, thread: int) -> bool:
        """Tell whether a thread sleeps in a call that could make a name, and fail if it exists."""
        return _making(self._read(thread).split()) is not None

    def close(self) -> None:
        """Let go of all threads."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _read(self, thread: int) -> bytes:
        for _ in range(_TRIES):
            try:
                file = self._files.get(thread, -1)
                if file < 0:
                    if len(self._files) >= _CALLERS:
                        self._drop(next(iter(self._files)))
                    file = self._files[thread] = _open_call(thread)
                line = os.pread(file, _LINE, 0)
            except ProcessLookupError:  # of a thread that is gone; this one has its number
                self._drop(thread)
                continue
            except OSError:
                return b""
            if not line.startswith(b"running"):
                return line
            os.sched_yield()
        return b""

    def _drop(self, thread: int) -> None:
        os.close(self._files.pop(thread))


def is_visible(thread: int) -> bool:
    """Tell whether we can see what call a thread sleeps in."""
    return bool(_system_call(thread))


def makes_new_name(thread: int, directory: bytes, name: bytes) -> bool:
    """Tell whether a thread sleeps in a call that makes `name` and fails if that exists.

    Blocks until the client's memory can be read, which may need answers of this very mount.

    `directory` is the path, below the mount, of what the name is looked up in.

    False when procfs does not say: a process of another user, or of a PID
    namespace that we do not see.
    """
    words = _system_call(thread)
    call = _making(words)
    if call is None:
        return False
    arguments = [int(word, 16) for word in words[1:7]]
    try:
        made = path_of(thread, arguments, call.made)
        if posixpath.basename(made) != name:
            return False
        if call.source is None:
            return True
        source = path_of(thread, arguments, call.source)
    except (OSError, OverflowError, ValueError):  # its memory changed, or lies where none can be
        return False
    return not is_source(source, made, directory, name)


def opened_name(thread: int, names: Sequence[bytes]) -> int | None:
    """Return which of some paths below the mount a thread is about to open; None if nobody knows.

    Blocks as `makes_new_name` does.
    """
    words = _system_call(thread)
    path = _OPENING.get(int(words[0])) if words and words[0].isdigit() else None
    if path is None:
        return None
    try:
        opened = path_of(thread, [int(word, 16) for word in words[1:7]], path)
    except (OSError, OverflowError, ValueError):
        return None
    likeness = [_alike(opened, name) for name in names]
    best = max(likeness)
    return likeness.index(best) if best and likeness.count(best) == 1 else None


def is_source(source: bytes, made: bytes, directory: bytes, name: bytes) -> bool:
    """Tell whether a lookup of `name` in `directory` is for the source of a link.

    When both paths end in the name, it is for the one that has more in common with the directory.
    """
    if posixpath.basename(source) != name:
        return False
    return _alike(posixpath.dirname(source), directory) > _alike(posixpath.dirname(made), directory)


def path_of(thread: int, arguments: Sequence[int], path: Path) -> bytes:
    """Return a path that a thread handed to the system, absolute and without dots."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        text = _text_at(memory.fileno(), arguments[path.text])
    where = b"cwd"
    if path.directory is not None:
        number = arguments[path.directory] & 0xFFFFFFFF
        where = b"cwd" if number == _AT_FDCWD else b"fd/%d" % number
    start = os.readlink(b"/proc/%d/%b" % (thread, where))  # a name, which is not followed
    return posixpath.normpath(posixpath.join(start, text))


def _text_at(memory: int, address: int) -> bytes:
    """Return the bytes up to a NUL, without touching the page after the one it is in."""
    text = b""
    while len(text) < _MAX_PATH:
        size = _PAGE - (address + len(text)) % _PAGE
        data, end, _ = os.pread(memory, size, address + len(text)).partition(b"\0")
        text += data
        if end:
            return text
    raise ValueError("no path is that long")


def _alike(path: bytes, directory: bytes) -> int:
    """Return how many elements at the end of two paths are the same."""
    pairs = zip(reversed(path.split(b"/")), reversed(directory.split(b"/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _making(words: Sequence[bytes]) -> Call | None:
    """Return the call that a line of procfs tells of, if it makes a name that must be new."""
    call = _CALLS.get(int(words[0])) if words and words[0].isdigit() else None
    if call is None or call.flags is None:
        return call
    return call if int(words[1 + call.flags], 16) & _EXCLUSIVE == _EXCLUSIVE else None


def _open_call(thread: int) -> int:
    return os.open(f"/proc/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)


def _system_call(thread: int) -> list[bytes]:
    """Return number and arguments of the call that a thread sleeps in; empty if nobody knows."""
    for _ in range(_TRIES):
        try:
            with open(_open_call(thread), "rb", buffering=0) as file:
                words = file.read(_LINE).split()
        except OSError:
            return []
        if words[:1] != [b"running"]:
            return words
        os.sched_yield()
    return []
