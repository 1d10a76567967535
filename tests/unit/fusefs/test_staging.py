import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ocistow.fusefs.places import Place
from ocistow.fusefs.staging import Staging
from ocistow.oci.digest import Digest
from ocistow.oci.document import MAX_DOCUMENT
from ocistow.oci.errors import InvalidContent
from ocistow.store import hashing
from ocistow.store.blobs import BlobStore
from ocistow.testing.descriptors import open_files

SIZES = st.integers(0, 300)


class Stagings(RuleBasedStateMachine):
    """A staged file behaves like memory, whatever it begins as."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(hashing, "AHEAD", 1)  # a thread reads behind from the first byte on
        self.directory = tempfile.TemporaryDirectory()
        self.blobs = BlobStore(Path(self.directory.name))
        self.staging = Staging(self.blobs.ingest(behind=True), Place.BLOB, 0o644)
        self.model = bytearray()
        self.changed = True

    @rule(content=st.binary(max_size=200), same=SIZES)
    def begin_as_a_blob_that_is_written_again(self, content: bytes, same: int) -> None:
        self.staging.discard()
        self.staging = Staging(self.blobs.ingest(behind=True), Place.BLOB, 0o644)
        file = os.open(self.directory.name, os.O_TMPFILE | os.O_RDWR)
        os.write(file, content)
        self.staging.expect(file, Digest.of(content))
        self.model = bytearray()
        self.changed = True
        self.append(content[:same])
        assert (self.staging.known == Digest.of(content)) == (self.model == content)

    @rule(content=st.binary(max_size=200))
    def begin_as_a_file(self, content: bytes) -> None:
        self.staging.discard()
        self.staging = Staging(self.blobs.ingest(behind=True), Place.BLOB, 0o644)
        file = os.open(self.directory.name, os.O_TMPFILE | os.O_RDWR)
        os.write(file, content)
        self.staging.start_from(file)
        self.model = bytearray(content)
        self.changed = False

    @rule(offset=SIZES, data=st.binary(max_size=100))
    def write(self, offset: int, data: bytes) -> None:
        assert self.staging.write(offset, data) == len(data)
        if data:
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset : offset + len(data)] = data
        self.changed = True

    @rule(data=st.binary(max_size=100))
    def append(self, data: bytes) -> None:
        if self.staging.take(len(self.model), data):
            self.model.extend(data)
        else:
            self.write(len(self.model), data)

    @rule(length=SIZES)
    def truncate(self, length: int) -> None:
        self.staging.truncate(length)
        self.model[length:] = bytes(max(0, length - len(self.model)))
        self.changed = True

    @rule(offset=SIZES, size=SIZES)
    def read(self, offset: int, size: int) -> None:
        assert self.staging.read(offset, size) == self.model[offset : offset + size]

    @precondition(lambda self: self.changed)
    @rule(algorithm=st.sampled_from(["sha256", "sha512", "blake3"]))
    def hash(self, algorithm: str) -> None:
        self.staging.fill()
        assert self.staging.ingest.digest(algorithm) == Digest.of(bytes(self.model), algorithm)

    @invariant()
    def is_what_was_written(self) -> None:
        assert self.staging.size == len(self.model)
        assert self.staging.document() == self.model
        assert self.staging.unsettled == self.changed

    def teardown(self) -> None:
        self.patch.undo()
        self.staging.discard()
        self.blobs.close()
        self.directory.cleanup()


TestStagings = Stagings.TestCase


@pytest.fixture
def staging(tmp_path: Path) -> Generator[Staging]:
    with BlobStore(tmp_path) as blobs:
        staging = Staging(blobs.ingest(), Place.INDEX, 0o644)
        yield staging
        staging.discard()


def test_a_document_is_small(staging: Staging) -> None:
    staging.truncate(MAX_DOCUMENT)
    assert len(staging.document()) == MAX_DOCUMENT
    staging.truncate(MAX_DOCUMENT + 1)
    with pytest.raises(InvalidContent, match="at most"):
        staging.document()


def test_what_it_began_as_may_change_meanwhile(staging: Staging, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    staging.start_from(os.open(path, os.O_RDONLY))
    (tmp_path / "new").write_bytes(b"after, and longer")
    (tmp_path / "new").replace(path)
    staging.write(0, b"B")
    assert staging.document() == b"Before"


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with BlobStore(tmp_path) as blobs:
        before = open_files()
        for changes in range(3):
            staging = Staging(blobs.ingest(), Place.BLOB, 0o644)
            staging.start_from(os.open(path, os.O_RDONLY))
            if changes == 1:
                staging.write(0, b"x")
            if changes == 2:
                staging.truncate(0)
            staging.discard()
            staging.discard()
        assert len(open_files() - before) <= 1  # the pool's directory
