"""Every kind of damage is found, once, and nothing else is."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import Collector
from ocistow.store.index.checksums import Checksum
from ocistow.store.index.layers import Layer
from ocistow.store.layout import Layout
from ocistow.store.remotes import RepositoryName
from ocistow.store.store import Store
from ocistow.store.verification.findings import Finding, Kind, Severity
from ocistow.store.verification.layouts import LayoutChecker
from ocistow.store.verification.scrub import Pace, Stopped, examine
from ocistow.store.verification.surroundings import check_rest, directories
from ocistow.store.verification.verifier import Choice, Planned, Subset, Verifier
from ocistow.testing.disk import QuickDisk
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])
ONE = Reference.parse("example.com/app:1")
TWO = Reference.parse("example.com/app:2")
LAYER, OTHER, CONFIG, MANIFEST = A.blobs
MANY = 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        put(store, ONE, A)
        yield store


def put(store: Store, name: Reference, image: MinimalImage) -> None:
    image.add_to(store.blobs)
    store.put(name, image.root)


def blob(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / digest.algorithm / digest.encoded


def own(store: Store, digest: Digest, name: Reference = ONE) -> Path:
    return store.layouts / name.path / "blobs" / digest.algorithm / digest.encoded


def rot(file: Path) -> None:
    """Change one byte as a bad disk does: neither size nor times tell."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def verifier(store: Store, choice: Choice | None = None, pace: Pace | None = None) -> Verifier:
    return Verifier(store, replace(choice or Choice(), jobs=1), pace)


def verified(store: Store, choice: Choice | None = None) -> list[Finding]:
    run = verifier(store, choice)
    checker = LayoutChecker(store, run)
    found = list(run.run())
    for directory in directories(store):
        found += checker.check(directory)
    return [*found, *check_rest(store)]


def kinds(store: Store, choice: Choice | None = None) -> list[tuple[Severity, Kind]]:
    return [(finding.severity, finding.kind) for finding in verified(store, choice)]


def copied(store: Store, digest: Digest) -> Path:
    """Let a layout have a file of its own, as from a tool that wrote into it."""
    file = own(store, digest)
    shutil.copyfile(file, file.with_name("copy"))
    os.rename(file.with_name("copy"), file)
    return file


def test_a_good_store_has_nothing_to_tell(store: Store) -> None:
    put(store, TWO, minimal_index(A, B))
    assert verified(store) == []
    assert verified(store, Choice(full=True)) == []


@pytest.mark.parametrize("digest", [LAYER, CONFIG, MANIFEST])
@pytest.mark.parametrize("times", [1, 2])
def test_rot_is_found_once_however_many_images_have_it(
    store: Store, digest: Digest, times: int
) -> None:
    for number in range(MANY):
        store.put(Reference.parse(f"example.com/many:{number}"), A.root)
    for _ in range(times - 1):
        assert verified(store) == []  # from now on BLAKE3 decides
    rot(blob(store, digest))
    (finding,) = verified(store)
    assert (finding.severity, finding.kind) == (Severity.ERROR, Kind.BAD_BLOB)
    assert finding.digest == digest
    assert "sha256:" in finding.detail


def test_rot_is_not_noted_as_good(store: Store) -> None:
    rot(blob(store, LAYER))
    verified(store)
    assert LAYER not in store.checksums.find([LAYER, OTHER])


def test_a_wrong_checksum_is_no_proof(store: Store) -> None:
    status = store.blobs.stat(LAYER)
    store.checksums.add([replace(Checksum.of(LAYER, "0" * 64, status), verified=1.0)])
    assert verified(store) == []
    assert store.checksums.find([LAYER])[LAYER].blake3 != "0" * 64


def test_a_blob_of_every_algorithm_is_read(store: Store) -> None:
    for algorithm in ("sha512", "blake3"):
        digest = store.blobs.add([b"content"], Digest.of(b"content", algorithm))
        assert verified(store) == []
        rot(blob(store, digest))
        assert [f.digest for f in verified(store)] == [digest]
        os.unlink(blob(store, digest))


def test_a_cut_file_is_found(store: Store) -> None:
    os.truncate(blob(store, LAYER), 1)
    assert kinds(store) == [(Severity.ERROR, Kind.BAD_BLOB)]


def test_what_the_disk_refuses_is_a_finding(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", refuse)
    run = verifier(store)
    found = list(run.run())
    assert {f.kind for f in found} == {Kind.UNREADABLE_BLOB}
    assert len(found) == len(A.blobs)
    assert run.tally.bad.keys() == A.blobs.keys()
    assert not store.checksums.find(A.blobs)


def test_what_the_disk_refuses_once_is_no_bad_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, refused = os.preadv, list[int]()

    def refuse(file: int, buffers: Sequence[memoryview], offset: int) -> int:
        if refused:
            return reading(file, buffers, offset)
        refused.append(file)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", refuse)
    run = verifier(store)
    (finding,) = run.run()
    assert (finding.severity, finding.kind) == (Severity.WARNING, Kind.UNSTEADY_BLOB)
    assert not run.tally.bad


def test_what_cannot_be_read_for_other_reasons_is_no_bad_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "preadv", refuse)
    run = verifier(store)
    assert {f.kind for f in run.run()} == {Kind.UNREADABLE_BLOB}
    assert not run.tally.bad


def test_what_cannot_be_read_does_not_keep_a_subset_from_the_rest(store: Store) -> None:
    put(store, TWO, B)
    bad = sorted(store.blobs)[0]
    os.unlink(blob(store, bad))
    os.symlink("elsewhere", blob(store, bad))
    for _ in range(len({*A.blobs, *B.blobs})):
        list(verifier(store, Choice(subset=Subset(size=1))).run())
    assert store.checksums.find(store.blobs).keys() == {*A.blobs, *B.blobs} - {bad}


def test_a_symbolic_link_is_no_blob(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(A.blobs[LAYER])
    blob(store, LAYER).unlink()
    blob(store, LAYER).symlink_to(tmp_path / "elsewhere")
    assert (Severity.ERROR, Kind.BAD_BLOB) in kinds(store)


def test_an_image_may_take_anothers_place_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a layout's files and at its index."""
    index = Layout.index

    def late(layout: Layout) -> Index:
        monkeypatch.undo()
        put(store, ONE, minimal_image("new", ["new"]))
        return index(layout)

    monkeypatch.setattr(Layout, "index", late)
    assert kinds(store) == []


def test_a_copy_that_is_good_wastes_space(store: Store) -> None:
    copied(store, LAYER)
    (finding,) = verified(store)
    assert (finding.severity, finding.kind) == (Severity.NOTE, Kind.NOT_SHARED)
    assert finding.size > 0


def test_a_copy_that_rots_is_found(store: Store) -> None:
    rot(copied(store, LAYER))
    (finding,) = verified(store)
    assert (finding.kind, finding.digest) == (Kind.BAD_BLOB, LAYER)
    assert finding.where.startswith("example.com/app/1/blobs/")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("oci-layout", None, (Severity.ERROR, Kind.NO_MARKER)),
        ("oci-layout", "{}", (Severity.ERROR, Kind.NO_MARKER)),
        ("index.json", "{", (Severity.ERROR, Kind.BAD_INDEX)),
        ("index.json", None, (Severity.NOTE, Kind.UNFINISHED)),
        ("blobs/sha256/notes", "", (Severity.NOTE, Kind.STRAY)),
        (f"blobs/sha256/{MANIFEST.encoded}", None, (Severity.ERROR, Kind.NOT_LINKED)),
        (f"blobs/sha256/{LAYER.encoded}", None, (Severity.NOTE, Kind.NOT_LINKED)),
    ],
)
def test_a_layout_against_the_specification(
    store: Store, name: str, content: str | None, expected: tuple[Severity, Kind]
) -> None:
    file = store.layouts / ONE.path / name
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content)
    assert kinds(store) == [expected]


def test_a_blob_that_can_be_written_to_is_noted(store: Store) -> None:
    blob(store, LAYER).chmod(0o644)
    assert kinds(store) == [(Severity.NOTE, Kind.WRITABLE)]
    os.chown(blob(store, LAYER), 12345, -1)
    assert kinds(store) == [(Severity.NOTE, Kind.WRITABLE), (Severity.NOTE, Kind.OWNER)]


@pytest.mark.parametrize("digest", [CONFIG, MANIFEST])
def test_an_absent_document_is_an_error(store: Store, digest: Digest) -> None:
    blob(store, digest).unlink()
    own(store, digest).unlink()
    assert kinds(store) == [(Severity.ERROR, Kind.ABSENT_DOCUMENT)]


def test_an_absent_layer_is_worth_a_look_unless_a_remote_has_it(store: Store) -> None:
    blob(store, LAYER).unlink()
    own(store, LAYER).unlink()
    assert kinds(store) == [(Severity.WARNING, Kind.ABSENT_LAYER)]
    store.remotes.note_origin(RepositoryName("example.com", "app"), [LAYER])
    assert kinds(store) == [(Severity.NOTE, Kind.ABSENT_LAYER)]


def test_a_damaged_database_is_told_and_stops_nothing(store: Store) -> None:
    verified(store)
    path = store.path / "index.sqlite"
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(b"SQLite format 3\0" + bytes(8000))
    (finding,) = check_rest(store)
    assert (finding.severity, finding.kind) == (Severity.WARNING, Kind.DATABASE)
    rot(blob(store, LAYER))
    assert [f.digest for f in verified(store)] == [LAYER]


@pytest.mark.parametrize("table", ["checksums", "layers"])
def test_a_row_whose_seal_is_broken_is_noted(store: Store, table: str) -> None:
    status = store.blobs.stat(LAYER)
    store.checksums.add([Checksum.of(LAYER, "0" * 64, status)])
    store.layers.add([Layer(LAYER, 1, Descriptor(OCI_LAYER, LAYER, 1))])
    assert list(check_rest(store)) == []
    store.index.write(lambda connection: connection.execute(f"UPDATE {table} SET size = 7"))
    (finding,) = check_rest(store)
    assert (finding.severity, finding.kind) == (Severity.NOTE, Kind.DATABASE)
    assert finding.detail.startswith(f"1 {table}")


def test_a_run_that_was_interrupted_goes_on(store: Store) -> None:
    put(store, TWO, B)
    run = verifier(store)
    rot(blob(store, LAYER))
    findings = run.run()
    next(findings)
    findings.close()  # what was settled before is noted
    good = store.checksums.find(store.blobs)
    again = verifier(store)
    assert [f.digest for f in again.run()] == [LAYER]
    assert again.tally.skipped == len(good)
    assert again.tally.blobs + again.tally.skipped == len({*A.blobs, *B.blobs})
    anew = verifier(store)
    list(anew.run())
    assert anew.tally.skipped == 0  # that one had ended


def test_a_file_that_somebody_wrote_to_is_read_again(store: Store) -> None:
    run = verifier(store, Choice(digests=frozenset([LAYER, OTHER])))
    run.tally.began = 0.0
    list(run.run())
    store.checksums.begin(Choice(digests=frozenset([LAYER, OTHER])).selection)
    now = store.blobs.stat(LAYER).st_mtime_ns
    content = blob(store, LAYER).read_bytes()
    blob(store, LAYER).write_bytes(content[::-1])
    os.utime(blob(store, LAYER), ns=(now + 1, now + 1))  # the clock may not have moved
    assert [f.digest for f in verifier(store, Choice(digests=frozenset([LAYER]))).run()] == [LAYER]


def test_a_share_takes_what_was_not_read_for_longest(store: Store) -> None:
    put(store, TWO, B)
    everything = {str(digest) for digest in (*A.blobs, *B.blobs)}
    for _ in range(20):
        list(verifier(store, Choice(subset=Subset(share=0.05))).run())
    assert set(store.checksums.times()) == everything


def test_parts_are_a_partition(store: Store) -> None:
    put(store, TWO, B)
    counts = [verifier(store, Choice(subset=Subset(part=(n, 3)))) for n in (1, 2, 3)]
    for run in counts:
        list(run.run())
    assert sum(run.tally.blobs for run in counts) == len({*A.blobs, *B.blobs})


def test_a_size_takes_enough_blobs() -> None:
    plan = [Planned(0.0, n, Digest("sha256", f"{n:064x}"), 10) for n in range(10)]
    assert len(Subset(size=25).choose(plan)) == 3
    assert len(Subset(share=0.2).choose(plan)) == 2
    assert Subset(size=1000).choose(plan) == plan


def test_only_some_blobs_are_read(store: Store) -> None:
    put(store, TWO, B)
    rot(blob(store, MANIFEST))
    run = verifier(store, Choice(digests=frozenset(B.blobs)))
    assert list(run.run()) == []
    assert run.tally.blobs == len(B.blobs)


def test_reading_is_no_faster_than_wanted() -> None:
    pace, began = Pace(1_000_000), time.monotonic()
    for _ in range(6):
        pace.take(20_000)
    assert time.monotonic() - began >= 0.1  # the first may come at once
    assert pace.read == 120_000


def test_who_waits_for_his_turn_can_be_stopped() -> None:
    pace = Pace(1)
    pace.take(1000)
    stopped = threading.Event()

    def read() -> None:
        with pytest.raises(Stopped):
            pace.take(1)
        stopped.set()

    thread = threading.Thread(target=read)
    thread.start()
    pace.stop()
    thread.join(60)
    assert stopped.is_set()


def test_what_reads_wrong_once_is_no_bad_blob(tmp_path: Path) -> None:
    """A flipped bit on the way from the disk says nothing about what is on it."""

    class Healing(Pace):
        def take(self, size: int) -> None:
            super().take(size)
            os.pwrite(file, b"c", 0)

    (tmp_path / "file").write_bytes(b"Xontent")
    file = os.open(tmp_path / "file", os.O_RDWR)
    try:
        found = examine(file, Digest.of(b"content"), None, Healing())
        assert (found.is_good, found.is_steady) == (True, False)
    finally:
        os.close(file)


def test_a_bad_file_is_taken_from_everywhere(store: Store) -> None:
    store.put(TWO, A.root)
    rot(blob(store, LAYER))
    status = store.blobs.stat(LAYER)
    names = [ONE.path, TWO.path]
    assert store.quarantine.take(LAYER, status, iter(names)) == 3
    assert LAYER not in store.blobs
    assert not own(store, LAYER).exists()
    assert not own(store, LAYER, TWO).exists()
    (kept,) = store.quarantine
    assert kept.digest == LAYER
    assert (store.quarantine.path / "sha256" / f"{LAYER.encoded}.{status.st_ino:x}").exists()
    assert store.quarantine.take(LAYER, status, iter(names)) == 0


def test_a_good_file_of_that_name_stays(store: Store) -> None:
    copy = copied(store, LAYER)
    rot(blob(store, LAYER))
    store.quarantine.take(LAYER, store.blobs.stat(LAYER), iter([ONE.path]))
    assert copy.read_bytes() == A.blobs[LAYER]
    put(store, TWO, A)
    assert verified(store) != []
    assert blob(store, LAYER).read_bytes() == A.blobs[LAYER]


def test_nothing_is_collected_while_a_manifest_is_in_quarantine(store: Store) -> None:
    put(store, TWO, B)
    rot(blob(store, MANIFEST))
    store.quarantine.take(MANIFEST, store.blobs.stat(MANIFEST), iter([ONE.path]))
    before = set(store.blobs)
    with pytest.raises(InvalidContent, match="absent"):
        Collector(store, grace=-1).collect()
    assert set(store.blobs) == before
