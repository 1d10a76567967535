"""A census by several processes comes to what one comes to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ocistow.audit import census as module
from ocistow.audit.usage import Usage, usage
from ocistow.store import forks
from ocistow.store.store import Store
from ocistow.testing.population import populate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    populate(tmp_path / "store", names=60, blobs=180)
    return tmp_path / "store"


def counted(path: Path) -> Usage:
    with Store.open(path) as store:
        return usage(store)


def several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 4)
    for where in (module, forks):
        monkeypatch.setattr(where, "processors", lambda: 3)


def parts(found: Usage) -> object:
    """Return all numbers; the order of shares is that of the walk."""
    rest = (found.layouts, found.total, found.separate, found.names, found.rest)
    more = (found.unlinked, found.unreferenced, found.unreferenced_blobs, found.outside)
    shares = sorted((share.layouts, share.size) for share in found.shares)
    releases = sorted((share.layouts, share.size) for share in found.releases)
    return rest, more, shares, releases, found.directories, found.leased, found.unreadable


def odd(path: Path) -> None:
    """Let a layout be odd in each way that there is; the first is plain."""
    layouts = sorted(index.parent for index in path.glob("layouts/**/index.json"))
    pool = path / "blobs/sha256"
    blobs = [sorted((layout / "blobs/sha256").iterdir()) for layout in layouts]
    (layouts[1] / "notes").write_text("n" * 5000)
    (layouts[2] / "index.json").unlink()  # only links are left
    (layouts[3] / "index.json").write_text("{")
    os.link(layouts[4] / "oci-layout", path / "kept")
    blobs[5][0].unlink()  # sparse, or without its manifest
    (layouts[6] / "blobs/sha256" / ("0" * 64)).write_text("its own")
    shutil.copy2(blobs[7][0], layouts[7] / "copy")
    (layouts[7] / "copy").replace(blobs[7][0])
    stranger = next(blob for blob in pool.iterdir() if blob not in blobs[8])
    os.link(stranger, layouts[8] / "blobs/sha256/other")
    mine = {blob.name for blob in blobs[9]}
    useless = next(blob for blob in pool.iterdir() if blob.name not in mine and blob != stranger)
    os.link(useless, layouts[9] / "blobs/sha256" / useless.name)
    (layouts[10] / "blobs/sha512").mkdir()
    (layouts[11] / "blobs/else").mkdir()
    (layouts[12] / "oci-layout").unlink()
    (layouts[12] / "oci-layout").symlink_to("index.json")
    shutil.copytree(layouts[13], layouts[14] / "inner")
    (layouts[15] / "blobs/.ocistow-0123456789abcdef").touch()
    (layouts[-1].parent / "beside").write_text("b")  # so are all others in that repository
    next(p for p in pool.iterdir() if p.stat().st_nlink == 1).chmod(0o400)


def test_processes_count_together_what_one_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = counted(path)
    several(monkeypatch)
    assert parts(counted(path)) == parts(one)


def test_what_is_odd_counts_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd(path)
    one = counted(path)
    several(monkeypatch)
    assert parts(counted(path)) == parts(one)
