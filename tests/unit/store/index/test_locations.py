from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.locations import SOURCES, Locations

HOST = "registry.example"
IMAGE, OTHER, LAYER, CONFIG = (Digest("sha256", letter * 64) for letter in "abcd")


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(IndexDatabase(tmp_path / "index.sqlite"))


def test_a_blob_is_found_here_by_its_manifest_and_elsewhere_by_repository(
    locations: Locations,
) -> None:
    locations.add(HOST, "app", {IMAGE: [LAYER]})
    locations.add(HOST, "base", {OTHER: [LAYER]})
    locations.add("other.example", "more", {OTHER: [LAYER]})
    found = locations.find(HOST, "app", [LAYER, IMAGE, CONFIG])
    assert found.here == {LAYER: IMAGE, IMAGE: IMAGE}
    assert found.elsewhere == {LAYER: ("base",)}


def test_the_manifest_seen_last_speaks_for_a_blob(locations: Locations) -> None:
    locations.add(HOST, "app", {IMAGE: [LAYER]})
    locations.add(HOST, "app", {OTHER: [LAYER]})
    assert locations.find(HOST, "app", [LAYER]).here == {LAYER: OTHER}


def test_few_repositories_are_named_the_last_seen_first(locations: Locations) -> None:
    names = [f"app-{number}" for number in range(SOURCES + 2)]
    for name in names:
        locations.add(HOST, name, {IMAGE: [LAYER]})
    found = locations.find(HOST, "new", [LAYER])
    assert found.elsewhere[LAYER] == tuple(reversed(names))[:SOURCES]


def test_what_a_repository_lost_is_forgotten(locations: Locations) -> None:
    locations.add(HOST, "app", {IMAGE: [LAYER, CONFIG]})
    locations.forget(HOST, "app", [LAYER])
    locations.forget(HOST, "none", [CONFIG])
    assert locations.find(HOST, "new", [LAYER, CONFIG]).elsewhere == {CONFIG: ("app",)}
