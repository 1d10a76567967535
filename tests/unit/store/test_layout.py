import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from ocistow.oci.descriptor import OCI_LAYER, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch, InvalidContent, NotFound
from ocistow.oci.manifest import Index, Manifest, parse_manifest
from ocistow.oci.reference import Reference
from ocistow.store.layout import Layout
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image, minimal_index

A = minimal_image("a")
B = minimal_image("b", ["two", "three"])
NAME = Reference.parse("example.com/app:1")
MANIFEST = cast("Manifest", parse_manifest(A.load(A.root), A.root))
LAYER = MANIFEST.layers[0]


@pytest.fixture
def layout(store: Store) -> Layout:
    A.add_to(store.blobs)
    return store.put(NAME, A.root)


@pytest.fixture
def path(store: Store, layout: Layout) -> Path:
    return store.layouts / layout.name


def blob(path: Path, digest: Digest) -> Path:
    return path / "blobs" / digest.algorithm / digest.encoded


def test_a_layout_is_what_the_specification_says(layout: Layout, path: Path, store: Store) -> None:
    assert json.loads((path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert layout.index().manifests == (A.root,)
    assert {digest for digest, _ in layout.linked()} == A.blobs.keys()
    for digest, status in layout.linked():
        assert os.path.samestat(status, store.blobs.stat(digest))
        assert blob(path, digest).read_bytes() == A.blobs[digest]
    assert layout.config(MANIFEST).diff_ids == tuple(layer.digest for layer in MANIFEST.layers)


def test_an_index_may_hold_other_indexes(store: Store, path: Path) -> None:
    both = minimal_index(A, minimal_index(B))
    both.add_to(store.blobs)
    layout = store.put(NAME, both.root)
    assert {digest for digest, _ in layout.linked()} == both.blobs.keys()


def test_blobs_may_be_named_by_different_algorithms(store: Store) -> None:
    document = json.loads(A.load(A.root))
    document["layers"][0]["digest"] = str(Digest.of(A.blobs[LAYER.digest], "sha512"))
    raw = json.dumps(document).encode()
    A.add_to(store.blobs)
    store.blobs.add([A.blobs[LAYER.digest]], Digest.of(A.blobs[LAYER.digest], "sha512"))
    layout = store.put(NAME, Descriptor(OCI_MANIFEST, store.blobs.add([raw]), len(raw)))
    assert {digest.algorithm for digest, _ in layout.linked()} == {"sha256", "sha512"}
    assert violations(store.path) == []


def test_layers_may_be_absent(store: Store) -> None:
    A.add_to(store.blobs, without=[LAYER.digest])
    layout = store.put(NAME, A.root)
    assert {digest for digest, _ in layout.linked()} == A.blobs.keys() - {LAYER.digest}
    assert violations(store.path, sparse=True) == []


@pytest.mark.parametrize(
    "absent", [MANIFEST.config.digest, A.root.digest], ids=["config", "manifest"]
)
def test_manifests_and_configs_may_not_be_absent(store: Store, absent: Digest) -> None:
    A.add_to(store.blobs, without=[absent])
    with pytest.raises(NotFound) as caught:
        store.put(NAME, A.root)
    assert caught.value.name == absent
    assert list(store.names()) == []
    assert list(store.layouts.iterdir()) == []


def test_a_manifest_of_an_index_may_not_be_absent(store: Store) -> None:
    both = minimal_index(A, B)
    both.add_to(store.blobs, without=[B.root.digest])
    with pytest.raises(NotFound, match=B.root.digest.encoded):
        store.put(NAME, both.root)


def test_a_layer_of_another_size_is_refused(store: Store) -> None:
    document = json.loads(A.load(A.root))
    document["layers"][0]["size"] += 1
    raw = json.dumps(document).encode()
    A.add_to(store.blobs)
    digest = store.blobs.add([raw])
    with pytest.raises(InvalidContent, match="has 9 bytes, its descriptor announces 10"):
        store.put(NAME, Descriptor(OCI_MANIFEST, digest, len(raw)))


def test_what_only_the_layout_has_is_read_and_kept(
    layout: Layout, path: Path, store: Store
) -> None:
    for digest in A.blobs:
        store.blobs.delete(digest)
    assert layout.read(A.root) == A.load(A.root)
    B.add_to(store.blobs)
    layout.commit(Index.of([A.root, B.root]))
    assert {digest for digest, _ in layout.linked()} == A.blobs.keys() | B.blobs.keys()
    assert violations(store.path) == []


@pytest.mark.parametrize(
    "planted", ["directory", "symbolic link", "fifo", "socket", "beyond a link"]
)
def test_only_files_are_blobs_of_a_layout(
    layout: Layout, path: Path, store: Store, tmp_path: Path, planted: str
) -> None:
    store.blobs.delete(LAYER.digest)
    file = blob(path, LAYER.digest)
    file.unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / file.name).write_bytes(A.blobs[LAYER.digest])
    match planted:
        case "directory":
            file.mkdir()
        case "symbolic link":
            file.symlink_to(tmp_path / "elsewhere" / file.name)
        case "fifo":
            os.mkfifo(file)
        case "socket":
            os.mknod(file, 0o140644)
        case _:
            shutil.rmtree(file.parent)
            file.parent.symlink_to(tmp_path / "elsewhere")
    files = open_files()
    with pytest.raises(NotFound) as caught:
        layout.open(LAYER.digest)
    assert caught.value.name == LAYER.digest
    assert open_files() <= files


def test_what_is_read_is_checked(layout: Layout, store: Store, path: Path) -> None:
    store.blobs.delete(A.root.digest)
    file = blob(path, A.root.digest)
    file.chmod(0o644)
    file.write_bytes(A.load(A.root).replace(b"2", b"3", 1))
    with pytest.raises(DigestMismatch):
        layout.read(A.root)
    file.write_bytes(b"short")
    with pytest.raises(InvalidContent, match="does not have the 564 bytes"):
        layout.read(A.root)
    with pytest.raises(InvalidContent, match="at most 4194304"):
        layout.read(Descriptor(OCI_MANIFEST, A.root.digest, (4 << 20) + 1))


def sparse_giant(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 30)


def half(file: Path) -> None:
    file.write_bytes(b"{")


def link(file: Path) -> None:
    file.symlink_to("oci-layout")


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (sparse_giant, "has 4194305 bytes"),
        (half, "is not JSON"),
        (Path.touch, "is not JSON"),
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (link, "not a regular file"),
    ],
)
def test_what_is_not_an_index_is_refused(
    layout: Layout, path: Path, plant: Callable[[Path], object], message: str
) -> None:
    (path / "index.json").unlink()
    plant(path / "index.json")
    with pytest.raises(InvalidContent, match=message):
        layout.index()


def test_a_layout_without_an_index_is_not_found(layout: Layout, path: Path, store: Store) -> None:
    (path / "index.json").unlink()
    with pytest.raises(NotFound, match=r"example\.com/app/1"):
        layout.index()
    with pytest.raises(NotFound):
        store.layout(PurePosixPath("other")).index()
    assert list(store.layout(PurePosixPath("example.com")).linked()) == []


def test_committing_to_a_directory_that_must_be_there(
    layout: Layout, path: Path, store: Store
) -> None:
    (path / "oci-layout").unlink()
    layout.commit(Index.of([A.root]), existing=True)
    assert not (path / "oci-layout").exists()
    with pytest.raises(NotFound):
        store.layout(PurePosixPath("new")).commit(Index.of([]), existing=True)
    assert not (store.layouts / "new").exists()


def test_the_marker_of_a_foreign_layout_stays(layout: Layout, path: Path) -> None:
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0", "by": "another tool"}')
    layout.commit(Index.of([A.root]))
    assert "another tool" in (path / "oci-layout").read_text()


def test_a_marker_is_replaced(layout: Layout, path: Path) -> None:
    layout.mark(b'{"imageLayoutVersion": "1.0.0" }')
    assert (path / "oci-layout").read_bytes() == b'{"imageLayoutVersion": "1.0.0" }'
    assert sorted(os.listdir(path)) == ["blobs", "index.json", "oci-layout"]
    for content in (b"{}", b'{"imageLayoutVersion": "2.0.0"}', b"[]"):
        with pytest.raises(InvalidContent):
            layout.mark(content)


def test_removing_keeps_the_pool_and_other_layouts(layout: Layout, store: Store) -> None:
    other = store.put(Reference.parse("example.com/app:2"), A.root)
    assert layout.remove() == []
    assert list(store.names()) == [other.name]
    assert set(store.blobs) == A.blobs.keys()
    assert violations(store.path) == []
    assert other.remove() == []
    assert list(store.layouts.iterdir()) == []


def test_what_is_not_there_cannot_be_removed(layout: Layout, path: Path, store: Store) -> None:
    (path.parent / "notes").touch()
    for name in ("absent", "example.com/app"):
        with pytest.raises(NotFound):
            store.layout(PurePosixPath(name)).remove()
    layout.remove()
    with pytest.raises(NotFound):
        layout.remove()


def test_a_layout_at_the_root_can_be_removed(store: Store) -> None:
    A.add_to(store.blobs)
    layout = store.layout(PurePosixPath())
    layout.commit(Index.of([A.root]))
    assert list(store.names()) == [PurePosixPath()]
    assert layout.remove() == []
    assert list(store.layouts.iterdir()) == []


def test_a_removal_that_was_interrupted_can_be_done_again(
    layout: Layout, path: Path, store: Store
) -> None:
    (path / "index.json").unlink()
    assert store.find(str(NAME)).remove() == []
    assert list(store.layouts.iterdir()) == []
    path.mkdir(parents=True)
    assert layout.remove() == []
    assert list(store.layouts.iterdir()) == []


def test_removing_tells_what_else_was_there(layout: Layout, path: Path) -> None:
    (path / "notes").touch()
    (path / "blobs" / "sha256" / "unfinished").touch()
    blob(path, LAYER.digest).unlink()
    blob(path, LAYER.digest).mkdir()
    assert layout.remove() == ["blobs", "notes"]
    assert sorted(os.listdir(path / "blobs" / "sha256")) == sorted(
        [LAYER.digest.encoded, "unfinished"]
    )


def test_removing_takes_what_a_dead_process_left(layout: Layout, path: Path) -> None:
    """A mount does not show these names, so nobody could remove them there."""
    for above in (path, path / "blobs", path / "blobs" / "sha256"):
        (above / ".ocistow-0123456789abcdef").touch()
    assert layout.remove() == []
    assert not path.exists()


def test_a_directory_called_like_the_marker_stays(layout: Layout, path: Path) -> None:
    (path / "oci-layout").unlink()
    (path / "oci-layout").mkdir()
    assert layout.remove() == ["oci-layout"]


def test_an_index_that_is_a_directory_is_no_layout(layout: Layout, path: Path) -> None:
    (path / "oci-layout").unlink()
    (path / "index.json").unlink()
    (path / "index.json").mkdir()
    with pytest.raises(NotFound):
        layout.remove()


# Planted symbolic links: whatever lies behind them is neither written nor deleted.


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory that looks like a layout's, with files that must stay."""
    path = tmp_path / "elsewhere"
    for digest in A.blobs:
        blob(path, digest).parent.mkdir(parents=True, exist_ok=True)
        blob(path, digest).write_text("precious")
    (path / "index.json").write_text("precious")
    (path / "oci-layout").write_text("precious")
    return path


def content(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize("at", ["example.com", "example.com/app", "example.com/app/1"])
def test_no_write_follows_a_link_in_a_name(store: Store, elsewhere: Path, at: str) -> None:
    A.add_to(store.blobs)
    before = content(elsewhere)
    (store.layouts / at).parent.mkdir(parents=True, exist_ok=True)
    (store.layouts / at).symlink_to(elsewhere)
    with pytest.raises(InvalidContent):
        store.put(NAME, A.root)
    for change in (
        lambda: store.layout(NAME.path).commit(Index.of([])),
        store.layout(NAME.path).remove,
        store.layout(NAME.path).index,
    ):
        with pytest.raises(InvalidContent, match="is not a directory"):
            change()
    assert content(elsewhere) == before
    assert list(store.names()) == []


@pytest.mark.parametrize("at", ["blobs", "blobs/sha256"])
def test_no_write_follows_a_link_to_other_blobs(
    layout: Layout, path: Path, store: Store, elsewhere: Path, at: str
) -> None:
    before = content(elsewhere)
    shutil.rmtree(path / at)
    (path / at).symlink_to(elsewhere / at)
    with pytest.raises(InvalidContent, match="is not a directory"):
        store.put(NAME, A.root)
    with pytest.raises(InvalidContent, match="is not a directory"):
        list(layout.linked())
    assert layout.remove() == ["blobs"]
    assert content(elsewhere) == before


def test_no_write_follows_a_link_to_another_file(
    layout: Layout, path: Path, store: Store, elsewhere: Path
) -> None:
    before = content(elsewhere)
    for name in (
        "index.json",
        "oci-layout",
        f"blobs/sha256/{LAYER.digest.encoded}",
    ):
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(elsewhere / name)
    store.put(NAME, A.root)
    assert content(elsewhere) == before
    assert layout.index().manifests == (A.root,)
    (path / "index.json").unlink()
    (path / "index.json").symlink_to(elsewhere / "index.json")
    assert layout.remove() == []
    assert content(elsewhere) == before


def test_layers_that_vanish_while_they_are_listed_are_left_out(layout: Layout) -> None:
    listing = layout.linked()
    first, _ = next(listing)
    layout.remove()
    assert first in A.blobs
    assert list(listing) == []


def test_files_that_are_no_blobs_are_not_listed(layout: Layout, path: Path) -> None:
    (path / "blobs" / "sha256" / "unfinished").touch()
    assert {digest for digest, _ in layout.linked()} == A.blobs.keys()


def test_a_directory_in_the_place_of_the_index_is_an_error(layout: Layout, path: Path) -> None:
    (path / "index.json").unlink()
    (path / "index.json").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        layout.commit(Index.of([]))
    assert sorted(os.listdir(path)) == ["blobs", "index.json", "oci-layout"]


def test_an_artifact_may_be_named(store: Store) -> None:
    digest = store.blobs.add([b"artifact"])
    layout = store.put(NAME, Descriptor(OCI_LAYER, digest, 8))
    assert [digest for digest, _ in layout.linked()] == [digest]


def test_other_errors_on_the_way_are_passed_on(store: Store) -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        store.layout(PurePosixPath("n" * 256)).index()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_commit_removes_what_the_dead_left(
    layout: Layout, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [path / ".ocistow-dead", path / "blobs" / "sha256" / ".ocistow-dead"]
    for file in left:
        file.touch()
    layout.commit(Index.of([A.root]))
    assert all(file.exists() for file in left)  # somebody may be about to rename it
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    layout.commit(Index.of([A.root]))
    assert not any(file.exists() for file in left)
