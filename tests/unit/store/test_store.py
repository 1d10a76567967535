import json
import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path, PurePosixPath

import pytest

from ocistow.oci.descriptor import REF_NAME, Descriptor
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.store.disk import Disk
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import MinimalImage, minimal_image

A = minimal_image("a")
B = minimal_image("b")
H = "0" * 64


def put(store: Store, name: str, image: MinimalImage = A) -> None:
    image.add_to(store.blobs)
    store.put(Reference.parse(name), image.root)


def names(store: Store) -> list[str]:
    return [str(name) for name in store.names()]


class OvertakenDisk(Disk):
    """Another process makes and uses the store as soon as its directory is there."""

    def mkdir(self, directory: int, name: str) -> bool:
        made = super().mkdir(directory, name)
        if name == "store":
            with Store.create(Path(f"/proc/self/fd/{directory}").readlink() / name) as other:
                other.layers.knows_size(0)  # which makes the index database
        return made


def test_a_store_may_be_made_by_another_process_meanwhile(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", OvertakenDisk()) as store:
        assert names(store) == []
        assert (store.path / "index.lock").exists()


def test_a_store_is_made_and_found_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Store.create(tmp_path / "not" / "yet" / "there") as store:
            assert json.loads((store.path / "ocistow.json").read_bytes()) == {"version": 1}
    with Store.open(tmp_path / "not" / "yet" / "there") as store:
        assert names(store) == []
        assert stat.S_IMODE((store.path / "ocistow.json").stat().st_mode) == 0o644
    store.close()


@pytest.mark.parametrize("there", [[], ["blobs"], ["blobs", "layouts"], ["lock", "lost+found"]])
def test_a_creation_that_was_interrupted_is_finished(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        if name == "lock":
            (tmp_path / name).touch()
        else:
            (tmp_path / name).mkdir()
    with Store.create(tmp_path):
        assert violations(tmp_path) == []


def test_a_store_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with Store.create(tmp_path / "link") as store:
        put(store, "a:1")
    with Store.open(tmp_path / "disk") as store:
        assert names(store) == ["index.docker.io/library/a/1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_store_may_lie_in_a_directory_that_its_owner_cannot_read() -> None:
    with tempfile.TemporaryDirectory() as closed:
        path = Path(closed, "store")
        path.mkdir()
        os.chown(path, 65534, 65534)
        path.parent.chmod(0o711)
        os.seteuid(65534)
        try:
            Store.create(path).close()
            with pytest.raises(PermissionError):
                Store.create(path.parent / "other")
        finally:
            os.seteuid(0)


def test_something_else_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "index.json").touch()
    with pytest.raises(InvalidContent, match=r"no store and not empty: it holds 'index\.json'"):
        Store.create(tmp_path)
    assert os.listdir(tmp_path) == ["index.json"]
    with pytest.raises(NotFound):
        Store.open(tmp_path)
    with pytest.raises(NotFound):
        Store.open(tmp_path / "index.json")
    with pytest.raises(NotADirectoryError):
        Store.create(tmp_path / "index.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"version": 2}', "has format version 2, expected 1"),
        (b'{"version": 0}', "has format version 0, expected 1"),
        (b'{"version": true}', "does not state a version"),
        (b'{"version": 1.0}', "does not state a version"),
        (b'{"version": "1"}', "does not state a version"),
        (b"{}", "does not state a version"),
        (b"[]", "is not an object"),
        (b"", "is not JSON"),
        (b"[" * 4096, "is not JSON"),
        (b" " * 4096 + b'{"version": 1}', "is not JSON"),
    ],
    ids=["newer", "older", "true", "float", "text", "none", "array", "empty", "deep", "large"],
)
def test_an_unknown_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    Store.create(tmp_path).close()
    (tmp_path / "ocistow.json").write_bytes(content)
    for enter in (Store.open, Store.create):
        with pytest.raises(InvalidContent, match=message):
            enter(tmp_path)


def test_a_store_without_layouts_is_not_opened(tmp_path: Path) -> None:
    Store.create(tmp_path).close()
    (tmp_path / "layouts").rmdir()
    files = open_files()
    with pytest.raises(FileNotFoundError):
        Store.open(tmp_path)
    assert open_files() <= files


def test_many_may_create_one_store(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    errors: list[Exception] = []

    def create() -> None:
        together.wait(60)
        try:
            Store.create(tmp_path / "store").close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_names_are_sorted_by_their_elements(store: Store) -> None:
    for name in ("b.io/x:1", "a.io/x/y:1", "a.io/x-y:1", "a.io/x:2", f"a.io/x@sha256:{H}"):
        put(store, name)
    assert names(store) == [
        "a.io/x/2",
        f"a.io/x/sha256/{H}",
        "a.io/x/y/1",
        "a.io/x-y/1",
        "b.io/x/1",
    ]


def test_names_that_vanish_are_left_out(store: Store) -> None:
    for name in ("a.io/x:1", "b.io/x:1", "c.io/x:1"):
        put(store, name)
    listing = iter(store.names())
    assert str(next(listing)) == "a.io/x/1"
    store.find("b.io/x:1").remove()
    assert [str(name) for name in listing] == ["c.io/x/1"]


def test_a_deep_tree_of_somebody_else_does_no_harm(store: Store) -> None:
    put(store, "z.io/x:1")
    here = os.open(store.layouts, os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        assert names(store) == ["z.io/x/1"]
    finally:
        os.close(here)
        subprocess.run(["rm", "-r", store.layouts / "d"], check=True)  # rmtree would recurse


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("a.io/x:1", "a.io/x/1"),
        ("a.io/x/1", "a.io/x/1"),
        ("y", "index.docker.io/library/y/latest"),
        ("index.docker.io/library/y/latest", "index.docker.io/library/y/latest"),
        ("plain", "plain"),
        ("plain/inside", "plain/inside"),
    ],
)
def test_a_layout_is_found_by_reference_and_by_path(store: Store, word: str, found: str) -> None:
    put(store, "a.io/x:1")
    put(store, "y")
    for name in ("plain", "plain/inside"):
        (store.layouts / name).mkdir()
        (store.layouts / name / "index.json").touch()
    assert str(store.find(word).name) == found


@pytest.mark.parametrize(
    "word",
    ["absent", "a.io/absent:1", "a.io/x", "A", "n" * 300, "N" * 300, "/".join(["n" * 250] * 20)],
    ids=lambda word: word[:10],
)
def test_what_is_absent_is_not_found(store: Store, word: str) -> None:
    put(store, "a.io/x:1")
    with pytest.raises(NotFound):
        store.find(word)


def test_a_file_on_the_way_is_not_found(store: Store) -> None:
    (store.layouts / "file").touch()
    with pytest.raises(NotFound):
        store.find("file/x")


@pytest.mark.parametrize(
    "word",
    ["", ".", "..", "/", "/etc", "../store", "a/..", "a/../b", "./a", "a//b", "a/", "A\0b", "A\nb"],
)
def test_a_word_that_is_no_name_is_refused(store: Store, word: str) -> None:
    with pytest.raises(InvalidContent):
        store.find(word)


@pytest.mark.parametrize("name", ["/etc", "..", "a/../..", "../layouts", "a\0b"])
def test_no_layout_lies_outside_the_root(store: Store, name: str) -> None:
    with pytest.raises(InvalidContent, match="not a path below the layout root"):
        store.layout(PurePosixPath(name))


def test_other_errors_on_the_way_are_passed_on(store: Store) -> None:
    (store.layouts / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        store.find("loop/x")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a/b:c", "a/b/c:blobs", "would lie inside the layout index.docker.io/a/b/c"),
        ("a/b:c", "a/b/c:d", "would lie inside"),
        ("a/b:c", "a/b/c/d/e:f", "would lie inside"),
        ("a/b:c", f"a/b/c@sha256:{H}", "would lie inside"),
        ("a/b:sha256", f"a/b@sha256:{H}", "would lie inside"),
        ("a/b/c:d", "a/b:c", "would hold the layout index.docker.io/a/b/c/d"),
        ("a/b/c/blobs:d", "a/b:c", "would hold the layout index.docker.io/a/b/c/blobs/d"),
        (f"a/b@sha256:{H}", "a/b:sha256", "would hold"),
        ("a.io/a/b:index.json", "a.io/a:b", "would hold"),
        ("a.io/a/b:oci-layout", "a.io/a:b", "would hold"),
    ],
)
def test_a_name_inside_another_is_refused(
    store: Store, first: str, second: str, message: str
) -> None:
    put(store, first)
    with pytest.raises(InvalidContent, match=message):
        put(store, second, B)
    put(store, first, B)
    assert names(store) == [str(Reference.parse(first).path)]


def test_a_layout_that_somebody_has_begun_is_respected(store: Store) -> None:
    begun = store.layouts / Reference.parse("a.io/b:c").path
    begun.mkdir(parents=True)
    (begun / "oci-layout").touch()
    with pytest.raises(InvalidContent, match="would lie inside"):
        put(store, "a.io/b/c:d")
    put(store, "a.io/b:c")


@pytest.mark.parametrize("tag", ["index.json", "oci-layout", "blobs", "sha256"])
def test_a_tag_may_be_called_like_a_file(store: Store, tag: str) -> None:
    put(store, f"a.io/b:{tag}")
    put(store, "a.io/b:other")
    put(store, f"a.io/b:{tag}", B)
    assert names(store) == sorted([f"a.io/b/{tag}", "a.io/b/other"])
    store.find(f"a.io/b:{tag}").remove()
    assert names(store) == ["a.io/b/other"]


def test_the_index_names_the_tag_and_keeps_annotations(store: Store) -> None:
    A.add_to(store.blobs)
    platform = Platform("linux", "amd64")
    root = Descriptor(
        A.root.media_type, A.root.digest, A.root.size, {"kept": "1", REF_NAME: "other"}, platform
    )
    [tagged] = store.put(Reference.parse("a:b"), root).index().manifests
    assert tagged.annotations == {"kept": "1", REF_NAME: "b"}
    assert tagged.platform == platform
    [untagged] = store.put(Reference.parse(f"a@sha256:{H}"), root).index().manifests
    assert untagged.annotations == {"kept": "1"}


def test_the_index_keeps_what_the_store_does_not_know(store: Store) -> None:
    A.add_to(store.blobs)
    given = {
        **A.root.to_document(),
        "artifactType": "a/b",
        "urls": ["https://example.com/"],
        "data": "e30=",
        "platform": {"os": "windows", "architecture": "amd64", "os.features": ["win32k"]},
    }
    root = Descriptor.from_document(given, "it")
    [put] = store.put(Reference.parse("a:b"), root).index().manifests
    assert put.to_document() == {**given, "annotations": {REF_NAME: "b"}}


def test_two_may_put_under_one_name_at_once(store: Store) -> None:
    """One wins whole, and the blobs of both are there."""
    together = threading.Barrier(2)

    def put_often(image: MinimalImage) -> None:
        with Store.open(store.path) as other:
            image.add_to(other.blobs)
            together.wait(60)
            for _ in range(20):
                other.put(Reference.parse("a:b"), image.root)

    threads = [threading.Thread(target=put_often, args=(image,)) for image in (A, B)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [root] = store.find("a:b").index().manifests
    assert root in (A.root, B.root)
    assert violations(store.path) == []


def test_a_part_of_a_store_stands_in_for_the_whole(store: Store) -> None:
    A.add_to(store.blobs)
    whole = store.put(Reference.parse("example.com/app:1"), A.root)
    with store.below(PurePosixPath("example.com", "app"), create=False) as part:
        assert part.layouts == store.layouts / "example.com" / "app"
        assert part.layout(PurePosixPath("1")).index() == whole.index()
        assert part.files.list(b".") == [b"1"]
    with store.below(PurePosixPath("example.com", "new"), create=True) as part:
        assert part.files.list(b".") == []
    with pytest.raises(NotFound):
        store.below(PurePosixPath("example.com", "absent"), create=False)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/etc", "a/../../b", "a\0b", "link", "link/a", "file"]
)
def test_what_is_no_part_of_a_store_does_not(store: Store, tmp_path: Path, path: str) -> None:
    (store.layouts / "link").symlink_to(tmp_path)
    (store.layouts / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidContent):
        store.below(PurePosixPath(path), create=True)
    assert sorted(tmp_path.rglob("*")) == before
