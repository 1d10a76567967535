import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.fusefs.places import (
    Place,
    digest_in,
    digest_of,
    has_rules,
    is_hidden,
    place_of,
    role_of,
)
from ocistow.oci.digest import HEX_LENGTHS, Digest
from ocistow.oci.errors import InvalidContent

NAMES = st.one_of(
    st.sampled_from([b"blobs", b"sha256", b"sha512", b"blake3", b"index.json", b"oci-layout"]),
    st.binary(min_size=1, max_size=70).filter(lambda name: b"/" not in name and b"\0" not in name),
    st.text("0123456789abcdef", min_size=63, max_size=65).map(str.encode),
)


@pytest.mark.parametrize(
    ("above", "parent", "name", "place"),
    [
        (b"blobs", b"sha256", b"0" * 64, Place.BLOB),
        (b"blobs", b"blake3", b"f" * 64, Place.BLOB),
        (b"blobs", b"sha512", b"0" * 128, Place.BLOB),
        (b"blobs", b"sha512", b"0" * 64, Place.TEMPORARY),
        (b"blobs", b"sha256", b"0" * 64 + b"1234", Place.TEMPORARY),
        (b"blobs", b"sha256", b"F" * 64, Place.TEMPORARY),
        (b"blobs", b"sha256", b"\xd9\xa0" * 32, Place.TEMPORARY),
        (b"blobs", b"md5", b"0" * 32, Place.ORDINARY),
        (b"blobs", b"sha256", b"index.json", Place.TEMPORARY),
        (b"tag", b"blobs", b"oci-put-blob1", Place.TEMPORARY),
        (b"repo", b"sha256", b"0" * 64, Place.ORDINARY),
        (b"repo", b"tag", b"index.json", Place.INDEX),
        (b"", b"", b"index.json", Place.INDEX),
        (b"", b"", b"oci-layout", Place.MARKER),
        (b"repo", b"tag", b"oci-put-blob123", Place.ORDINARY),
        (b"", b"", b"blobs", Place.ORDINARY),
        (b"repo", b"tag", b"index.json.tmp", Place.ORDINARY),
    ],
)
def test_places(above: bytes, parent: bytes, name: bytes, place: Place) -> None:
    assert place_of(above, parent, name) is place


@given(above=NAMES, parent=NAMES, name=NAMES)
def test_only_digests_of_registered_algorithms_are_blobs(
    above: bytes, parent: bytes, name: bytes
) -> None:
    is_blob = place_of(above, parent, name) is Place.BLOB
    try:
        digest: Digest | None = Digest.parse(f"{os.fsdecode(parent)}:{os.fsdecode(name)}")
    except InvalidContent:
        digest = None
    assert is_blob == (above == b"blobs" and digest is not None)
    if is_blob:
        assert digest_of(parent, name) == digest


@given(above=NAMES, parent=NAMES, new_parent=NAMES, name=NAMES, directory=NAMES, new=NAMES)
def test_directories_that_keep_their_role_keep_the_rules_for_their_files(
    above: bytes, parent: bytes, new_parent: bytes, name: bytes, directory: bytes, new: bytes
) -> None:
    if role_of(parent, directory) == role_of(new_parent, new):
        assert place_of(parent, directory, name) is place_of(new_parent, new, name)
        assert place_of(directory, above, name) is place_of(new, above, name)


def test_every_algorithm_has_its_role() -> None:
    roles = {role_of(b"blobs", name.encode()) for name in HEX_LENGTHS}
    assert len(roles | {role_of(b"", b"blobs"), role_of(b"blobs", b"x"), role_of(b"", b"x")}) == 6


def test_the_stores_own_files_are_hidden() -> None:
    assert is_hidden(b".ocistow-1")
    assert not is_hidden(b"index.json")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", False),
        ("a", False),
        ("a/b/1", False),
        ("blobs", True),
        ("a/blobs", True),
        ("a/blobs/sha256", True),
        ("a/blobs/other", True),
        ("a/blobs/other/b", False),
        ("a/sha256", False),
    ],
)
def test_directories_in_which_files_are_what_they_are_called(path: str, expected: bool) -> None:
    assert has_rules(PurePosixPath(path)) == expected


@pytest.mark.parametrize(
    ("name", "is_found"),
    [(b"%b", True), (b"%b1234567", True), (b".%b.aB3xY9", True), (b"x%b", True), (b"a", False)],
)
def test_a_temporary_file_may_be_called_for_a_blob(name: bytes, is_found: bool) -> None:
    encoded = Digest.of(b"content").encoded
    found = digest_in(b"sha256", name.replace(b"%b", encoded.encode()))
    assert found == (Digest("sha256", encoded) if is_found else None)
