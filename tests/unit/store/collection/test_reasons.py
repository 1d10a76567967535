import json

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.store.collection.reasons import reasons, resolve
from ocistow.store.quarantine import DIRECTORY
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image, minimal_index

A = minimal_image("a", ["one", "two"])
B = minimal_image("b", ["two", "three"])
BOTH = minimal_index(A, B)
ONE, TWO = (Reference.parse(f"example.com/app:{number}") for number in (1, 2))


def put(store: Store) -> None:
    BOTH.add_to(store.blobs)
    store.put(ONE, BOTH.root)
    store.put(TWO, B.root)


def digest_of(content: bytes) -> Digest:
    return next(d for d, c in BOTH.blobs.items() if c.startswith(b"layer") and content in c)


def test_every_image_is_named_with_the_way_to_the_blob(store: Store) -> None:
    put(store)
    found = reasons(store, digest_of(b"three"))
    assert [(use.name, use.way) for use in found.uses] == [
        (ONE.path, (BOTH.root.digest, B.root.digest, digest_of(b"three"))),
        (TWO.path, (B.root.digest, digest_of(b"three"))),
    ]
    assert found.is_kept
    assert [use.name for use in reasons(store, A.root.digest).uses] == [ONE.path]


def test_who_leased_it_is_named(store: Store) -> None:
    A.add_to(store.blobs)
    with store.leases.keeping([A.root.digest]):
        found = reasons(store, A.root.digest)
        assert (found.is_kept, len(found.holders)) == (True, 1)
    assert not reasons(store, A.root.digest).is_kept


def test_what_nobody_needs_has_a_time_and_maybe_a_name(store: Store) -> None:
    put(store)
    store.put(ONE, B.root)
    found = reasons(store, digest_of(b"one"))
    assert not found.is_kept
    assert found.links == (ONE.path,)
    assert found.changed is not None
    assert found.changed >= store.blobs.stat(digest_of(b"one")).st_ctime


def test_what_is_absent_may_be_needed_or_in_quarantine(store: Store) -> None:
    put(store)
    gone = digest_of(b"one")
    store.blobs.delete(gone)
    directory = store.path / DIRECTORY / gone.algorithm
    directory.mkdir(parents=True)
    (directory / f"{gone.encoded}.1f").touch()
    found = reasons(store, gone)
    assert (found.size, found.is_quarantined) == (None, True)
    assert [use.name for use in found.uses] == [ONE.path]


def test_what_is_not_understood_keeps_without_a_way(store: Store) -> None:
    A.add_to(store.blobs)
    document = json.dumps({"what": str(A.root.digest)}).encode()
    store.blobs.add([document])
    root = Descriptor("application/vnd.example.unknown+json", Digest.of(document), len(document))
    store.layout(ONE.path).commit(Index.of([root]))
    (use,) = reasons(store, A.root.digest).uses
    assert use.way == (A.root.digest,)


def test_the_beginning_of_a_digest_is_enough_if_it_is_one_blobs(store: Store) -> None:
    put(store)
    digest = A.root.digest
    assert resolve(store, str(digest)) == digest
    assert resolve(store, digest.encoded) == digest
    assert resolve(store, digest.encoded[:12]) == digest
    assert resolve(store, f"sha256:{digest.encoded[:12]}") == digest
    absent = "0" * 64
    assert resolve(store, absent).encoded == absent
    with pytest.raises(NotFound):
        resolve(store, "0" * 20)
    counts: dict[str, int] = {}
    for blob in store.blobs:
        counts[blob.encoded[0]] = counts.get(blob.encoded[0], 0) + 1
    for start, number in counts.items():
        if number > 1:
            with pytest.raises(InvalidContent, match=f"{number} blobs begin with sha256:{start}"):
                resolve(store, start)


@pytest.mark.parametrize("text", ["", "sha256:", "xyz", "md5:00", "../..", "sha256:0/"])
def test_other_words_are_refused(store: Store, text: str) -> None:
    with pytest.raises(InvalidContent, match="digest"):
        resolve(store, text)
