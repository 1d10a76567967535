import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import Busy, InvalidContent
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import StoreSource
from ocistow.publish.link_sink import LinkSink, Place
from ocistow.publish.linking import Linked, link, places
from ocistow.store.disk import Disk
from ocistow.store.links import AUTO, Links, Way
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.minimal import MinimalImage, minimal_image

NAME = Reference.parse("example.com/app:1")
OTHER = Reference.parse("example.com/app:2")
A = minimal_image("a")
B = minimal_image("b", ["two", "three"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        for reference, image in ((NAME, A), (OTHER, B)):
            image.add_to(store.blobs)
            store.put(reference, image.root)
        yield store


def made(
    store: Store,
    directory: Path,
    *ways: Way,
    name: Reference = NAME,
    disk: Disk | None = None,
    flat: bool = False,
    shared: bool = False,
) -> Linked:
    (place,) = places([name.path], directory, flat=flat, shared=shared)
    links = Links(store.blobs, ways or AUTO)
    return link(store, store.layout(name.path), place, links, disk=disk or QuickDisk())


def blobs(layout: Path) -> dict[str, Path]:
    return {f"sha256:{path.name}": path for path in (layout / "blobs" / "sha256").iterdir()}


def is_whole(layout: Path, image: MinimalImage) -> bool:
    document = json.loads((layout / "index.json").read_text())
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    there = blobs(layout)
    return [entry["digest"] for entry in document["manifests"]] == [str(image.root.digest)] and all(
        there[str(digest)].read_bytes() == content for digest, content in image.blobs.items()
    )


def pool_file(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / digest.algorithm / digest.encoded


@pytest.mark.parametrize("way", [Way.HARDLINK, Way.SYMLINK, Way.COPY])
def test_a_layout_is_made(store: Store, tmp_path: Path, way: Way) -> None:
    linked = made(store, tmp_path / "deep" / "out", way)
    layout = tmp_path / "deep" / "out" / "example.com" / "app" / "1"
    assert linked.place.path == layout
    assert is_whole(layout, A)
    total = sum(map(len, A.blobs.values()))
    assert linked.ways == {way: (4, total)}
    for digest in A.blobs:
        file = layout / "blobs" / "sha256" / digest.encoded
        assert file.is_symlink() == (way is Way.SYMLINK)
        assert file.samefile(pool_file(store, digest)) == (way is not Way.COPY)
    for name in ("index.json", "oci-layout"):
        assert (layout / name).stat().st_nlink == 1
    again = made(store, tmp_path / "deep" / "out", way)
    assert again.ways == {None: (4, total)}


def test_hard_links_are_the_first_choice(store: Store, tmp_path: Path) -> None:
    linked = made(store, tmp_path / "out")
    assert list(linked.ways) == [Way.HARDLINK]
    assert linked.obstacles == {}


@pytest.mark.parametrize("before", [Way.HARDLINK, Way.SYMLINK, Way.COPY])
@pytest.mark.parametrize("after", [Way.HARDLINK, Way.SYMLINK, Way.COPY])
def test_one_way_takes_the_place_of_another(
    store: Store, tmp_path: Path, before: Way, after: Way
) -> None:
    for way in (before, after):
        linked = made(store, tmp_path / "out", way)
    assert list(linked.ways) == [None if before is after else after]
    assert is_whole(linked.place.path, A)
    for path in blobs(linked.place.path).values():
        assert path.is_symlink() == (after is Way.SYMLINK)
        if after is Way.COPY:
            assert path.stat().st_nlink == 1
    assert all(pool_file(store, digest).read_bytes() == text for digest, text in A.blobs.items())


@pytest.mark.parametrize("way", [Way.HARDLINK, Way.SYMLINK, Way.COPY])
@pytest.mark.parametrize("planted", ["bytes", "link", "fifo"])
def test_what_is_no_blob_is_replaced_and_nothing_behind_it(
    store: Store, tmp_path: Path, way: Way, planted: str
) -> None:
    layout = made(store, tmp_path / "out", way).place.path
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for path in blobs(layout).values():
        path.unlink()
        if planted == "bytes":
            path.write_bytes(b"damaged")
        elif planted == "link":
            path.symlink_to(victim)
        else:
            os.mkfifo(path)
    made(store, tmp_path / "out", way)
    assert is_whole(layout, A)
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("where", ["example.com", "example.com/app/1", "example.com/app/1/blobs"])
def test_no_link_below_leads_elsewhere(store: Store, tmp_path: Path, where: str) -> None:
    outside, planted = tmp_path / "outside", tmp_path / "out" / where
    outside.mkdir()
    planted.parent.mkdir(parents=True)
    planted.symlink_to(outside)
    with pytest.raises(InvalidContent, match=f"{where} is not a directory"):
        made(store, tmp_path / "out")
    assert list(outside.iterdir()) == []
    (tmp_path / "way").symlink_to(outside)
    made(store, tmp_path / "way")  # what the user names may be a link
    assert is_whole(outside / "example.com" / "app" / "1", A)


def test_a_newer_image_takes_the_place_of_the_older(store: Store, tmp_path: Path) -> None:
    layout = made(store, tmp_path / "out").place.path
    foreign = layout / "blobs" / "sha256" / "notes"
    foreign.write_text("mine")
    store.put(NAME, B.root)
    made(store, tmp_path / "out")
    assert is_whole(layout, B)
    assert blobs(layout).keys() == {*map(str, B.blobs), "sha256:notes"}
    assert foreign.read_text() == "mine"


def test_other_images_of_a_flat_layout_stay(store: Store, tmp_path: Path) -> None:
    for name in (NAME, OTHER):
        made(store, tmp_path / "out", name=name, flat=True)
    store.put(NAME, B.root)
    made(store, tmp_path / "out", name=NAME, flat=True)
    document = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [
        (entry["annotations"]["org.opencontainers.image.ref.name"], entry["digest"])
        for entry in document["manifests"]
    ] == [("2", str(B.root.digest)), ("1", str(B.root.digest))]
    assert blobs(tmp_path / "out").keys() >= set(map(str, A.blobs))  # another tool may need them


def test_blobs_can_be_shared_by_all_layouts(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in (NAME, OTHER):
        linked = made(store, out, Way.COPY, name=name, shared=True)
        assert sorted(os.listdir(linked.place.path)) == ["index.json", "oci-layout"]
    assert linked.ways.keys() == {None, Way.COPY}
    assert blobs(out).keys() == set(map(str, {**A.blobs, **B.blobs}))
    store.put(NAME, B.root)
    made(store, out, Way.COPY, shared=True)
    assert blobs(out).keys() == set(map(str, {**A.blobs, **B.blobs}))


def test_names_in_a_flat_layout(tmp_path: Path) -> None:
    one = [
        Reference.parse(text).path for text in ("a.io/b:1", "a.io/b:2", f"a.io/b@{A.root.digest}")
    ]
    assert [place.name for place in places(one, tmp_path, flat=True)] == ["1", "2", ""]
    several = [Reference.parse(text).path for text in ("a.io/b:1", "a.io/c:1")]
    more = [*several, PurePosixPath("odd")]
    assert [place.name for place in places(more, tmp_path, flat=True)] == [
        "a.io/b:1",
        "a.io/c:1",
        "odd",
    ]
    assert [place.name for place in places(several, tmp_path)] == ["1", "1"]


def test_no_layout_lies_in_another(store: Store, tmp_path: Path) -> None:
    made(store, tmp_path / "out", flat=True)
    with pytest.raises(InvalidContent, match="none lies in another"):
        made(store, tmp_path / "out")
    with pytest.raises(InvalidContent, match="not empty: it holds 'example"):
        made(store, made(store, tmp_path / "tree").place.directory, flat=True)


@pytest.mark.parametrize("where", ["layouts", "", "new"])
def test_nothing_is_made_in_the_store(store: Store, where: str) -> None:
    with pytest.raises(InvalidContent, match="lies in the store"):
        made(store, store.path / where)
    assert not (store.path / "new").exists()


def test_what_cannot_be_made_leaves_nothing(store: Store, tmp_path: Path) -> None:
    class Linkless(QuickDisk):
        def symlink(self, target: str, directory: int, name: str) -> bool:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "there").mkdir()
    for directory in ("deep/out", "there"):
        with pytest.raises(
            OSError, match="no symbolic link can be made: the file system has no sym"
        ):
            made(store, tmp_path / directory, Way.SYMLINK, disk=Linkless())
    assert sorted(os.listdir(tmp_path)) == ["store", "there"]
    assert os.listdir(tmp_path / "there") == []


def test_the_pools_lies_are_not_copied(store: Store, tmp_path: Path) -> None:
    layer = next(digest for digest, text in A.blobs.items() if text == b"layer one")
    file = pool_file(store, layer)
    file.chmod(0o644)
    file.write_bytes(b"LAYER one")
    with pytest.raises(InvalidContent, match="expected"):
        made(store, tmp_path / "out", Way.COPY)
    file.write_bytes(b"longer than that")
    with pytest.raises(InvalidContent, match="has 16 bytes"):
        made(store, tmp_path / "out", Way.HARDLINK)
    assert not list(tmp_path.glob("out/**/index.json"))


def test_blobs_of_the_layout_alone_are_copied(store: Store, tmp_path: Path) -> None:
    layer = next(digest for digest, text in A.blobs.items() if text == b"layer one")
    store.blobs.delete(layer)
    assert made(store, tmp_path / "auto").ways.keys() == {Way.HARDLINK, Way.COPY}
    with pytest.raises(OSError, match="no hard link can be made: only the image's layout has"):
        made(store, tmp_path / "hard", Way.HARDLINK)


def test_who_takes_a_blob_away_meanwhile_is_noticed(store: Store, tmp_path: Path) -> None:
    class Meddling(LinkSink):
        def tag(self, root: Descriptor) -> None:
            next(iter(blobs(tmp_path / "out").values())).unlink()
            super().tag(root)

    sink = Meddling(Place(tmp_path / "out", name="1"), Links(store.blobs), QuickDisk())
    with pytest.raises(Busy, match="took sha256:"):
        copy(StoreSource(store.layout(NAME.path)), sink)
    assert not (tmp_path / "out" / "index.json").exists()


def test_what_the_dead_left_is_removed_and_what_the_living_use_is_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = made(store, tmp_path / "out").place.path
    left = [layout / ".ocistow-dead", layout / "blobs" / "sha256" / ".ocistow-dead"]
    for path in left:
        path.touch()
    made(store, tmp_path / "out")
    assert all(path.exists() for path in left)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    made(store, tmp_path / "out")
    assert not any(path.exists() for path in left)
