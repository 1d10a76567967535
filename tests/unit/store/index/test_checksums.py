import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.index.checksums import RUN, Checksum, Checksums
from ocistow.store.index.database import IndexDatabase
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

A = Checksum(Digest("sha256", "a" * 64), 5, "b" * 64, 7, 123_456_789_012_345_678, 1000.25)
B = replace(A, digest=Digest("sha256", "b" * 64), verified=3000.5)
IMAGE = minimal_image("a")


def recording(path: Path) -> Store:
    store = Store.create(path / "store")
    store.record_checksums()
    return store


def test_what_was_added_is_found(tmp_path: Path) -> None:
    checksums = Checksums(IndexDatabase(tmp_path / "index.sqlite"))
    checksums.add([A, B])
    absent = Digest("sha256", "c" * 64)
    assert checksums.find([A.digest, B.digest, absent]) == {A.digest: A, B.digest: B}
    assert checksums.times() == {str(A.digest): 1000.25, str(B.digest): 3000.5}
    checksums.forget([str(A.digest)])
    assert checksums.find([A.digest, B.digest]) == {B.digest: B}


def test_half_a_row_is_not_believed(tmp_path: Path) -> None:
    checksums = Checksums(IndexDatabase(tmp_path / "index.sqlite"))
    checksums.add([A, B])
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE checksums SET blake3 = ? WHERE size = 5", ("c" * 64,))
    connection.close()
    assert checksums.find([A.digest, B.digest]) == {}


def test_a_verification_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    checksums = Checksums(IndexDatabase(tmp_path / "index.sqlite"))
    began = checksums.begin("all")
    assert checksums.begin("all") == began
    assert checksums.begin("all", anew=True) > began
    assert checksums.begin("some") > began
    checksums.end("all")
    assert checksums.begin("all") > began


def test_an_old_verification_does_not_go_on(tmp_path: Path) -> None:
    checksums = Checksums(IndexDatabase(tmp_path / "index.sqlite"))
    checksums.begin("all")
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE runs SET began = began - ?", (RUN + 1,))
    connection.close()
    assert checksums.begin("all") > time.time() - 60


def test_an_image_that_comes_in_is_recorded(tmp_path: Path) -> None:
    with recording(tmp_path) as store:
        IMAGE.add_to(store.blobs)
        assert store.checksums.times() == {}  # nothing is written for a single blob
        store.put(Reference.parse("example.com/app:1"), IMAGE.root)
        found = store.checksums.find(IMAGE.blobs)
        for digest, content in IMAGE.blobs.items():
            assert found[digest].blake3 == blake3(content).hexdigest()
            assert found[digest].is_of(store.blobs.stat(digest))


def test_bytes_out_of_order_are_recorded(tmp_path: Path) -> None:
    with recording(tmp_path) as store, store.blobs.ingest() as ingest:
        ingest.write_at(4, b"tail")
        ingest.write_at(0, b"head")
        digest = ingest.commit()
        store.blobs.sync()
        assert store.checksums.find([digest])[digest].blake3 == blake3(b"headtail").hexdigest()


def test_another_digest_is_recorded_too(tmp_path: Path) -> None:
    with recording(tmp_path) as store:
        digest = store.blobs.add([b"content"], Digest.of(b"content", "sha512"))
        of_itself = store.blobs.add([b"content"], Digest.of(b"content", "blake3"))
        store.blobs.sync()
        found = store.checksums.find([digest, of_itself])
        assert found[digest].blake3 == of_itself.encoded
        assert of_itself not in found  # its name says it


def test_what_was_present_is_not_vouched_for(tmp_path: Path) -> None:
    with recording(tmp_path) as store:
        digest = store.blobs.add([b"content"])
        store.blobs.sync()
        store.checksums.forget([str(digest)])
        store.blobs.add([b"content"])
        store.blobs.sync()
        assert store.checksums.times() == {}


def test_a_store_that_cannot_record_takes_blobs_in(tmp_path: Path) -> None:
    with recording(tmp_path) as store:
        (tmp_path / "store" / "index.sqlite" / "full").mkdir(parents=True)
        digest = store.blobs.add([b"content"])
        store.blobs.sync()
        assert digest in store.blobs
