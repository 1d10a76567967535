import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.repair import Repairer, check_place, open_places
from ocistow.store.remotes import RepositoryName
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.disk import QuickDisk
from ocistow.testing.faults import Action, Endless, Fault, Flip, Status, Surplus
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image, minimal_index
from ocistow.testing.registry import Registry

A = minimal_image("a")
BOTH = minimal_index(A, minimal_image("b"))
NAMES = [Reference.parse(f"example.com/app:{number}") for number in range(10)]
LAYER, OTHER, CONFIG, MANIFEST = A.blobs


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "other", QuickDisk()) as store:
        BOTH.add_to(store.blobs)
        store.put(NAMES[0], BOTH.root)
        yield store


@pytest.fixture
def store(tmp_path: Path, other: Store) -> Iterator[Store]:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        BOTH.add_to(store.blobs)
        for name in NAMES:
            store.put(name, BOTH.root)
        yield store


def lose(store: Store, *digests: Digest) -> None:
    for digest in digests:
        status = store.blobs.stat(digest)
        store.quarantine.take(digest, status, (name.path for name in NAMES))


def complete(store: Store, *words: str, access: Access | None = None) -> dict[Digest, str]:
    with open_places(words, store, access or Access()) as places:
        repairer = Repairer(store, {}, places)
        return {r.digest: r.origin for name in NAMES for r in repairer.complete(name.path)}


@pytest.mark.parametrize("lost", [[LAYER], [CONFIG, LAYER], [MANIFEST], list(BOTH.blobs)])
@pytest.mark.parametrize("transport", ["", "oci:"])
def test_all_images_get_back_what_they_lost(
    store: Store, other: Store, lost: list[Digest], transport: str
) -> None:
    path = other.path if not transport else other.layouts / NAMES[0].path
    lose(store, *lost)
    found = complete(store, f"{transport}{path}")
    assert found == dict.fromkeys(lost, f"{transport}{path}")
    assert violations(store.path) == []
    (inode,) = {os.stat(p).st_ino for p in store.layouts.rglob(lost[0].encoded)}
    assert inode == store.blobs.stat(lost[0]).st_ino
    assert complete(store, f"{transport}{path}") == {}


def test_a_place_with_something_else_under_the_name_is_passed_over(
    store: Store, other: Store, tmp_path: Path
) -> None:
    shutil.copytree(other.path, tmp_path / "bad")
    bad = tmp_path / "bad" / "blobs" / "sha256" / LAYER.encoded
    bad.chmod(0o644)
    bad.write_bytes(b"!" * len(A.blobs[LAYER]))
    lose(store, LAYER)
    words = [f"oci:{tmp_path / 'none'}", str(tmp_path / "bad"), str(other.path)]
    assert complete(store, *words) == {LAYER: str(other.path)}
    assert violations(store.path) == []


def test_who_finds_it_nowhere_says_where_he_looked(store: Store, tmp_path: Path) -> None:
    lose(store, LAYER)
    with Store.create(tmp_path / "empty"):
        pass
    with open_places([str(tmp_path / "empty")], store, Access()) as places:
        (repair,) = Repairer(store, {}, places).complete(NAMES[0].path)
    assert repair.origin == ""
    assert repair.reasons == (f"{tmp_path / 'empty'}: {LAYER}: not found",)


def test_another_layouts_own_copy_will_do(store: Store) -> None:
    file = store.layouts / NAMES[3].path / "blobs" / "sha256" / LAYER.encoded
    file.unlink()
    file.write_bytes(A.blobs[LAYER])
    lose(store, LAYER)
    repairer = Repairer(store, {LAYER: NAMES[3].path}, [])
    assert [r.origin for r in repairer.complete(NAMES[0].path)] == [str(NAMES[3].path)]
    assert store.blobs.stat(LAYER).st_nlink == 2


def test_what_was_left_away_on_purpose_stays_away(store: Store, other: Store) -> None:
    store.blobs.delete(LAYER)
    for file in store.layouts.rglob(LAYER.encoded):
        file.unlink()
    store.remotes.note_origin(RepositoryName("example.com", "app"), [LAYER])
    assert complete(store, str(other.path)) == {}


@pytest.mark.parametrize("word", ["-", "nowhere", "oci:", "ftp://example.com"])
def test_a_word_that_is_no_place_is_refused(word: str) -> None:
    with pytest.raises(InvalidContent):
        check_place(word)


@pytest.mark.parametrize(
    ("location", "action"),
    [
        ("{there}/v2/app/blobs/{digest}", None),
        ("{there}/v2/app/blobs/{digest}", Flip()),
        ("{there}/v2/app/blobs/{digest}", Surplus(64 << 20)),
        ("{there}/v2/app/blobs/{digest}", Endless()),
        ("{there}/v2/app/blobs/{digest}", Endless(chunked=True)),
        ("{here}/v2/app/blobs/{digest}", None),
        ("file:///etc/passwd", None),
    ],
    ids=["honest", "wrong", "longer", "endless", "endless chunks", "loop", "file"],
)
def test_a_registry_may_send_us_elsewhere_but_not_our_credentials(
    store: Store, other: Store, location: str, action: Action | None
) -> None:
    lose(store, LAYER)
    with Registry() as there, Registry(credentials=("user", "secret")) as here:
        for registry in (here, there):
            registry.repositories.load(other.layouts / NAMES[0].path, "app")
        place = location.format(here=here.url, there=there.url, digest=LAYER)
        here.faults.append(Fault("GET", "/blobs/", Status(307, {"Location": place}), None))
        if action is not None:
            there.faults.append(Fault("GET", "/blobs/", action, None))
        word = f"docker://{here.host}/app"
        found = complete(store, word, access=Access(("user", "secret")))
        is_honest = place.startswith(there.url) and action is None
        assert found[LAYER] == (word if is_honest else "")
        assert (LAYER in store.blobs) == is_honest
        assert bool(there.requests) == place.startswith(there.url)
        assert not any("Authorization" in request.headers for request in there.requests)
        assert all(request.answered < 32 << 20 for request in there.requests)
    assert violations(store.path, sparse=True) == []


def test_places_are_closed(store: Store, other: Store) -> None:
    before = open_files()
    lose(store, LAYER)
    with ExitStack():
        complete(store, str(other.path))
    assert len(open_files() - before) <= 1
