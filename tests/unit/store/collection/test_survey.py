"""A look at a store by several processes sees what one sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.store import forks
from ocistow.store.collection import survey as module
from ocistow.store.collection.survey import Survey, moment
from ocistow.store.store import Store
from ocistow.testing.population import populate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    populate(tmp_path / "store", names=60, blobs=180)
    return tmp_path / "store"


def seen(path: Path, wanted: list[Digest]) -> object:
    """Return all that a survey says, in an order that does not depend on the walk."""
    with Store.open(path) as store:
        survey = Survey(store, moment(store))
        survey.take(wanted)
    catalog = survey.catalog
    names = {number: name for name, number in catalog.numbers.items()}
    blobs = {
        name: (catalog.sizes[n], catalog.mentioned[n], catalog.others[n], survey.pool(n))
        for name, n in catalog.numbers.items()
    }
    strays = sorted(
        (stray.name, stray.index, stray.is_empty, sorted(names[n] for n in stray.blobs))
        for stray in survey.strays
    )
    unmentioned = sorted(names[n] for n in survey.unmentioned())
    return blobs, strays, sorted(survey.spares), unmentioned, survey.is_steady


def several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 4)
    for where in (module, forks):
        monkeypatch.setattr(where, "processors", lambda: 3)


def test_processes_see_together_what_one_sees(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = sorted(index.parent for index in path.glob("layouts/**/index.json"))
    pool = sorted((path / "blobs/sha256").iterdir())
    for layout, blob in zip(layouts[::3], pool, strict=False):
        (layout / ".ocistow-0123456789abcdef").touch()  # waits for another name
        name = layout / "blobs/sha256" / blob.name
        if not name.exists():
            name.hardlink_to(blob)  # nobody mentions it
    for layout in layouts[::4]:
        own = f"only {layout} has it".encode()
        (layout / "blobs/sha256" / Digest.of(own).encoded).write_bytes(own)
    wanted = [Digest("sha256", blob.name) for blob in pool[::9]]

    one = seen(path, wanted)
    several(monkeypatch)
    assert seen(path, wanted) == one


def test_an_index_that_one_process_cannot_read_ends_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = sorted(path.glob("layouts/**/index.json"))[-1]
    index.unlink()
    index.write_text("{")
    several(monkeypatch)
    with pytest.raises(InvalidContent, match=str(index.parent.relative_to(path / "layouts"))):
        seen(path, [])
