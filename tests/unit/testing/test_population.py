"""Large stores for tests are stores like any other."""

from pathlib import Path

import pytest

from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.invariants import pool, strays, violations
from ocistow.testing.population import Population, populate


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population") / "store"


@pytest.fixture(scope="module")
def made(store: Path) -> Population:
    return populate(store, names=1000, blobs=3000)


def test_every_promise_holds(store: Path, made: Population) -> None:
    assert violations(store, sparse=True) == []
    assert strays(store) == []
    assert made.sparse
    assert len(violations(store)) >= len(made.sparse)


def test_there_is_what_was_asked_for(store: Path, made: Population) -> None:
    with Store.open(store) as opened:
        names = list(opened.names())
        assert sorted(opened.find(name).name for name in made.names) == sorted(names)
    assert len(names) == 1000
    assert len(pool(store)) == made.blobs == pytest.approx(3000, abs=10)
    assert len({name.parts[0] for name in names}) == 4
    assert len({name.parent for name in names}) > 30


def test_layouts_share_files_and_garbage_is_collected(store: Path, made: Population) -> None:
    files = list((store / "blobs" / "sha256").iterdir())
    links = [file.stat().st_nlink for file in files]
    assert max(links) > 50
    assert links.count(1) == made.garbage > 0
    with Store.open(store) as opened:
        assert Collector(opened, grace=-60).collect(dry_run=True).blobs == made.garbage


def test_the_same_arguments_make_the_same_store(tmp_path: Path) -> None:
    first = populate(tmp_path / "first", names=20, blobs=60, seed=1)
    assert populate(tmp_path / "second", names=20, blobs=60, seed=1) == first
    assert pool(tmp_path / "first") == pool(tmp_path / "second")
    populate(tmp_path / "third", names=20, blobs=60, seed=2)
    assert pool(tmp_path / "first").isdisjoint(pool(tmp_path / "third"))
