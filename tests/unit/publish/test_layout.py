import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch, InvalidContent, NotFound, OcistowError
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout, index_layout

NAME = Reference.parse("example.org/app:1")


def test_the_only_image_needs_no_name(store: Store, image: GeneratedImage) -> None:
    assert LayoutSource(image.path).resolve().digest == image.manifest


def test_a_name_or_position_chooses(tmp_path: Path) -> None:
    one = image_layout(tmp_path / "layout", seed=1, tag="one")
    two = image_layout(tmp_path / "layout", seed=2, tag="two")
    assert LayoutSource(one.path, "one").resolve().digest == one.manifest
    assert LayoutSource(one.path, "two").resolve().digest == two.manifest
    assert LayoutSource(one.path, "@1").resolve().digest == two.manifest
    with pytest.raises(InvalidContent, match="choose one: one, two"):
        LayoutSource(one.path).resolve()
    for name in ("three", "@2", "@x"):
        with pytest.raises(NotFound, match=r"there: one, two"):
            LayoutSource(one.path, name).resolve()


def test_a_platform_chooses_from_an_index(tmp_path: Path, store: Store) -> None:
    index = index_layout(tmp_path / "layout")
    for number, platform in enumerate(("linux/amd64", "linux/arm64")):
        source = LayoutSource(index.path, platform=Platform.parse(platform))
        copied = copy(source, StoreSink(store, NAME))
        assert copied.root.digest == index.images[number].manifest
    with pytest.raises(NotFound, match=r"there: linux/amd64, linux/arm64/v8"):
        LayoutSource(index.path, platform=Platform.parse("linux/s390x")).resolve()


def test_an_absent_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="image layout at"):
        LayoutSource(tmp_path / "nothing").resolve()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schemaVersion": 1}', "\0" * 9, "[" * 99999]
)
def test_an_index_must_be_one(image: GeneratedImage, text: str) -> None:
    (image.path / "index.json").write_text(text)
    with pytest.raises(InvalidContent):
        LayoutSource(image.path).resolve()


def test_a_huge_index_is_not_read(image: GeneratedImage) -> None:
    with (image.path / "index.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(InvalidContent, match="at most"):
        LayoutSource(image.path).resolve()


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_a_blob_that_is_not_its_digest_is_refused(
    store: Store, image: GeneratedImage, named: Digest, which: str
) -> None:
    digest = {"layer": image.layers[0], "config": image.config, "manifest": image.manifest}[which]
    blob = image.blob(digest)
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DigestMismatch, match=str(digest)):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_a_blob_of_another_size_is_refused(
    store: Store, image: GeneratedImage, named: Digest, which: str, change: int
) -> None:
    digest = {"layer": image.layers[0], "config": image.config, "manifest": image.manifest}[which]
    os.truncate(image.blob(digest), image.blob(digest).stat().st_size + change)
    with pytest.raises(InvalidContent, match=f"{digest} has"):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


def test_a_link_inside_the_layout_is_followed(store: Store, image: GeneratedImage) -> None:
    blob = image.blob(image.layers[0])
    blob.rename(image.path / "elsewhere")
    blob.symlink_to("../../elsewhere")
    assert copy(LayoutSource(image.path), StoreSink(store, NAME)).sent == 5
    assert not (store.path / "blobs" / "sha256" / image.layers[0].encoded).is_symlink()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../outside", "/dev/zero", "../../../.."])
def test_a_link_out_of_the_layout_is_refused(
    store: Store, image: GeneratedImage, named: Digest, target: str
) -> None:
    blob = image.blob(image.layers[0])
    blob.rename(image.path.parent / "outside")
    blob.symlink_to(target)
    with pytest.raises(InvalidContent, match="leads out of "):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


def test_an_index_outside_of_the_layout_is_refused(image: GeneratedImage) -> None:
    index = image.path / "index.json"
    index.rename(image.path.parent / "index.json")
    index.symlink_to("../index.json")
    with pytest.raises(InvalidContent, match="leads out of "):
        LayoutSource(image.path).resolve()


def test_blobs_outside_of_the_layout_are_refused(
    store: Store, image: GeneratedImage, named: Digest
) -> None:
    (image.path / "blobs").rename(image.path.parent / "blobs")
    (image.path / "blobs").symlink_to("../blobs")
    with pytest.raises(InvalidContent, match="leads out of "):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


@pytest.mark.parametrize("kind", ["fifo", "directory", "loop"])
def test_a_blob_must_be_a_regular_file(
    store: Store, image: GeneratedImage, named: Digest, kind: str
) -> None:
    blob = image.blob(image.layers[0])
    blob.unlink()
    if kind == "fifo":
        os.mkfifo(blob)
    elif kind == "directory":
        blob.mkdir()
    else:
        blob.symlink_to(blob.name)
    with pytest.raises(InvalidContent, match="regular file"):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


def test_a_layout_reached_through_a_link_is_fine(tmp_path: Path, image: GeneratedImage) -> None:
    (tmp_path / "link").symlink_to(image.path)
    assert LayoutSource(tmp_path / "link").resolve().digest == image.manifest


def test_read_only_files_are_linked_and_others_copied(store: Store, image: GeneratedImage) -> None:
    fixed, other = (image.blob(digest) for digest in image.layers[:2])
    fixed.chmod(0o444)
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    pool = store.path / "blobs" / "sha256"
    assert (pool / fixed.name).samefile(fixed)
    assert not (pool / other.name).samefile(other)
    assert fixed.stat().st_mode & 0o777 == 0o444


def test_a_read_only_file_that_lies_is_refused(
    store: Store, image: GeneratedImage, named: Digest
) -> None:
    blob = image.blob(image.layers[0])
    blob.write_bytes(bytes(blob.stat().st_size))
    blob.chmod(0o444)
    with pytest.raises(DigestMismatch):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o464, 0o4444])
def test_a_file_of_another_mode_keeps_it(store: Store, image: GeneratedImage, mode: int) -> None:
    blob = image.blob(image.layers[0])
    blob.chmod(mode)
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    assert blob.stat().st_mode & 0o7777 == mode
    assert blob.stat().st_nlink == 1


def test_a_file_that_cannot_be_linked_is_copied(image: GeneratedImage) -> None:
    """/dev/shm is another file system on any machine."""
    blob = image.blob(image.layers[0])
    blob.chmod(0o444)
    with (
        TemporaryDirectory(dir="/dev/shm") as directory,
        Store.create(Path(directory) / "store") as other,
    ):
        copy(LayoutSource(image.path), StoreSink(other, NAME))
        with open(other.blobs.open(image.layers[0]), "rb") as file:
            assert file.read() == blob.read_bytes()


def test_a_digest_names_only_its_content(
    store: Store, image: GeneratedImage, named: Digest
) -> None:
    right = Reference.parse(f"app@{image.manifest}")
    copy(LayoutSource(image.path), StoreSink(store, right))
    assert StoreSource(store.layout(right.path)).resolve().digest == image.manifest
    with pytest.raises(InvalidContent, match="cannot name"):
        copy(LayoutSource(image.path), StoreSink(store, Reference.parse(f"app@{named}")))


def test_a_descriptor_that_lies_about_a_blob_of_the_pool_is_refused(
    store: Store, image: GeneratedImage
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["layers"][0]["size"] += 1
    raw = json.dumps(manifest).encode()
    digest = Digest.of(raw)
    image.blob(digest).write_bytes(raw)
    entry = {"mediaType": manifest["mediaType"], "digest": str(digest), "size": len(raw)}
    (image.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    with pytest.raises(InvalidContent, match="its descriptor announces"):
        copy(LayoutSource(image.path), StoreSink(store, NAME))


def test_one_line_says_it(image: GeneratedImage, store: Store) -> None:
    blob = image.blob(image.layers[0])
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    with pytest.raises(OcistowError) as refused:
        copy(LayoutSource(image.path), StoreSink(store, NAME))
    assert str(refused.value).startswith(f"{blob} leads out of ")


def test_an_image_goes_from_name_to_name_without_a_copy(
    store: Store, image: GeneratedImage
) -> None:
    copy(LayoutSource(image.path), StoreSink(store, NAME))
    source = StoreSource(store.layout(NAME.path))
    assert copy(source, StoreSink(store, Reference.parse("app:2"))).sent == 0
