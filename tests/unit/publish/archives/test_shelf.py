"""Archives that are read anywhere are those that are published."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.archives.shelf import FORMS, Archived, OpenArchive, Shelf
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.publish.transports import open_sink
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.images import artifact_layout, image_layout, index_layout, sparse_layout

IMAGE = PurePosixPath("example.org/app/1")
TRANSPORTS = {".oci.tar": "oci-archive", ".docker.tar": "docker-archive"}


def put(store: Store, layout: Path, name: str = "example.org/app:1") -> None:
    copy(LayoutSource(layout), StoreSink(store, Reference.parse(name)))


def content(archive: OpenArchive, offset: int = 0, size: int = 1 << 40) -> bytes:
    return b"".join(
        piece if isinstance(piece, bytes) else os.pread(piece.file, piece.size, piece.offset)
        for piece in archive.pieces(offset, size)
    )


def opened(shelf: Shelf, ending: str) -> bytes:
    archive = shelf.open(IMAGE.with_name(f"1{ending}"))
    try:
        return content(archive)
    finally:
        archive.close()


def found(shelf: Shelf, ending: str, known: os.stat_result | None = None) -> Archived | None:
    archive = shelf.find(IMAGE.with_name(f"1{ending}"), known)
    assert not isinstance(archive, os.stat_result)
    return archive


def published(store: Store, file: Path, ending: str) -> bytes:
    with open_sink(f"{TRANSPORTS[ending]}:{file}") as sink:
        copy(StoreSource(store.layout(IMAGE)), sink)
    return file.read_bytes()


def test_every_form_has_its_transport() -> None:
    assert FORMS.keys() == TRANSPORTS.keys()


KINDS: dict[str, Callable[[Path], object]] = {
    "gzip": image_layout,
    "zstd": partial(image_layout, compression="zstd"),
    "plain": partial(image_layout, compression="none"),
    "docker": partial(image_layout, media="docker"),
    "no layers": partial(image_layout, layers=0),
    "index": index_layout,
    "index of docker": partial(index_layout, media="docker"),
}


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_an_archive_is_what_publishing_writes(
    tmp_path: Path, store: Store, ending: str, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "layout")
    put(store, tmp_path / "layout")
    shelf = Shelf(store)
    expected = published(store, tmp_path / "a.tar", ending)
    assert opened(shelf, ending) == expected
    archive = found(shelf, ending)
    assert archive is not None
    assert archive.size == len(expected)
    assert found(shelf, ending, archive.index) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenArchive, bytes]]:
    path = tmp_path_factory.mktemp("whole")
    with Store.create(path / "store") as store:
        put(store, index_layout(path / "layout").path)
        archive = Shelf(store).open(IMAGE.with_name("1.oci.tar"))
        yield archive, published(store, path / "a.tar", ".oci.tar")
        archive.close()


@given(offset=st.integers(0, 40_000), size=st.integers(0, 40_000))
def test_any_part_is_that_of_the_whole(
    whole: tuple[OpenArchive, bytes], offset: int, size: int
) -> None:
    archive, expected = whole
    assert content(archive, offset, size) == expected[offset : offset + size]


def test_names_are_those_of_images_and_of_directories_above_them(
    tmp_path: Path, store: Store
) -> None:
    put(store, image_layout(tmp_path / "layout").path)
    put(store, image_layout(tmp_path / "layout").path, "example.org/app/sub.oci.tar:2")
    (store.layouts / "example.org/app/begun").mkdir()
    (store.layouts / "example.org/app/begun/oci-layout").write_text("{}")
    (store.layouts / "example.org/app/file").write_text("")
    (store.layouts / "example.org/app/link").symlink_to("/")
    shelf = Shelf(store)
    assert shelf.list(PurePosixPath()) == ["example.org"]
    assert shelf.list(PurePosixPath("example.org/app")) == [
        "1.docker.tar",
        "1.oci.tar",
        "sub.oci.tar",
    ]
    for name in ("sub.oci.tar", "sub.oci.tar/2.docker.tar"):
        shelf.find(PurePosixPath("example.org/app") / name)
    absent = ("1", "begun", "begun.oci.tar", "file", "link", "link/etc", ".oci.tar", "x")
    for name in absent:
        with pytest.raises(NotFound):
            shelf.find(PurePosixPath("example.org/app") / name)
        with pytest.raises(NotFound):
            shelf.list(PurePosixPath("example.org/app") / name)


def test_nothing_leads_out_of_the_store(tmp_path: Path, store: Store) -> None:
    outside = tmp_path / "outside"
    image_layout(outside / "1")
    (store.layouts / "a").symlink_to(outside)
    (store.layouts / "b").mkdir()
    (store.layouts / "b/1").symlink_to(outside / "1")
    shelf = Shelf(store)
    assert shelf.list(PurePosixPath()) == ["b"]
    assert shelf.list(PurePosixPath("b")) == []
    for path in ("a", "a/1.oci.tar", "b/1.oci.tar"):
        with pytest.raises(NotFound):
            shelf.find(PurePosixPath(path))
    with pytest.raises(NotFound):
        shelf.list(PurePosixPath("a"))
    with pytest.raises(InvalidContent, match="'a' is not a directory"):
        shelf.open(PurePosixPath("a/1.oci.tar"))


def test_an_open_archive_outlives_its_image(tmp_path: Path, store: Store) -> None:
    put(store, image_layout(tmp_path / "layout").path)
    expected = published(store, tmp_path / "a.tar", ".oci.tar")
    archive = Shelf(store).open(IMAGE.with_name("1.oci.tar"))
    store.layout(IMAGE).remove()
    Collector(store, grace=0).collect()
    assert not list((store.path / "blobs/sha256").iterdir())
    assert content(archive) == expected
    archive.close()


def test_an_archive_is_another_after_a_commit(tmp_path: Path, store: Store) -> None:
    put(store, image_layout(tmp_path / "layout").path)
    shelf = Shelf(store)
    before = found(shelf, ".oci.tar")
    put(store, image_layout(tmp_path / "layout").path)
    same = found(shelf, ".oci.tar", before.index if before else None)
    put(store, image_layout(tmp_path / "other", seed=2).path)
    after = found(shelf, ".oci.tar", same.index if same else None)
    assert before is not None
    assert same is not None
    assert after is not None
    assert (before.digest, before.size) == (same.digest, same.size)
    assert before.digest != after.digest


def test_a_sparse_image_has_a_size_and_no_bytes(tmp_path: Path, store: Store) -> None:
    image = sparse_layout(tmp_path / "layout")
    put(store, image.path)
    shelf = Shelf(store)
    archive = found(shelf, ".oci.tar")
    assert archive is not None
    with pytest.raises(NotFound) as raised:
        shelf.open(IMAGE.with_name("1.oci.tar"))
    assert raised.value.name in image.layers[:2]
    full = image_layout(tmp_path / "full")
    sizes = {digest: full.blob(digest).stat().st_size for digest in image.layers[:2]}
    assert shelf.lacking(IMAGE.with_name("1.oci.tar")) == (IMAGE, sizes)
    for digest, size in sizes.items():
        store.blobs.add([full.blob(digest).read_bytes()], digest, size)
    raw = opened(shelf, ".oci.tar")
    assert len(raw) == archive.size
    assert raw == published(store, tmp_path / "a.tar", ".oci.tar")


def test_a_part_of_a_store_has_its_own(tmp_path: Path, store: Store) -> None:
    put(store, image_layout(tmp_path / "layout").path)
    expected = opened(Shelf(store), ".oci.tar")
    for prefix, directory, name in (
        ("example.org", "app", "app/1.oci.tar"),
        ("example.org/app", "", "1.oci.tar"),
        ("example.org/app/1", "", "1.oci.tar"),
    ):
        with store.below(PurePosixPath(prefix), create=False) as part:
            shelf = Shelf(part)
            assert shelf.list(PurePosixPath(directory)) == ["1.docker.tar", "1.oci.tar"]
            assert isinstance(shelf.find(PurePosixPath(name)), Archived)
            assert shelf.lacking(PurePosixPath(name))[1] == {}
            archive = shelf.open(PurePosixPath(name))
            assert content(archive) == expected
            archive.close()


def test_what_no_form_can_hold(tmp_path: Path, store: Store) -> None:
    artifact_layout(tmp_path / "layout", [b"content"])
    put(store, tmp_path / "layout")
    shelf = Shelf(store)
    assert found(shelf, ".oci.tar")
    with pytest.raises(InvalidContent):
        found(shelf, ".docker.tar")
    put(store, index_layout(tmp_path / "elsewhere", platforms=[("plan9", "mips")]).path)
    assert found(shelf, ".oci.tar")
    with pytest.raises(NotFound):
        found(shelf, ".docker.tar")


def test_a_blob_that_was_cut_is_not_read(tmp_path: Path, store: Store) -> None:
    image = image_layout(tmp_path / "layout")
    put(store, image.path)
    blob = store.path / "blobs/sha256" / image.layers[0].encoded
    blob.chmod(0o644)
    os.truncate(blob, 100)
    with pytest.raises(InvalidContent, match="has 100 bytes"):
        Shelf(store).open(IMAGE.with_name("1.oci.tar"))
