"""What everything that stores blobs must do: the disk's pool, and a pool seen through a mount.

A test module derives `Test…` from `BlobSuite` and provides the fixture `kind`; see
tests/conformance/test_blobs.py.
"""

# ruff: noqa: D102 - the name of a test is a sentence

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..oci.digest import CANONICAL, HEX_LENGTHS, Digest, is_encoded
from ..oci.errors import DigestMismatch, NotFound

CONTENT = b"blob" * 1000
DIGEST = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
OTHER = b"other"


class BlobWriter(Protocol):
    """A blob on its way in; leaving its block discards it unless it was committed."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Discard what was not committed."""
        ...

    def write(self, data: bytes, /) -> None:
        """Append."""
        ...

    def write_at(self, offset: int, data: bytes, /) -> None:
        """Write like pwrite(2)."""
        ...

    def truncate(self, length: int, /) -> None:
        """Cut or extend."""
        ...

    def commit(self, expected: Digest, /) -> Digest:
        """Make it a blob."""
        ...


class Blobs(Protocol):
    """What stores blobs."""

    def ingest(self, algorithm: str = CANONICAL) -> BlobWriter:
        """Begin a blob."""
        ...

    def open(self, digest: Digest) -> int:
        """Return a descriptor to read it, or raise NotFound."""
        ...

    def stat(self, digest: Digest) -> os.stat_result:
        """Return its attributes, or raise NotFound."""
        ...

    def __contains__(self, digest: Digest) -> bool:
        """Tell whether it is there."""
        ...

    def __iter__(self) -> Iterator[Digest]:
        """Yield all."""
        ...


@dataclass(frozen=True)
class Kind:
    """One way to store blobs, and how it differs.

    Attributes:
        open: begins with an empty store; the argument is a directory to keep it in.
        mismatch: the error for content that is not what its name says.
        code: its errno, if it is an OSError.
        checks: False when nobody compares content and name.
    """

    name: str
    open: Callable[[Path], AbstractContextManager[Blobs]]
    mismatch: type[Exception] = DigestMismatch
    code: int | None = None
    checks: bool = True

    def offer_wrong_content(self, blobs: Blobs) -> None:
        """Offer `OTHER` as the blob `DIGEST`; that must be refused by whoever checks."""

        def offer() -> None:
            with blobs.ingest() as ingest:
                ingest.write(OTHER)
                ingest.commit(DIGEST)

        error = error_of(offer)
        if self.checks:
            assert isinstance(error, self.mismatch), error
            assert getattr(error, "errno", None) == self.code, error


class BlobSuite:
    """The tests; each gets a store that is empty."""

    def test_what_was_added_can_be_read(self, blobs: Blobs) -> None:
        add(blobs, CONTENT)
        assert read(blobs, DIGEST) == CONTENT
        assert blobs.stat(DIGEST).st_size == len(CONTENT)
        assert DIGEST in blobs
        assert list(blobs) == [DIGEST]

    def test_what_is_absent_is_not_found(self, blobs: Blobs) -> None:
        for digest in (DIGEST, Digest.of(CONTENT, "sha512")):
            assert digest not in blobs
            for question in (blobs.open, blobs.stat):
                error = error_of(partial(question, digest))
                assert isinstance(error, NotFound), error
                assert error.name == digest
        assert list(blobs) == []

    def test_nothing_is_a_blob_too(self, blobs: Blobs) -> None:
        assert read(blobs, add(blobs, b"")) == b""

    def test_a_large_blob_is_stored_whole(self, blobs: Blobs) -> None:
        content = os.urandom(1 << 16) * 50
        assert read(blobs, add(blobs, content)) == content

    def test_other_algorithms_name_blobs(self, blobs: Blobs) -> None:
        digests = {add(blobs, CONTENT, algorithm) for algorithm in ("sha256", "sha512", "blake3")}
        assert set(blobs) == digests
        for digest in digests:
            assert read(blobs, digest) == CONTENT

    def test_a_wrong_name_is_refused_and_nothing_stays(self, blobs: Blobs, kind: Kind) -> None:
        kind.offer_wrong_content(blobs)
        if kind.checks:
            assert DIGEST not in blobs
            assert list(blobs) == []

    def test_after_a_refusal_the_right_content_is_taken(self, blobs: Blobs, kind: Kind) -> None:
        kind.offer_wrong_content(blobs)
        add(blobs, CONTENT)
        assert read(blobs, DIGEST) == CONTENT

    def test_content_already_there_is_success(self, blobs: Blobs) -> None:
        add(blobs, CONTENT)
        add(blobs, CONTENT)
        assert list(blobs) == [DIGEST]
        assert read(blobs, DIGEST) == CONTENT

    def test_wrong_content_does_not_harm_what_is_there(self, blobs: Blobs, kind: Kind) -> None:
        add(blobs, CONTENT)
        kind.offer_wrong_content(blobs)
        if kind.checks:
            assert read(blobs, DIGEST) == CONTENT

    def test_what_is_not_committed_is_gone(self, blobs: Blobs) -> None:
        with blobs.ingest() as ingest:
            ingest.write(CONTENT)
        assert DIGEST not in blobs
        assert list(blobs) == []

    def test_nothing_is_there_before_the_commit(self, blobs: Blobs) -> None:
        with blobs.ingest() as ingest:
            ingest.write(CONTENT)
            assert DIGEST not in blobs
            assert ingest.commit(DIGEST) == DIGEST
            assert DIGEST in blobs

    def test_bytes_may_come_in_any_order(self, blobs: Blobs) -> None:
        with blobs.ingest() as ingest:
            ingest.write(OTHER)
            ingest.write_at(2000, CONTENT[2000:])
            ingest.write_at(0, CONTENT[:2000])
            ingest.write_at(len(CONTENT), OTHER)
            ingest.truncate(len(CONTENT))
            ingest.commit(DIGEST)
        assert read(blobs, DIGEST) == CONTENT

    def test_holes_are_zeros(self, blobs: Blobs) -> None:
        content = bytes(5000) + b"end" + bytes(7)
        with blobs.ingest() as ingest:
            ingest.write_at(5000, b"end")
            ingest.truncate(len(content))
            ingest.commit(Digest.of(content))
        assert read(blobs, Digest.of(content)) == content

    def test_a_committed_blob_never_changes(self, blobs: Blobs) -> None:
        with blobs.ingest() as ingest:
            ingest.write(CONTENT)
            ingest.commit(DIGEST)
            for change in (partial(ingest.write_at, 0, OTHER), partial(ingest.truncate, 0)):
                error = error_of(change)
                assert isinstance(error, OSError), error
                assert error.errno in (errno.EPERM, errno.EBADF), error
        assert read(blobs, DIGEST) == CONTENT

    def test_a_reader_keeps_what_it_opened(self, blobs: Blobs) -> None:
        add(blobs, CONTENT)
        file = blobs.open(DIGEST)
        try:
            add(blobs, CONTENT)
            add(blobs, OTHER)
            assert os.pread(file, 1 << 20, 0) == CONTENT
        finally:
            os.close(file)

    def test_many_writers_of_one_blob(self, blobs: Blobs) -> None:
        writers = 8
        together = threading.Barrier(writers)

        def write() -> None:
            with blobs.ingest() as ingest:
                ingest.write(CONTENT)
                together.wait(timeout=60)
                ingest.commit(DIGEST)

        assert errors_of([write] * writers) == []
        assert list(blobs) == [DIGEST]
        assert read(blobs, DIGEST) == CONTENT

    def test_many_writers_of_many_blobs(self, blobs: Blobs) -> None:
        contents = [CONTENT + bytes([number]) for number in range(8)]
        assert errors_of([partial(add, blobs, content) for content in contents]) == []
        assert set(blobs) == {Digest.of(content) for content in contents}
        for content in contents:
            assert read(blobs, Digest.of(content)) == content

    def test_a_liar_beside_honest_writers(self, blobs: Blobs, kind: Kind) -> None:
        if not kind.checks:
            return
        together = threading.Barrier(4)

        def write(content: bytes) -> None:
            with blobs.ingest() as ingest:
                ingest.write(content)
                together.wait(timeout=60)
                ingest.commit(DIGEST)

        writers = [partial(write, content) for content in (CONTENT, OTHER, CONTENT, OTHER)]
        assert [type(error) for error in errors_of(writers)] == [kind.mismatch] * 2
        assert list(blobs) == [DIGEST]
        assert read(blobs, DIGEST) == CONTENT


def add(blobs: Blobs, content: bytes, algorithm: str = CANONICAL) -> Digest:
    """Store some content in two writes."""
    middle = len(content) // 2
    with blobs.ingest(algorithm) as ingest:
        ingest.write(content[:middle])
        ingest.write(content[middle:])
        return ingest.commit(Digest.of(content, algorithm))


def read(blobs: Blobs, digest: Digest) -> bytes:
    """Return a blob's content."""
    with open(blobs.open(digest), "rb") as stream:
        return stream.read()


def errors_of(tasks: Iterable[Callable[[], object]]) -> list[Exception]:
    """Run tasks at the same time and return what they raised."""
    tasks = list(tasks)
    with ThreadPoolExecutor(max_workers=len(tasks)) as threads:
        return [error for error in threads.map(error_of, tasks) if error is not None]


def error_of(task: Callable[[], object]) -> Exception | None:
    """Run a task and return what it raised."""
    try:
        task()
    except Exception as error:
        return error
    return None


class DirectoryBlobs:
    """A directory `blobs` used with plain system calls, as skopeo and others use a layout's.

    A blob is written under another name beside its own, closed, and renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def ingest(self, algorithm: str = CANONICAL) -> DirectoryWriter:
        """Begin a temporary file."""
        directory = self.path / algorithm
        directory.mkdir(parents=True, exist_ok=True)
        return DirectoryWriter(directory)

    def open(self, digest: Digest) -> int:
        """Open the file."""
        try:
            return os.open(self._file(digest), os.O_RDONLY)
        except FileNotFoundError:
            raise NotFound(digest) from None

    def stat(self, digest: Digest) -> os.stat_result:
        """Stat the file."""
        try:
            return self._file(digest).stat()
        except FileNotFoundError:
            raise NotFound(digest) from None

    def __contains__(self, digest: Digest) -> bool:
        return self._file(digest).exists()

    def __iter__(self) -> Iterator[Digest]:
        for algorithm in HEX_LENGTHS:
            directory = self.path / algorithm
            names = os.listdir(directory) if directory.exists() else []
            yield from (Digest(algorithm, name) for name in names if is_encoded(algorithm, name))

    def _file(self, digest: Digest) -> Path:
        return self.path / digest.algorithm / digest.encoded


class DirectoryWriter:
    """A temporary file that becomes a blob by a rename."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"unfinished-{threading.get_native_id()}-{id(self)}"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes, /) -> None:
        """Append."""
        self.write_at(self._end, data)

    def write_at(self, offset: int, data: bytes, /) -> None:
        """Write like pwrite(2)."""
        written = os.pwrite(self._file, data, offset)
        assert written == len(data)
        self._end = max(self._end, offset + written)

    def truncate(self, length: int, /) -> None:
        """Cut or extend."""
        os.ftruncate(self._file, length)
        self._end = length

    def commit(self, expected: Digest, /) -> Digest:
        """Close and rename."""
        self._close()
        self._path.rename(self._path.parent.parent / expected.algorithm / expected.encoded)
        return expected

    def _close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)
