"""What lies in a store and what its indexes mention, looked at once and without the lock.

docs/adr/0014-collecting.md says why that is enough to remove garbage afterwards.
"""

from __future__ import annotations

import os
import stat
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ...oci.digest import HEX_LENGTHS, Digest, is_encoded
from ...oci.image_layout import BLOBS, INDEX
from ..forks import FEW, processors, spread
from ..spares import is_spare
from ..store import Store
from .catalog import Catalog, Part, key, read_document

Identity = tuple[int, int, int]  # inode, time of the last change in ns, size

_NONE: Identity = (0, 0, 0)
_STEP = 500  # directories between two words on how far it is
_TICK = 0.001  # seconds between looks at the clock of a file system

Watch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory below the layout root, as it was read.

    Attributes:
        index: of `index.json`; zeros if there is none.
        raw: what that says.
        changed: when a name in it came or went, in ns since the epoch.
        own: the blobs that have a name here, by their keys.
        has_spares: whether something waits for another name in it.
        below: the directories in it.
    """

    name: str
    index: Identity
    raw: bytes
    changed: int
    own: list[str]
    has_spares: bool
    below: list[str]

    @property
    def at(self) -> int:
        """When it or its index last changed, in ns since the epoch."""
        return max(self.changed, self.index[1])


@dataclass(frozen=True, slots=True)
class Stray:
    """A layout that has names for blobs that its index does not mention, or that are wanted.

    Attributes:
        index: as it was when it was read; what it mentions is the same as long as it is.
        is_empty: whether there is an index that mentions nothing, as some writers begin with.
    """

    name: str
    index: Identity
    is_empty: bool
    blobs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a copy of this process saw of the directories that were its part."""

    catalog: Part
    strays: list[Stray]
    spares: list[str]
    is_steady: bool


class Survey:
    """One look at a store. Not thread-safe.

    First the pool, then the layouts: whoever gives a blob a name in a layout that is not
    seen here, has changed the blob's file since it was.

    Attributes:
        began: ns since the epoch, on the clock of the store's file system: what happened
            before this has an earlier time, and what happens afterwards has not.
        catalog: of the digests; those of the pool come first.
        strays: layouts with names that may be useless.
        spares: directories where something waits for another name.
        is_steady: whether no directory can have been moved past this look.
    """

    def __init__(self, store: Store, began: int, watch: Watch = lambda _: None) -> None:
        self._store = store
        self._watch = watch
        self.began = began
        self.catalog = Catalog(store)
        self.inodes = array("Q")
        self.changes = array("q")  # ns; of the pool's file
        self.links = array("L")
        self.strays: list[Stray] = []
        self.spares: list[str] = []
        self.is_steady = True

    def take(self, wanted: Collection[Digest] = ()) -> None:
        """Look at everything; names of `wanted` blobs count as useless.

        Raises:
            InvalidContent: an index or what it reaches is malformed or absent, so that nobody
                can tell what it needs.
        """
        self._take_pool()
        chosen = {key(digest.algorithm, digest.encoded) for digest in wanted}
        waiting = deque([""])
        while waiting:
            if len(waiting) >= FEW and processors() > 1:
                self._share_out(list(waiting), chosen)
                return
            entry = read_directory(self._store, waiting.popleft())
            self._take_directory(entry, chosen)
            waiting += entry.below if entry is not None else ()

    def _share_out(self, names: Sequence[str], chosen: set[str]) -> None:
        """Look at directories and all below them, in as many processes as can run at once."""
        known = len(self.catalog.others)

        def look(mine: Sequence[str]) -> Iterator[_Seen | int]:
            self.strays, self.spares = [], []
            for count, entry in enumerate(directories(self._store, mine)):
                self._take_directory(entry, chosen)
                if not count % _STEP:
                    yield _STEP
            yield _Seen(self.catalog.part(known), self.strays, self.spares, self.is_steady)

        seen = 0
        for found in spread(names, look):
            if isinstance(found, int):
                seen += found
                self._watch(seen)
                continue
            numbers = self.catalog.merge(found.catalog)
            self.strays += [
                replace(stray, blobs=tuple(numbers[n] for n in stray.blobs))
                for stray in found.strays
            ]
            self.spares += found.spares
            self.is_steady &= found.is_steady

    def pool(self, number: int) -> Identity:
        """Return what the pool's file of a blob was; zeros if there was none."""
        if number >= len(self.inodes):
            return _NONE
        return self.inodes[number], self.changes[number], self.links[number]

    def unmentioned(self) -> list[int]:
        """Return the numbers of the pool's blobs that no index mentions."""
        return [n for n in range(len(self.inodes)) if not self.catalog.mentioned[n]]

    def _take_pool(self) -> None:
        for algorithm in HEX_LENGTHS:
            with suppress(FileNotFoundError), os.scandir(self._store.blobs.path / algorithm) as it:
                for entry in it:
                    if is_encoded(algorithm, entry.name):
                        with suppress(FileNotFoundError):  # removed since it was listed
                            self._take_blob(key(algorithm, entry.name), entry)

    def _take_blob(self, name: str, entry: os.DirEntry[str]) -> None:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and name not in self.catalog.numbers:
            self.catalog.number(name)
            self.inodes.append(status.st_ino)
            self.changes.append(status.st_ctime_ns)
            self.links.append(status.st_nlink)

    def _take_directory(self, entry: Entry | None, chosen: set[str]) -> None:
        self.is_steady &= entry is not None and entry.changed < self.began
        if entry is None:
            return
        if entry.has_spares:
            self.spares.append(entry.name)
        mentioned = set[int]()
        if entry.index != _NONE:
            mentioned = self.catalog.reach(entry.name, entry.raw)
        known = self.catalog.numbers
        stray = tuple(
            self.catalog.number(name)
            for name in entry.own
            if known.get(name) not in mentioned or name in chosen
        )
        if stray:
            is_empty = entry.index != _NONE and not mentioned
            self.strays.append(Stray(entry.name, entry.index, is_empty, stray))


def directories(store: Store, names: Iterable[str] = ("",)) -> Iterator[Entry | None]:
    """Yield every directory that is or may become a layout; None for one that is gone.

    Those at `names` below the layout root, and all below these.
    """
    waiting = list(names)
    while waiting:
        entry = read_directory(store, waiting.pop())
        yield entry
        waiting += entry.below if entry is not None else ()


def read_directory(store: Store, name: str) -> Entry | None:
    """Look at one directory below the layout root; None if it is gone."""
    top = str(store.layouts)
    path = f"{top}/{name}" if name else top
    prefix = f"{name}/" if name else ""
    below: list[str] = []
    has_index = has_blobs = has_spares = False
    try:
        changed = os.stat(path, follow_symlinks=False).st_mtime_ns
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    has_blobs |= entry.name == BLOBS
                    below.append(prefix + entry.name)
                elif entry.name == INDEX:
                    has_index = True
                else:
                    has_spares |= is_spare(entry.name)
        found, raw = _read_index(f"{path}/{INDEX}") if has_index else (_NONE, b"")
        own, half = _own(f"{path}/{BLOBS}") if has_blobs else ([], False)
    except (FileNotFoundError, NotADirectoryError):
        return None  # removed meanwhile
    if has_blobs and found != _NONE:
        below.remove(prefix + BLOBS)
    return Entry(name, found, raw, changed, own, has_spares or half, below)


def identity(path: str) -> Identity:
    """Return what a regular file is; zeros if there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return _NONE
    return _identity(status) if stat.S_ISREG(status.st_mode) else _NONE


def moment(store: Store) -> int:
    """Return a time in ns that is after all that happened to a store, and not after what will.

    The clocks of file systems tick, some every 4 ms, some every second; what happens within
    one tick has one time.
    """
    with store.blobs.clock() as look:
        first = look()
        while (now := look()) == first:
            time.sleep(_TICK)
    return now


def _own(blobs: str) -> tuple[list[str], bool]:
    """Return the keys of the blobs that a layout has, and whether there are other names of ours."""
    own: list[str] = []
    has_spares = False
    for algorithm in os.listdir(blobs):
        has_spares |= is_spare(algorithm)
        if algorithm in HEX_LENGTHS:
            with suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(f"{blobs}/{algorithm}"):
                    if is_encoded(algorithm, name):
                        own.append(key(algorithm, name))
                    else:
                        has_spares |= is_spare(name)
    return own, has_spares


def _read_index(path: str) -> tuple[Identity, bytes]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if identity(path) == _NONE:  # removed meanwhile, or a link
            return _NONE, b""
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return _NONE, b""
        return _identity(status), read_document(file)
    finally:
        os.close(file)


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_ctime_ns, status.st_size
