import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import pytest

from ocistow.audit.glance import glance
from ocistow.audit.usage import Cost, Usage, usage
from ocistow.oci.descriptor import OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout, sparse_layout

BLOB_SIZE = 20_000


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def put(store: Store, image: GeneratedImage, name: str) -> Path:
    """Take an image in under `name` and return its layout."""
    for blob in (image.path / "blobs" / "sha256").iterdir():
        store.blobs.add([blob.read_bytes()], Digest("sha256", blob.name))
    size = image.blob(image.manifest).stat().st_size
    layout = store.put(Reference.parse(name), Descriptor(OCI_MANIFEST, image.manifest, size))
    return store.layouts / layout.name


def of(found: Usage, name: str) -> Cost:
    return next(u for u in found.layouts if u.name == Reference.parse(name).path)


def on_disk(*paths: Path) -> int:
    """What files take, each inode once: the definition, read off the disk."""
    files = {p for path in paths for p in ([path] if path.is_file() else path.rglob("*"))}
    status = [p.lstat() for p in files if p.is_symlink() or not p.is_dir()]
    return sum({(s.st_dev, s.st_ino): s.st_blocks * 512 for s in status}.values())


def measured(path: Path) -> int:
    """What `du -s` says a directory takes, itself included."""
    done = subprocess.run(["du", "-s", "-B1", path], stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[0])


def apparent(path: Path) -> int:
    return sum(p.lstat().st_size for p in path.rglob("*") if p.is_symlink() or not p.is_dir())


def test_an_empty_store_costs_nothing(store: Store) -> None:
    found = usage(store)
    assert (found.layouts, found.shares, found.releases) == ((), (), ())
    assert found.total == Cost(PurePosixPath(), 0, 0, 0, 0, 0, 0, 0)
    assert found.everything == measured(store.path)
    assert found.factor == 1.0


def test_one_image_shares_nothing(store: Store, tmp_path: Path) -> None:
    layout = put(store, image_layout(tmp_path / "i", layer_size=BLOB_SIZE), "e.x/a:1")
    found = usage(store)
    one = of(found, "e.x/a:1")
    assert one.apparent == found.total.apparent == apparent(layout)
    assert one.on_disk == one.exclusive == found.total.on_disk == found.separate == on_disk(layout)
    assert (one.shared, one.other, found.unreferenced_blobs, found.outside) == (0, 0, 0, 0)
    assert found.factor == 1.0


def test_what_two_images_have_in_common_is_shared_and_counted_once(
    store: Store, tmp_path: Path
) -> None:
    base = image_layout(tmp_path / "base", seed=1, layer_size=BLOB_SIZE)
    app = image_layout(tmp_path / "app", seed=2, layers=1, base=base, layer_size=BLOB_SIZE)
    layouts = [put(store, base, "e.x/base:1"), put(store, app, "e.x/app:1")]
    common = on_disk(*(base.blob(layer) for layer in base.layers))
    found = usage(store)
    for name, layout in zip(("e.x/base:1", "e.x/app:1"), layouts, strict=True):
        one = of(found, name)
        assert one.on_disk == on_disk(layout)
        assert one.shared == common
        assert one.exclusive == one.on_disk - common
        assert one.apparent == apparent(layout)
    assert found.total.on_disk == on_disk(*layouts)
    assert found.separate == sum(map(on_disk, layouts)) == found.total.on_disk + common
    assert found.factor == found.separate / found.total.on_disk > 1


def test_a_third_image_changes_nothing_about_what_was_shared_before(
    store: Store, tmp_path: Path
) -> None:
    image = image_layout(tmp_path / "i", layer_size=BLOB_SIZE)
    layouts = [put(store, image, f"e.x/a:{number}") for number in range(3)]
    found = usage(store)
    blobs = on_disk(layouts[0] / "blobs")
    assert {u.shared for u in found.layouts} == {blobs}
    assert found.total.on_disk == on_disk(*layouts)


def test_sharing_is_judged_against_images_that_nobody_asked_for(
    store: Store, tmp_path: Path
) -> None:
    image = image_layout(tmp_path / "i", layer_size=BLOB_SIZE)
    layouts = [put(store, image, f"e.x/a:{number}") for number in range(3)]
    found = usage(store, [Reference.parse("e.x/a:1").path])
    assert [u.name for u in found.layouts] == [Reference.parse("e.x/a:1").path]
    assert found.layouts[0].shared == on_disk(layouts[1] / "blobs")
    assert found.total.on_disk == found.separate == on_disk(layouts[1])


def test_what_only_others_share_is_in_no_total(store: Store, tmp_path: Path) -> None:
    layout = put(store, image_layout(tmp_path / "mine", seed=1), "e.x/mine:1")
    other = image_layout(tmp_path / "other", seed=2)
    put(store, other, "e.x/a:1")
    put(store, other, "e.x/z:1")
    found = usage(store, [Reference.parse("e.x/mine:1").path])
    assert found.total.on_disk == on_disk(layout)


def test_blobs_in_no_layout_are_unreferenced(store: Store, tmp_path: Path) -> None:
    put(store, image_layout(tmp_path / "kept", seed=1), "e.x/kept:1")
    image = image_layout(tmp_path / "gone", seed=2)
    put(store, image, "e.x/gone:1")
    store.find("e.x/gone:1").remove()
    found = usage(store)
    assert found.unreferenced_blobs == 5
    assert found.unreferenced == on_disk(image.path / "blobs")


def test_absent_layers_cost_nothing(store: Store, tmp_path: Path) -> None:
    layout = put(store, sparse_layout(tmp_path / "i", absent=2), "e.x/sparse:1")
    assert len(list((layout / "blobs" / "sha256").iterdir())) == 3
    assert usage(store).total.on_disk == on_disk(layout)


def test_foreign_files_are_counted_and_told_apart(store: Store, tmp_path: Path) -> None:
    layout = put(store, image_layout(tmp_path / "i"), "e.x/a:1")
    foreign = [
        layout / ".umoci-cache",
        layout / "deep" / "down" / "file",
        layout / "blobs" / "sha256" / "oci-put-blob123",
        layout / "blobs" / "stray",
        layout / "deep" / "index.html",
        layout / "cache" / "sha256" / ("0" * 64),
    ]
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 5000)
    one = of(usage(store), "e.x/a:1")
    assert one.other == on_disk(*foreign)
    assert one.exclusive == one.on_disk == on_disk(layout)
    assert one.apparent == apparent(layout)


def test_a_symbolic_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    layout = put(store, image_layout(tmp_path / "i"), "e.x/a:1")
    (layout / "link").symlink_to(tmp_path / "big")
    (layout / "tree").symlink_to(tmp_path)
    assert of(usage(store), "e.x/a:1").on_disk == on_disk(layout)


def test_a_second_name_in_the_same_layout_costs_nothing(store: Store, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "i", layer_size=BLOB_SIZE)
    layout = put(store, image, "e.x/a:1")
    put(store, image, "e.x/b:1")
    os.link(layout / "blobs" / "sha256" / image.layers[0].encoded, layout / "again")
    found = usage(store)
    assert of(found, "e.x/a:1").on_disk == on_disk(layout)
    assert found.total.on_disk == on_disk(store.layouts)


def test_a_layout_in_another_is_counted_by_itself(store: Store, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "i", layer_size=BLOB_SIZE)
    outer = put(store, image, "e.x/a:1")
    shutil.copytree(image.path, outer / "within" / "inner")
    shutil.copytree(image.path, outer / "blobs" / "no-layout-here")
    (outer / "no-layout" / "index.json").mkdir(parents=True)
    found = usage(store)
    outer_name = Reference.parse("e.x/a:1").path
    assert [u.name for u in found.layouts] == [outer_name, outer_name / "within" / "inner"]
    assert list(store.names()) == [u.name for u in found.layouts]
    assert found.layouts[1].on_disk == on_disk(outer / "within" / "inner")
    assert found.layouts[0].on_disk == on_disk(outer) - found.layouts[1].on_disk
    assert found.layouts[0].other == on_disk(outer / "blobs" / "no-layout-here")
    assert found.total.on_disk == on_disk(store.layouts)


def test_files_beside_the_layouts_are_outside(store: Store, tmp_path: Path) -> None:
    put(store, image_layout(tmp_path / "i"), "e.x/a:1")
    (store.layouts / "note").write_bytes(b"x" * 5000)
    (store.layouts / "e.x" / "note").write_bytes(b"x" * 9000)
    found = usage(store)
    assert found.outside == on_disk(store.layouts / "note", store.layouts / "e.x" / "note")
    assert found.total.on_disk + found.outside == on_disk(store.layouts)


@pytest.mark.parametrize("count", [1, 3])
def test_copies_in_place_of_links_cost_what_they_take(
    store: Store, tmp_path: Path, count: int
) -> None:
    image = image_layout(tmp_path / "i", layer_size=BLOB_SIZE)
    names = [f"e.x/a:{number}" for number in range(count)]
    layouts = [put(store, image, name) for name in names]
    for layout in layouts:
        blob = layout / "blobs" / "sha256" / image.layers[0].encoded
        content = blob.read_bytes()
        blob.unlink()
        blob.write_bytes(content)
    for name, layout in zip(names, layouts, strict=True):  # whatever order they are walked in
        found = usage(store, [Reference.parse(name).path])
        assert of(found, name).on_disk == on_disk(layout)
        assert found.unreferenced_blobs == 0
        assert found.total.on_disk == on_disk(layout)
        assert found.everything == measured(store.path)


def test_everything_in_the_store_is_counted_exactly_once(store: Store, tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", seed=1, layer_size=BLOB_SIZE)
    put(store, base, "e.x/base:1")
    put(store, image_layout(tmp_path / "app", seed=2, layers=1, base=base), "e.x/app:1")
    put(store, image_layout(tmp_path / "gone", seed=3), "e.x/gone:1")
    store.find("e.x/gone:1").remove()
    (store.layouts / "note").write_bytes(b"x")
    found = usage(store)
    assert found.everything == measured(store.path)
    files = [path for path in store.path.iterdir() if path.is_file()]
    assert sum(rest.on_disk for rest in found.rest) == on_disk(*files)


@pytest.fixture
def public() -> Generator[Path]:
    """A directory that everybody can reach: those above `tmp_path` are its owner's."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_may_not_be_read_is_named_and_in_no_number(public: Path, tmp_path: Path) -> None:
    with Store.create(public / "store") as store:
        layout = put(store, image_layout(tmp_path / "i", seed=1), "e.x/a:1")
        put(store, image_layout(tmp_path / "j", seed=2), "e.x/b:1")
        before = usage(store)
        (store.path / "lost+found").mkdir(0o700)  # as root's at the top of a file system
        layout.chmod(0o744)  # its names may be read, and nothing more
        os.seteuid(65534)
        try:
            found = usage(store)
            with pytest.raises(PermissionError, match=r"e\.x/a/1"):
                glance(store, [PurePosixPath("e.x/a/1")])
        finally:
            os.seteuid(0)
    assert found.unreadable == ("layouts/e.x/a/1", "lost+found")
    assert found.layouts == before.layouts[1:]
    assert found.garbage == 0  # what only an unreadable layout needs is kept
    assert before.unreadable == ()


def test_a_name_without_a_layout_is_not_found(store: Store, tmp_path: Path) -> None:
    put(store, image_layout(tmp_path / "i"), "e.x/a:1")
    for name in ("e.x/b/1", "e.x", "e.x/a/1/blobs"):
        with pytest.raises(NotFound, match=name):
            usage(store, [PurePosixPath(name)])
