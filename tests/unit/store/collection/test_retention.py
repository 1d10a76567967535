import os
import time

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.oci.reference import Reference
from ocistow.store.collection.retention import Rule, drop, outdated
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

IMAGES = [minimal_image(str(number)) for number in range(4)]
DAY = 86_400.0


@pytest.fixture(autouse=True)
def images(store: Store) -> None:
    """Four tags each in two repositories, the last one the newest, and a digest."""
    for image in IMAGES:
        image.add_to(store.blobs)
    for repository in ("a.io/b", "a.io/c"):
        for number, image in enumerate(IMAGES):
            store.put(Reference.parse(f"{repository}:{number}"), image.root)
    store.put(Reference.parse(f"a.io/b@{IMAGES[0].root.digest}"), IMAGES[0].root)


def names(store: Store, rule: Rule, *words: str, after: float = 0) -> list[str]:
    return [str(one.name) for one in outdated(store, rule, words, time.time() + after)]


def test_so_many_of_each_repository_stay_as_the_store_got_last(store: Store) -> None:
    found = names(store, Rule(keep_last=3))
    assert found == ["a.io/b/0", "a.io/b/1", "a.io/c/0"]  # the digest came last
    store.put(Reference.parse("a.io/c:0"), IMAGES[1].root)
    assert names(store, Rule(keep_last=3), "a.io/c") == ["a.io/c/1"]


def test_both_must_hold(store: Store) -> None:
    assert names(store, Rule(older_than=DAY)) == []
    assert len(names(store, Rule(older_than=DAY), after=2 * DAY)) == 9
    assert names(store, Rule(keep_last=1, older_than=DAY)) == []
    assert len(names(store, Rule(keep_last=1, older_than=DAY), after=2 * DAY)) == 7


def test_only_what_matches_counts(store: Store) -> None:
    assert names(store, Rule(keep_last=1), "a.io/*:[01]") == ["a.io/b/0", "a.io/c/0"]
    with pytest.raises(InvalidContent):
        names(store, Rule(keep_last=1), "../x")


def test_names_go_and_others_stay(store: Store) -> None:
    going = outdated(store, Rule(keep_last=1))
    assert drop(store, going, dry_run=True) == going
    assert len(list(store.names())) == 9
    assert drop(store, going) == going
    assert len(list(store.names())) == 2
    assert drop(store, going) == []


def test_a_name_stays_that_got_another_image_or_whose_image_is_in_use(store: Store) -> None:
    going = outdated(store, Rule(keep_last=3), ["a.io/b"])
    store.put(Reference.parse("a.io/b:0"), IMAGES[2].root)
    with store.leases.keeping([IMAGES[1].root.digest]):
        assert drop(store, going) == []
    assert [str(one.name) for one in drop(store, going)] == ["a.io/b/1"]


def test_a_malformed_name_is_not_for_a_rule_to_remove(store: Store) -> None:
    (store.layouts / "a.io/c/0/index.json").write_text("{}x")
    os.utime(store.layouts / "a.io/c/0/index.json", (1, 1))
    gone = drop(store, outdated(store, Rule(older_than=0), ["a.io/c"], time.time() + 1))
    assert [str(one.name) for one in gone] == ["a.io/c/1", "a.io/c/2", "a.io/c/3"]
