import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.digest import Digest
from ocistow.oci.document import MAX_DOCUMENT
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.store.remotes import FILE, Remote, RepositoryName
from ocistow.store.store import Store

HUB = RepositoryName("index.docker.io", "library/alpine")
NEAR = RepositoryName("localhost:5000", "blobs")
FAR = RepositoryName("example.com", "a/b")
LAYER = Digest.of(b"layer")
OTHER = Digest.of(b"other")


def test_a_store_without_remotes_has_no_file(store: Store) -> None:
    assert store.remotes.list() == ()
    assert store.remotes.places(LAYER) == ()
    store.remotes.retain([], store.remotes.version())
    assert not (store.path / FILE).exists()


def test_remotes_are_asked_in_their_order_and_then_the_origin(store: Store) -> None:
    store.remotes.note_origin(FAR, [LAYER])
    store.remotes.add("near", NEAR)
    store.remotes.add("hub", HUB)
    assert store.remotes.list() == (Remote("near", NEAR), Remote("hub", HUB))
    assert store.remotes.places(LAYER) == (NEAR, HUB, FAR)
    assert store.remotes.places(OTHER) == (NEAR, HUB)
    store.remotes.remove("near")
    assert store.remotes.places(LAYER) == (HUB, FAR)


def test_the_file_says_it_all(store: Store) -> None:
    store.remotes.add("near", NEAR)
    store.remotes.note_origin(FAR, [LAYER])
    assert json.loads((store.path / FILE).read_bytes()) == {
        "remotes": [{"name": "near", "repository": "localhost:5000/blobs"}],
        "origins": {"example.com/a/b": [str(LAYER)]},
    }
    assert (store.path / FILE).stat().st_mode & 0o777 == 0o644
    with Store.open(store.path) as again:
        assert again.remotes.places(LAYER) == (NEAR, FAR)


def test_a_name_is_one_repository(store: Store) -> None:
    store.remotes.add("near", NEAR)
    store.remotes.add("near", NEAR)
    assert len(store.remotes.list()) == 1
    with pytest.raises(InvalidContent, match="the remote near is localhost:5000/blobs already"):
        store.remotes.add("near", FAR)
    with pytest.raises(NotFound, match="the remote far"):
        store.remotes.remove("far")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 65, "a\n"])
def test_a_name_is_a_word(store: Store, name: str) -> None:
    with pytest.raises(InvalidContent, match="not a name for a remote"):
        store.remotes.add(name, NEAR)


@pytest.mark.parametrize(
    "text", ["a.io/b:1", f"a.io/b@{LAYER}", "localhost:5000", "a.io/../b", "", "a.io/B"]
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent):
        RepositoryName.parse(text)


@given(st.sampled_from([HUB, NEAR, FAR]))
def test_a_repository_is_read_as_it_is_written(repository: RepositoryName) -> None:
    assert RepositoryName.parse(str(repository)) == repository


def test_origins_of_what_is_not_needed_any_more_are_forgotten(store: Store) -> None:
    store.remotes.note_origin(FAR, [LAYER, OTHER])
    store.remotes.note_origin(HUB, [OTHER])
    store.remotes.retain([LAYER], store.remotes.version())
    assert (store.remotes.places(LAYER), store.remotes.places(OTHER)) == ((FAR,), ())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"remotes": {}}',
        b'{"remotes": [{"name": "x"}]}',
        b'{"remotes": [{"name": "", "repository": "a.io/b"}]}',
        b'{"origins": []}',
        b'{"origins": {"a.io/b": [1]}}',
        b'{"origins": {"a.io/b": ["sha256:0"]}}',
        b"{" + b" " * MAX_DOCUMENT + b"}",
    ],
)
def test_a_malformed_file_is_named(store: Store, content: bytes) -> None:
    (store.path / FILE).write_bytes(content)
    with pytest.raises(InvalidContent):
        store.remotes.list()
    with pytest.raises(InvalidContent):
        store.remotes.note_origin(FAR, [LAYER])
    assert (store.path / FILE).read_bytes() == content


def test_the_file_stays_readable(store: Store) -> None:
    store.remotes.add("near", NEAR)
    many = [Digest("sha512", f"{number:0128x}") for number in range(30_000)]
    with pytest.raises(InvalidContent, match="at most"):
        store.remotes.note_origin(FAR, many)
    assert store.remotes.places(many[0]) == (NEAR,)


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    def add(number: int) -> None:
        with Store.open(tmp_path) as mine:
            mine.remotes.add(f"r{number}", NEAR)

    with Store.create(tmp_path) as store:
        threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {remote.name for remote in store.remotes.list()} == {f"r{n}" for n in range(8)}
