"""Leases: blobs that somebody relies on although no index mentions them yet.

A mount that tells a client "this blob is there" makes a promise: the client
will mention the blob in an index without writing it. A copy relies on the blobs that it
found, too, until the image has its name. Garbage collection keeps what is leased. A
lease ends with its owner, at the latest when it expires.

An owner has a file in `leases/` and holds flock(2) on it, which the kernel ends with the
process, in whatever container that runs. Nothing of this needs to survive power loss.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from ..oci.digest import Digest
from ..oci.document import parse_object, size, string
from ..oci.errors import Busy, InvalidContent
from .lock import take
from .reading import open_directory

T = TypeVar("T")

DURATION = 3600.0  # seconds from the promise to the index; the longest builds take minutes
COPYING = 24 * 3600.0  # seconds that a copy may take; what ends before releases its leases
TIMEOUT = 30.0  # seconds; a batch of garbage collection needs milliseconds

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class Leases:
    """The leases of a store, of all processes. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._register = _Register(path)

    def owner(self, duration: float = DURATION) -> Owner:
        """Return a new owner, whose leases last for `duration` seconds; the caller closes it."""
        return Owner(self._path, duration)

    @contextmanager
    def keeping(self, digests: Iterable[Digest]) -> Generator[None]:
        """Keep these blobs for the block, as an owner of its own.

        Whoever may only read the store gets no lease, nor does anybody while its disk is
        full: images can still be published from there.

        Raises:
            OSError: as `Owner.take`.
            Busy: likewise.
        """
        with self.owner(COPYING) as owner:
            try:
                owner.take(digests)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                log.info("no lease: %s", error)
            yield

    def while_fixed(self, action: Callable[[Held], T]) -> T:
        """Return what `action` returns for what is leased; nobody takes a lease meanwhile.

        Whoever wants one waits, so that `action` must be quick.

        Raises:
            OSError: whatever the disk says.
            Busy: other processes kept taking leases for longer than the timeout.
        """
        with self._lock:
            self._path.mkdir(exist_ok=True)
            self._register.read()  # what there is to read is read before anybody has to wait
            with _locked(self._path, fcntl.LOCK_EX):
                self._register.read()
                self._register.bury()
                return action(self._register.held())

    def held(self) -> Held:
        """Return what is leased now; needs no right but to read."""
        with self._lock:
            try:
                with _locked(self._path, fcntl.LOCK_SH):
                    self._register.read()
                    return self._register.held()
            except FileNotFoundError:
                return Held(())


@dataclass(frozen=True, slots=True)
class Holder:
    """An owner of leases, as `gc --explain` shows it.

    Attributes:
        pid: its process, as that knows itself; it may run in another container.
        host: where that is.
        program: what it calls itself.
        expires: of the blob in question, in seconds since the epoch.
    """

    pid: int
    host: str
    program: str
    expires: float


class Held:
    """What was leased at one moment."""

    def __init__(self, records: Iterable[_Record]) -> None:
        self._records = tuple(records)
        self._now = time.time()

    def __contains__(self, digest: Digest) -> bool:
        return any(r.expires.get(digest, 0.0) >= self._now for r in self._records)

    def __iter__(self) -> Iterator[Digest]:
        found = {d for r in self._records for d, until in r.expires.items() if until >= self._now}
        return iter(found)

    def holders(self, digest: Digest) -> tuple[Holder, ...]:
        """Return who keeps a blob."""
        return tuple(
            Holder(r.pid, r.host, r.program, r.expires[digest])
            for r in self._records
            if r.expires.get(digest, 0.0) >= self._now
        )


@dataclass(frozen=True, slots=True)
class _Book:
    """A file with leases of one owner."""

    file: int
    path: Path
    begun: float  # seconds since the epoch


class Owner:
    """Somebody who takes leases, until it is closed. Thread-safe.

    What a mount takes in a month would be much: it begins another book now and then, and ends
    those of which all leases expired.
    """

    def __init__(self, path: Path, duration: float) -> None:
        self._path = path
        self._duration = duration
        self._lock = threading.Lock()
        self._books: list[_Book] = []

    def take(self, digests: Iterable[Digest]) -> None:
        """Keep these blobs, from now on for the owner's duration.

        Raises:
            OSError: the disk is full, or the store may only be read.
            Busy: somebody else kept the leases for longer than the timeout.
        """
        with self._lock:
            if not self._path.is_dir():
                self._path.mkdir(exist_ok=True)
            with _locked(self._path, fcntl.LOCK_SH):
                now = time.time()
                lines = [f"{now + self._duration:.3f} {digest}\n" for digest in digests]
                _append(self._book(now).file, "".join(lines).encode())

    def close(self) -> None:
        """End all leases."""
        with self._lock:
            while self._books:
                _end(self._books.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _book(self, now: float) -> _Book:
        while self._books and self._books[0].begun + 2 * self._duration < now:
            _end(self._books.pop(0))
        last = self._books[-1] if self._books else None
        if last is None or last.begun + self._duration < now or not os.fstat(last.file).st_nlink:
            self._books.append(self._begin(now))
        return self._books[-1]

    def _begin(self, now: float) -> _Book:
        path = self._path / os.urandom(8).hex()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        book = _Book(os.open(path, flags, 0o644), path, now)
        try:
            fcntl.flock(book.file, fcntl.LOCK_EX)  # nobody judges it before: see `_locked`
            _append(book.file, _introduction())
        except BaseException:
            _end(book)
            raise
        return book


@dataclass(slots=True)
class _Record:
    """What is known of an owner's file."""

    inode: int
    is_alive: bool = True
    offset: int = 0
    pid: int = 0
    host: str = ""
    program: str = ""
    expires: dict[Digest, float] = field(default_factory=dict[Digest, float])

    def read(self, file: int) -> None:
        """Read what was appended; half a line is read when it is whole."""
        with open(file, "rb", closefd=False) as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self._note(line)

    def _note(self, line: bytes) -> None:
        with suppress(ValueError, InvalidContent):  # a stranger's file
            if line.startswith(b"{"):
                given = parse_object(line, "a lease")
                self.pid = size(given, "pid", "a lease")
                self.host, self.program = (string(given, k, "a lease") for k in ("host", "program"))
                return
            expires, _, digest = line.decode().strip().partition(" ")
            self.expires[Digest.parse(digest)] = float(expires)


class _Register:
    """The files of all owners, as far as they were read. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, _Record] = {}

    def read(self) -> None:
        """Read what is new."""
        found: dict[str, _Record] = {}
        for name, file in self._files():
            inode = os.fstat(file).st_ino
            known = self._records.get(name)
            found[name] = known if known and known.inode == inode else _Record(inode)
            found[name].read(file)
            found[name].is_alive = _is_alive(file)
        self._records = found

    def bury(self) -> None:
        """Remove the files of the dead; the caller has the leases to itself."""
        for name, file in self._files():
            if not _is_alive(file):
                with suppress(FileNotFoundError):
                    os.unlink(self._path / name)
                self._records.pop(name, None)

    def held(self) -> Held:
        return Held(record for record in self._records.values() if record.is_alive)

    def _files(self) -> Iterator[tuple[str, int]]:
        for name in os.listdir(self._path):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                file = os.open(self._path / name, flags)
            except FileNotFoundError:
                continue
            try:
                yield name, file
            finally:
                os.close(file)


@contextmanager
def _locked(path: Path, how: int) -> Generator[None]:
    """Share the leases, or have them alone: nobody takes one or begins a file meanwhile."""
    directory = open_directory(path)
    try:
        if not take(directory, how, TIMEOUT):
            raise Busy(f"{path}: another process holds the leases")
        yield
    finally:
        os.close(directory)


def _is_alive(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _append(file: int, data: bytes) -> None:
    """Append all or nothing."""
    size = os.fstat(file).st_size
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file, left) :]
    except BaseException:
        os.ftruncate(file, size)
        raise


def _end(book: _Book) -> None:
    with suppress(OSError):  # whoever collects garbage removes it, too
        book.path.unlink()
    os.close(book.file)


def _introduction() -> bytes:
    program = Path("/proc/self/comm").read_text(errors="replace").strip()
    given = {"pid": os.getpid(), "host": os.uname().nodename, "program": program}
    return json.dumps(given).encode() + b"\n"
