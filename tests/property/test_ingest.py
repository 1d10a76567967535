"""An ingest is a file: whatever is written, cut or fails, its digest is that of its bytes."""

import contextlib
import errno
import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ocistow.oci.digest import Digest
from ocistow.store.blobs import BlobStore
from ocistow.store.ingest import Ingest
from ocistow.testing.disk import QuickDisk

OFFSETS = st.integers(0, 40)
DATA = st.binary(max_size=20)


class FlakyDisk(QuickDisk):
    """A disk that clones, by copying, and whose next write fails when it is told so."""

    def __init__(self) -> None:
        self.fail_after: int | None = None

    def clone(self, source: int, file: int) -> bool:
        os.pwrite(file, os.pread(source, 1 << 20, 0), 0)
        return True

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        if self.fail_after is not None:
            data = data[: self.fail_after]
        super().write(file, data, offset)
        if self.fail_after is not None:
            raise OSError(errno.ENOSPC, "full")


class IngestedFile(RuleBasedStateMachine):
    """Compares an ingest with a bytearray."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.disk = FlakyDisk()
        self.blobs = BlobStore(Path(self.directory.name), self.disk)
        self.ingest: Ingest = self.blobs.ingest()
        self.model = bytearray()
        self.committed = False

    def expect(self, offset: int, data: bytes) -> None:
        if data:
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset : offset + len(data)] = data

    @precondition(lambda self: not self.committed)
    @rule(data=DATA)
    def write(self, data: bytes) -> None:
        self.expect(len(self.model), data)
        self.ingest.write(data)

    @precondition(lambda self: not self.committed)
    @rule(offset=OFFSETS, data=DATA)
    def write_at(self, offset: int, data: bytes) -> None:
        self.expect(offset, data)
        self.ingest.write_at(offset, memoryview(data))

    @precondition(lambda self: not self.committed)
    @rule(offset=OFFSETS, data=DATA, written=st.integers(0, 20))
    def fail_to_write(self, offset: int, data: bytes, written: int) -> None:
        self.expect(offset, data[:written])
        self.disk.fail_after = written
        with contextlib.suppress(OSError):
            self.ingest.write_at(offset, data)
        self.disk.fail_after = None

    @precondition(lambda self: not self.committed)
    @rule(length=OFFSETS)
    def truncate(self, length: int) -> None:
        del self.model[length:]
        self.model.extend(bytes(length - len(self.model)))
        self.ingest.truncate(length)

    @precondition(lambda self: not self.committed)
    @rule(content=DATA)
    def clone(self, content: bytes) -> None:
        self.expect(0, content)
        with tempfile.TemporaryFile() as source:
            source.write(content)
            source.flush()
            assert self.ingest.clone(source.fileno())

    @rule(algorithm=st.sampled_from(("sha256", "sha512")))
    def digest(self, algorithm: str) -> None:
        expected = hashlib.new(algorithm, self.model).hexdigest()
        assert self.ingest.digest(algorithm).encoded == expected

    @rule()
    def commit(self) -> None:
        expected = Digest("sha256", hashlib.sha256(self.model).hexdigest())
        assert self.ingest.commit() == expected
        self.committed = True
        with open(self.blobs.open(expected), "rb") as blob:
            assert blob.read() == self.model

    @invariant()
    def has_the_size_of_its_file(self) -> None:
        assert self.ingest.size == len(self.model) == os.fstat(self.ingest.file).st_size

    def teardown(self) -> None:
        self.ingest.close()
        self.blobs.close()
        self.directory.cleanup()


TestIngestedFile = IngestedFile.TestCase
