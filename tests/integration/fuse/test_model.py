"""A mount behaves like a model of its rules, and otherwise like a directory, whatever befalls it.

OCISTOW_FUZZ is the number of stories, of which each gets a mount of its own.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ocistow.oci.image_layout import MARKER_CONTENT
from ocistow.testing.minimal import minimal_image, minimal_index
from ocistow.testing.mounts import TIMEOUT, is_usable, unmount, wait_until
from ocistow.testing.warm import Warm

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

STORIES = int(os.environ.get("OCISTOW_FUZZ", "15"))
STEPS = 60
MEMORY = Path("/dev/shm")

A = minimal_image("a")
IMAGES = (
    A,
    minimal_image("b", ["two"]),
    minimal_index(A, minimal_image("c", ["three"])),
    minimal_image("without layers", []),
)
LAYERS = {name: b"layer " + name.encode() for name in ("one", "two", "three")}
EMPTY = b'{"schemaVersion":2,"manifests":[]}'
BAD = (b"", b"{}", b"[", b'{"schemaVersion":2,"manifests":[{}]}')
MARKERS = (MARKER_CONTENT, b'{"imageLayoutVersion": "1.0.0"}')
NAMES = st.sampled_from(["1", "2", "3"])  # tags of x
TEMPORARIES = st.sampled_from(["oci-put-blob1", "t"])
ORDINARY = st.sampled_from(["f", "g", "d", "d/f", "d/g", "d/d", "e", "e/f"])
DISCONNECTED = {errno.ENOTCONN, errno.ECONNABORTED}
GONE = {errno.ENOENT, errno.ESTALE, errno.EIO}


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Document:
    """What an index needs, and what it links besides; names of blobs."""

    needs: frozenset[str]
    reach: frozenset[str]


def documents() -> Iterator[tuple[bytes, Document]]:
    yield EMPTY, Document(frozenset(), frozenset())
    layers = frozenset(map(name_of, LAYERS.values()))
    for image in IMAGES:
        raw = json.dumps({"schemaVersion": 2, "manifests": [image.root.to_document()]}).encode()
        reach = frozenset(digest.encoded for digest in image.blobs)
        yield raw, Document(reach - layers, reach)


INDEXES = dict(documents())
MADE = tuple(INDEXES)
BLOBS = {
    name_of(content): content
    for content in (
        *(content for image in IMAGES for content in image.blobs.values()),
        b"",
        b"some",
        bytes(range(256)) * 600,
    )
}
CONTENTS = st.sampled_from(sorted(BLOBS))


@dataclass(eq=False)
class Shown:
    """A layout, as clients and the disk must have it."""

    has_blobs: bool = False
    linked: set[str] = field(default_factory=set[str])
    whiteouts: set[str] = field(default_factory=set[str])
    index: bytes | None = None
    marker: bytes | None = None
    waiting: bytes | None = None
    temporaries: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def forget(self) -> None:
        """Be as after a new start of the mount."""
        self.whiteouts.clear()
        self.temporaries.clear()
        self.waiting = None


@dataclass(eq=False)
class Writer:
    """An index that is open for writing: a generation of its own.

    Attributes:
        was_shown: it was there, so it may lose its name.
        is_settled: it was decided about, and has not changed since.
    """

    layout: Shown
    file: int
    was_shown: bool
    content: bytes = b""
    is_settled: bool = False


class Mounted(RuleBasedStateMachine):
    """One client, and other processes on the store.

    Attributes:
        kind: of engine.
        server: becomes a mount, again and again.
        command: becomes the other processes.
    """

    kind: ClassVar[str]
    server: ClassVar[Warm]
    command: ClassVar[Warm]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        top = Path(self.directory.name)
        self.store, self.mountpoint, self.output = top / "store", top / "mnt", top / "output"
        self.mountpoint.mkdir()
        self.plain = top / "plain"
        self.plain.mkdir()
        self.documents = dict(INDEXES)
        self.pool: set[str] = set()
        self.promised: set[str] = set()
        self.layouts: dict[str, Shown] = {}
        self.writers: list[Writer] = []
        self.handles: list[tuple[int, int]] = []  # of ordinary files: ours, and the directory's
        self.was_killed = False

    @initialize()
    def begin(self) -> None:
        self._mount()
        self.x.mkdir(parents=True)
        self.ordinary.mkdir()

    @property
    def x(self) -> Path:
        return self.mountpoint / "r.io" / "x"

    @property
    def ordinary(self) -> Path:
        return self.mountpoint / "ordinary"

    # The life of the mount

    def _mount(self) -> None:
        command = [f"--store={self.store}", "mount", f"--engine={self.kind}"]
        self.pid = self.server.prepare([*command, str(self.mountpoint)], self.output)
        self.server.go()
        wait_until(lambda: is_usable(self.mountpoint), "it is mounted")
        self.watch = threading.Timer(TIMEOUT, os.kill, [self.pid, signal.SIGKILL])
        self.watch.start()

    def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        status = self.server.wait()
        assert self.watch.is_alive(), "the mount did not answer"
        self.watch.cancel()
        said = self.output.read_text()
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0), said
        assert "Traceback" not in said, said
        assert "ERROR" not in said, said

    def _mount_again(self) -> None:
        for writer in self.writers:
            assert failure(os.close, writer.file) in DISCONNECTED
        for ours, theirs in self.handles:
            failure(os.close, ours)
            os.close(theirs)
        self.writers.clear()
        self.handles.clear()
        self.promised.clear()
        for layout in self.layouts.values():
            layout.forget()
        self._mount()

    @rule()
    def mount_again(self) -> None:
        self._end(signal.SIGTERM)
        assert not self.mountpoint.is_mount()
        self._mount_again()

    @rule()
    def kill(self) -> None:
        self._end(signal.SIGKILL)
        self.was_killed = True
        self._mount_again()

    # Layouts and their blobs

    @rule(name=NAMES)
    def make(self, name: str) -> None:
        (self.x / name / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        self.layouts.setdefault(name, Shown()).has_blobs = True

    @rule(name=NAMES)
    def make_bare(self, name: str) -> None:
        expected = errno.EEXIST if name in self.layouts else 0
        assert failure((self.x / name).mkdir) == expected
        self.layouts.setdefault(name, Shown())

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2))
    def remove(self, number: int) -> None:
        name = self._some(number)
        if any(writer.layout is self.layouts[name] for writer in self.writers):
            return
        shutil.rmtree(self.x / name)
        del self.layouts[name]

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), new=NAMES)
    def move(self, number: int, new: str) -> None:
        name = self._some(number)
        if new not in self.layouts:
            (self.x / name).rename(self.x / new)
            self.layouts[new] = self.layouts.pop(name)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), blob=CONTENTS, exclusive=st.booleans())
    def put(self, number: int, blob: str, exclusive: bool) -> None:
        name = self._some(number)
        layout = self.layouts[name]
        how = os.O_EXCL if exclusive else os.O_TRUNC
        error = failure(put, self._blob(name, blob), BLOBS[blob], how)
        if not layout.has_blobs:
            assert error == errno.ENOENT
        elif error == errno.EEXIST:  # as long as the kernel remembers the name
            assert exclusive
            assert blob in layout.linked
        else:
            assert error == 0
            self._arrived(layout, blob)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), blob=CONTENTS, other=CONTENTS)
    def put_what_is_something_else(self, number: int, blob: str, other: str) -> None:
        name = self._some(number)
        if other != blob and self.layouts[name].has_blobs:
            assert failure(put, self._blob(name, blob), BLOBS[other]) == errno.EIO

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), blob=CONTENTS)
    def append(self, number: int, blob: str) -> None:
        name = self._some(number)
        if self._is_visible(self.layouts[name], blob):
            assert failure(put, self._blob(name, blob), b"x", os.O_APPEND) == errno.EIO
            assert failure(os.truncate, self._blob(name, blob), 0) == errno.EPERM

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), temporary=TEMPORARIES, blob=CONTENTS)
    def stage(self, number: int, temporary: str, blob: str) -> None:
        layout = self.layouts[self._some(number)]
        if layout.has_blobs:
            assert failure(put, self._blob(self._some(number), temporary), BLOBS[blob]) == 0
            layout.temporaries[temporary] = BLOBS[blob]

    @precondition(lambda self: self.layouts)
    @rule(
        number=st.integers(0, 2),
        other=st.integers(0, 2),
        temporary=TEMPORARIES,
        honest=st.booleans(),
        blob=CONTENTS,
    )
    def name_staged(self, number: int, other: int, temporary: str, honest: bool, blob: str) -> None:
        old, new = self._some(number), self._some(other)
        source, target = self.layouts[old], self.layouts[new]
        content = source.temporaries.get(temporary)
        if content is None or not target.has_blobs:
            return
        blob = name_of(content) if honest else blob
        error = failure(os.rename, self._blob(old, temporary), self._blob(new, blob))
        if name_of(content) == blob:
            assert error == 0
            del source.temporaries[temporary]
            self._arrived(target, blob)
        else:
            assert error == errno.EIO

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), temporary=TEMPORARIES)
    def drop_staged(self, number: int, temporary: str) -> None:
        name = self._some(number)
        known = self.layouts[name].temporaries.pop(temporary, None)
        expected = errno.ENOENT if known is None else 0
        assert failure(os.unlink, self._blob(name, temporary)) == expected

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), blob=CONTENTS)
    def unlink(self, number: int, blob: str) -> None:
        name = self._some(number)
        layout = self.layouts[name]
        expected = 0 if self._is_visible(layout, blob) else errno.ENOENT
        assert failure(os.unlink, self._blob(name, blob)) == expected
        if not expected:
            layout.linked.discard(blob)
            layout.whiteouts.add(blob)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), other=st.integers(0, 2), blob=CONTENTS, wrong=CONTENTS)
    def link(self, number: int, other: int, blob: str, wrong: str) -> None:
        old, new = self._some(number), self._some(other)
        source, target = self.layouts[old], self.layouts[new]
        if not self._is_visible(source, blob) or not target.has_blobs:
            return
        if wrong != blob and not self._is_visible(target, wrong):
            paths = self._blob(old, blob), self._blob(new, wrong)
            assert failure(os.link, *paths) == errno.EIO
        error = failure(os.link, self._blob(old, blob), self._blob(new, blob))
        if error == errno.EEXIST:
            assert blob in target.linked
        else:
            assert error == 0
            target.linked.add(blob)
            target.whiteouts.discard(blob)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), blob=CONTENTS)
    def look(self, number: int, blob: str) -> None:
        name = self._some(number)
        path = self._blob(name, blob)
        if self._is_visible(self.layouts[name], blob):
            self.promised.add(blob)
            status = path.stat()
            assert status.st_size == len(BLOBS[blob])
            assert status.st_ino == (self.store / "blobs" / "sha256" / blob).stat().st_ino
            assert path.read_bytes() == BLOBS[blob]
            path.chmod(0o777)
            os.utime(path)
        else:
            assert failure(os.stat, path) == errno.ENOENT
            assert failure(os.open, path, os.O_RDONLY) == errno.ENOENT

    # Indexes and markers

    @precondition(lambda self: self.layouts)
    @rule(
        number=st.integers(0, 2),
        raw=st.sampled_from([*INDEXES, *INDEXES, *BAD]),
        renamed=st.booleans(),
    )
    def index(self, number: int, raw: bytes, renamed: bool) -> None:
        name = self._some(number)
        layout, path = self.layouts[name], self.x / name / "index.json"
        if layout.waiting is not None and raw not in self.documents and not renamed:
            path.unlink()  # or it would be the same generation, and bad
            layout.waiting = None
        if renamed:
            beside = path.with_name("index.json.new")
            beside.write_bytes(raw)
            error = failure(os.rename, beside, path)
            beside.unlink(missing_ok=True)
        else:
            error = failure(put, path, raw)
        assert error == self._indexed(layout, raw)

    @precondition(lambda self: self.layouts and len(self.writers) < 4)
    @rule(number=st.integers(0, 2))
    def begin_index(self, number: int) -> None:
        name = self._some(number)
        layout = self.layouts[name]
        if layout.waiting is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            file = os.open(self.x / name / "index.json", flags, 0o644)
            self.writers.append(Writer(layout, file, layout.index is not None))

    @precondition(lambda self: self.writers)
    @rule(number=st.integers(0, 3), raw=st.sampled_from([*INDEXES, *BAD]))
    def write_index(self, number: int, raw: bytes) -> None:
        writer = self.writers[number % len(self.writers)]
        os.ftruncate(writer.file, 0)
        os.pwrite(writer.file, raw, 0)
        writer.content, writer.is_settled = raw, False

    @precondition(lambda self: self.writers)
    @rule(number=st.integers(0, 3))
    def sync_index(self, number: int) -> None:
        writer = self.writers[number % len(self.writers)]
        document = self.documents.get(writer.content)
        if document is None or document.needs <= self.pool | writer.layout.linked:
            self._settle(writer, failure(os.fsync, writer.file))

    @precondition(lambda self: self.writers)
    @rule(number=st.integers(0, 3))
    def end_index(self, number: int) -> None:
        writer = self.writers.pop(number % len(self.writers))
        self._settle(writer, failure(os.close, writer.file))

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), first=st.sampled_from(MADE), last=st.sampled_from(MADE))
    def write_two_indexes_at_once(self, number: int, first: bytes, last: bytes) -> None:
        before = len(self.writers)
        for _ in range(2):
            self.begin_index(number)
        for raw in (first, last)[: len(self.writers) - before]:
            self.write_index(len(self.writers) - 1, raw)
            self.end_index(len(self.writers) - 1)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2))
    def unlink_index(self, number: int) -> None:
        name = self._some(number)
        layout = self.layouts[name]
        is_there = layout.waiting is not None or layout.index is not None
        error = failure(os.unlink, self.x / name / "index.json")
        assert error == (0 if is_there else errno.ENOENT)
        if layout.waiting is not None:
            layout.waiting = None
        else:
            layout.index = None

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), raw=st.sampled_from([*MARKERS, *BAD]))
    def mark(self, number: int, raw: bytes) -> None:
        name = self._some(number)
        expected = 0 if raw in MARKERS else errno.EIO
        assert failure(put, self.x / name / "oci-layout", raw) == expected
        if not expected:
            self.layouts[name].marker = raw

    # Other processes

    @rule()
    def collect(self) -> None:
        before = {
            (name, blob)
            for name, layout in self.layouts.items()
            for blob in BLOBS
            if self._is_visible(layout, blob)
        }
        self._run("gc", "--grace=0")
        mentioned = {
            layout: self.documents[layout.index].reach if layout.index else frozenset[str]()
            for layout in self.layouts.values()
        }
        kept = set(os.listdir(self.store / "blobs" / "sha256")) if self.pool else set[str]()
        assert kept <= self.pool
        assert kept >= self.pool & self.promised.union(*mentioned.values())
        self.pool = kept
        for name, layout in self.layouts.items():
            if layout.has_blobs:
                linked = set(self._disk(name, "blobs", "sha256"))
                assert linked <= layout.linked
                assert linked >= layout.linked & mentioned[layout]
                layout.linked = linked
        for name, blob in before:
            if not self._is_visible(self.layouts[name], blob):
                self._await_the_end_of(self._blob(name, blob))

    @rule(number=st.integers(0, 2), new=NAMES)
    def tag(self, number: int, new: str) -> None:
        if new in self.layouts or not self.layouts:
            return
        name = self._some(number)
        layout = self.layouts[name]
        if layout.index is None or not self.documents[layout.index].reach:
            return
        self._run("tag", f"r.io/x:{name}", f"r.io/x:{new}")
        index = (self.store / "layouts" / "r.io" / "x" / new / "index.json").read_bytes()
        self.documents[index] = self.documents[layout.index]
        linked = self.pool & self.documents[index].reach
        self.layouts[new] = Shown(has_blobs=True, linked=linked, index=index, marker=MARKER_CONTENT)

    @rule(number=st.integers(0, 2))
    def remove_elsewhere(self, number: int) -> None:
        if not self.layouts:
            return
        name = self._some(number)
        layout = self.layouts[name]
        if layout.index is None or any(writer.layout is layout for writer in self.writers):
            return
        self._run("rm", f"r.io/x:{name}")
        del self.layouts[name]
        self._await_the_end_of(self.x / name)
        self.x.mkdir(parents=True, exist_ok=True)

    # Ordinary files

    @rule(name=ORDINARY, content=st.binary(max_size=9), offset=st.sampled_from([0, 0, 3, 5000]))
    def write(self, name: str, content: bytes, offset: int) -> None:
        self._both(lambda root: write(root / name, content, offset))

    @rule(name=ORDINARY, content=st.binary(min_size=1, max_size=9))
    def append_to_file(self, name: str, content: bytes) -> None:
        self._both(lambda root: put(root / name, content, os.O_APPEND))

    @rule(name=ORDINARY)
    def create_exclusively(self, name: str) -> None:
        self._both(lambda root: put(root / name, b"", os.O_EXCL))

    @rule(name=ORDINARY, length=st.sampled_from([0, 2, 9000]))
    def truncate(self, name: str, length: int) -> None:
        self._both(lambda root: os.truncate(root / name, length))

    @rule(name=ORDINARY)
    def make_directory(self, name: str) -> None:
        self._both(lambda root: (root / name).mkdir())

    @rule(name=ORDINARY)
    def remove_directory(self, name: str) -> None:
        self._both(lambda root: (root / name).rmdir())

    @rule(name=ORDINARY)
    def unlink_file(self, name: str) -> None:
        self._both(lambda root: (root / name).unlink())

    @rule(name=ORDINARY, new=ORDINARY)
    def rename(self, name: str, new: str) -> None:
        self._both(lambda root: (root / name).rename(root / new))

    @rule(name=ORDINARY, new=ORDINARY)
    def link_file(self, name: str, new: str) -> None:
        self._both(lambda root: os.link(root / name, root / new, follow_symlinks=False))

    @rule(name=ORDINARY, new=ORDINARY)
    def symlink(self, name: str, new: str) -> None:
        self._both(lambda root: (root / new).symlink_to(name))

    @precondition(lambda self: len(self.handles) < 6)
    @rule(name=ORDINARY, flags=st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_TRUNC]))
    def open(self, name: str, flags: int) -> None:
        ours, theirs = self._both(lambda root: os.open(root / name, flags))
        if isinstance(ours, int) and isinstance(theirs, int):
            self.handles.append((ours, theirs))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, 5), content=st.binary(max_size=9), offset=st.integers(0, 20))
    def use(self, number: int, content: bytes, offset: int) -> None:
        ours, theirs = self.handles[number % len(self.handles)]
        assert os.pwrite(ours, content, offset) == os.pwrite(theirs, content, offset)
        assert os.pread(ours, 20_000, 0) == os.pread(theirs, 20_000, 0)
        assert os.fstat(ours).st_size == os.fstat(theirs).st_size

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, 5))
    def close(self, number: int) -> None:
        for file in self.handles.pop(number % len(self.handles)):
            os.close(file)

    @precondition(lambda self: self.layouts)
    @rule(number=st.integers(0, 2), name=ORDINARY, blob=CONTENTS, honest=st.booleans())
    def rename_to_a_blob(self, number: int, name: str, blob: str, honest: bool) -> None:
        source, twin = self.ordinary / name, self.plain / name
        layout = self.layouts[self._some(number)]
        if not layout.has_blobs or not twin.parent.is_dir() or twin.is_dir():
            return
        if twin.is_symlink() or self.handles:
            return
        for path in (source, twin):
            path.unlink(missing_ok=True)
            path.write_bytes(BLOBS[blob] if honest else b"else")
        error = failure(os.rename, source, self._blob(self._some(number), blob))
        assert error == (0 if honest else errno.EIO)
        if honest:
            twin.unlink()
            self._arrived(layout, blob)

    # What must be true after each step

    @invariant()
    def the_disk_has_what_was_committed(self) -> None:
        expected = {f"blobs/sha256/{blob}": BLOBS[blob] for blob in self.pool}
        for name, layout in self.layouts.items():
            above = f"layouts/r.io/x/{name}"
            if layout.index is not None:
                expected[f"{above}/index.json"] = layout.index
            if layout.marker is not None:
                expected[f"{above}/oci-layout"] = layout.marker
            for blob in layout.linked:
                expected[f"{above}/blobs/sha256/{blob}"] = BLOBS[blob]
        assert dict(self._found()) == expected

    @invariant()
    def the_mount_lists_what_there_is(self) -> None:
        assert names(self.x) == set(self.layouts)
        for name, layout in self.layouts.items():
            expected = {
                *(["index.json"] if layout.index or layout.waiting else []),
                *(["oci-layout"] if layout.marker else []),
                *(["blobs"] if layout.has_blobs else []),
            }
            assert names(self.x / name) == expected
            if layout.has_blobs:
                blobs = self.x / name / "blobs" / "sha256"
                assert names(blobs) == layout.linked | layout.temporaries.keys()
            shown = layout.index if layout.waiting is None else layout.waiting
            if shown is not None:
                assert (self.x / name / "index.json").read_bytes() == shown

    @invariant()
    def ordinary_files_are_as_in_a_directory(self) -> None:
        if self.mountpoint.is_mount():
            assert snapshot(self.ordinary) == snapshot(self.plain)

    def teardown(self) -> None:
        for writer in self.writers:
            failure(os.close, writer.file)
        for pair in self.handles:
            for file in pair:
                failure(os.close, file)
        try:
            self._end(signal.SIGTERM)
        finally:
            self.watch.cancel()
            unmount(self.mountpoint)
            self.directory.cleanup()

    # The model

    def _some(self, number: int) -> str:
        return sorted(self.layouts)[number % len(self.layouts)]

    def _is_visible(self, layout: Shown, blob: str) -> bool:
        if not layout.has_blobs:
            return False
        return blob in layout.linked or (blob in self.pool and blob not in layout.whiteouts)

    def _arrived(self, layout: Shown, blob: str) -> None:
        """Take in a blob that a layout got, and commit the indexes that waited for it."""
        self.pool.add(blob)
        self.promised.add(blob)
        layout.linked.add(blob)
        layout.whiteouts.discard(blob)
        for other in self.layouts.values():
            if other.waiting is not None:
                self._indexed(other, other.waiting)

    def _indexed(self, layout: Shown, raw: bytes) -> int:
        """Write an index into a layout; returns the errno that its writer gets."""
        document = self.documents.get(raw)
        if document is None:
            return errno.EIO
        if document.needs <= self.pool | layout.linked:
            layout.index, layout.waiting = raw, None
            present = document.reach & self.pool
            if document.reach & (self.pool | layout.linked):
                layout.has_blobs = True
            layout.linked |= present
            layout.whiteouts -= present
            return 0
        if layout.index is not None:
            return errno.EIO
        layout.waiting = raw
        return 0

    def _settle(self, writer: Writer, error: int) -> None:
        """Decide about an index as it is; `error` is what its writer got."""
        layout = writer.layout
        is_unlinked = writer.was_shown and layout.index is None and layout.waiting is None
        if writer.is_settled or is_unlinked:
            assert error == 0
        else:
            assert error == self._indexed(layout, writer.content)
            writer.was_shown |= error == 0
        writer.is_settled = error == 0

    def _blob(self, layout: str, name: str) -> Path:
        return self.x / layout / "blobs" / "sha256" / name

    def _disk(self, layout: str, *below: str) -> list[str]:
        return os.listdir(self.store.joinpath("layouts", "r.io", "x", layout, *below))

    def _found(self) -> Iterator[tuple[str, bytes]]:
        for top in (self.store / "blobs", self.store / "layouts" / "r.io"):
            for above, _, files in os.walk(top):
                for file in files:
                    path = Path(above, file)
                    if not (self.was_killed and file.startswith(".ocistow-")):
                        yield str(path.relative_to(self.store)), path.read_bytes()

    def _await_the_end_of(self, path: Path) -> None:
        """Wait for what docs/mount.md says takes a second."""
        wait_until(lambda: not path.exists(), f"the mount does not show {path} any more")

    def _run(self, *arguments: str) -> None:
        output = self.output.with_name("command")
        status = self.command.run([f"--store={self.store}", *arguments], output)
        assert status == 0, output.read_text()

    def _both(self, call: Callable[[Path], object]) -> tuple[object, object]:
        """Do the same on the mount and in a directory, with the same outcome."""
        ours, theirs = (outcome(call, root) for root in (self.ordinary, self.plain))
        assert type(ours) is type(theirs), (ours, theirs)
        if isinstance(ours, OSError) and isinstance(theirs, OSError):
            assert ours.errno == theirs.errno
        return ours, theirs


def failure(call: Callable[..., object], *arguments: object) -> int:
    """Return the errno of a call, 0 if it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def outcome(call: Callable[[Path], object], root: Path) -> object:
    try:
        return call(root)
    except OSError as error:
        return error


def put(path: Path, content: bytes, how: int = os.O_TRUNC) -> None:
    """Write a whole file, and hear what close(2) says."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o644)
    try:
        os.write(file, content)
    finally:
        os.close(file)


def write(path: Path, content: bytes, offset: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, content, offset)
    finally:
        os.close(file)


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def snapshot(root: Path) -> list[object]:
    """Return what is below a directory: kinds, names of one file, contents."""
    found: list[object] = []
    files: dict[int, str] = {}
    for above, directories, others in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *others]):
            path = Path(above, name)
            status = path.lstat()
            shown = str(path.relative_to(root))
            if path.is_symlink():
                found.append((shown, os.readlink(path)))
            elif path.is_dir():
                found.append((shown, "directory"))
            else:
                first = files.setdefault(status.st_ino, shown)
                found.append((shown, first, status.st_nlink, status.st_size, path.read_bytes()))
    return found


def test_a_mount_keeps_to_its_rules(engine: str) -> None:
    with Warm() as one, Warm() as other:

        class Story(Mounted):
            kind = engine
            server = one
            command = other

        run_state_machine_as_test(
            Story,
            settings=settings(max_examples=STORIES, stateful_step_count=STEPS),
        )
