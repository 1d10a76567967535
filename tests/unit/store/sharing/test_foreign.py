import os
import socket
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.store.sharing.foreign import MAX_DEPTH, ForeignLayout, find_layouts
from ocistow.store.store import Store
from ocistow.testing.descriptors import open_files
from ocistow.testing.images import image_layout
from ocistow.testing.minimal import minimal_image

A = minimal_image("a")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What pack's layout-repo-dir looks like."""
    repository = tmp_path / "repo" / "index.docker.io" / "library" / "app"
    image_layout(repository / "1", seed=1, layers=2)
    image_layout(repository / "2", seed=2, layers=1)
    return tmp_path / "repo"


def found(directory: Path) -> list[tuple[str, bool]]:
    return [(str(e.inside), e.is_image_layout) for e in find_layouts(directory)]


def skipped(directory: Path) -> list[tuple[str, str]]:
    """Return what is left out when everything is looked at."""
    told: list[tuple[str, str]] = []

    def skip(path: Path, why: str) -> None:
        told.append((str(path.relative_to(directory)), why))

    for layout in find_layouts(directory, skip):
        list(layout.blobs(skip))
    return told


def test_pack_s_directory(tree: Path) -> None:
    assert found(tree) == [
        ("index.docker.io/library/app/1", True),
        ("index.docker.io/library/app/2", True),
    ]
    first = next(iter(find_layouts(tree)))
    assert first.path == tree / "index.docker.io/library/app/1"
    blobs = {blob.digest: blob.status for blob in first.blobs()}
    files = {file.name: file.stat() for file in (first.path / "blobs/sha256").iterdir()}
    assert {digest.encoded: status for digest, status in blobs.items()} == files
    assert len(files) == 4
    assert skipped(tree) == []


def test_a_layout_itself_and_layouts_in_layouts(tmp_path: Path) -> None:
    image_layout(tmp_path)
    image_layout(tmp_path / "below")
    (tmp_path / "below" / ".uploads" / "0123").mkdir(parents=True)  # as in a registry's root
    assert found(tmp_path) == [(".", True), ("below", True)]


def test_a_repository_may_be_called_blobs(tmp_path: Path) -> None:
    image_layout(tmp_path / "blobs" / "blobs")
    assert found(tmp_path) == [("blobs/blobs", True)]


def test_shared_blobs(tmp_path: Path) -> None:
    image_layout(tmp_path / "cache" / "layout")
    shared = tmp_path / "cache" / "layout" / "blobs"
    shared.rename(tmp_path / "cache" / "blobs")
    assert found(tmp_path) == [("cache", False), ("cache/layout", True)]
    cache, layout = find_layouts(tmp_path)
    assert len(list(cache.blobs())) == 5
    assert list(layout.blobs()) == []
    (itself,) = find_layouts(tmp_path / "cache" / "blobs")
    assert (itself.path, len(list(itself.blobs()))) == (tmp_path / "cache" / "blobs", 5)


def test_what_else_is_called_sha256_is_no_blob(tmp_path: Path) -> None:
    """Such as /var/lib/docker/image/overlay2/distribution/diffid-by-digest/sha256."""
    (tmp_path / "docker" / "sha256").mkdir(parents=True)
    (tmp_path / "docker" / "sha256" / ("0" * 64)).write_text("something")
    assert found(tmp_path) == []


def test_other_files_are_no_blobs(tmp_path: Path) -> None:
    image = image_layout(tmp_path)
    directory = tmp_path / "blobs" / "sha256"
    for name in ("oci-put-blob1234", image.manifest.encoded.upper(), "0" * 63):
        (directory / name).touch()
    (layout,) = find_layouts(tmp_path)
    assert len(list(layout.blobs())) == 5


def test_links_are_not_followed(tree: Path, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "outside")
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "blobs").symlink_to(tmp_path / "outside" / "blobs")
    whole = tree / "index.docker.io/library/app/1"
    linked = image.blob(image.config)
    (whole / "blobs" / "sha256" / linked.name).symlink_to(linked)
    (whole / "blobs" / "sha512").symlink_to(tmp_path)
    assert len(found(tree)) == 2
    assert sorted(skipped(tree)) == [
        ("index.docker.io/library/app/1/blobs/sha256/" + linked.name, "a symbolic link"),
        ("index.docker.io/library/app/1/blobs/sha512", "not a directory"),
    ]
    (tmp_path / "top").symlink_to(tree)  # but the user's own word is
    assert len(found(tmp_path / "top")) == 2


def test_odd_files_are_left_out(tmp_path: Path) -> None:
    image_layout(tmp_path)
    directory = tmp_path / "blobs" / "sha256"
    os.mkfifo(directory / ("0" * 64))
    (directory / ("1" * 64)).mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        cwd = os.open(directory, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{cwd}/{'2' * 64}")
        os.close(cwd)
    if os.geteuid() == 0:
        os.mknod(directory / ("3" * 64), 0o600 | 0o020000, os.makedev(1, 3))
    os.mkfifo(tmp_path / "fifo")
    told = dict(skipped(tmp_path))
    kinds = {why for path, why in told.items() if path.startswith("blobs/sha256/")}
    assert kinds >= {"a FIFO", "a directory", "a socket"}
    (layout,) = find_layouts(tmp_path)
    assert len(list(layout.blobs())) == 5


def test_an_index_that_is_a_directory_makes_no_layout(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "index.json").mkdir()
    assert found(tmp_path) == []


def test_a_store_is_left_out(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        A.add_to(store.blobs)
        store.put(Reference.parse("example.com/app:1"), A.root)
    image_layout(tmp_path / "layout")
    assert found(tmp_path) == [("layout", True)]
    assert skipped(tmp_path) == [("store", "a store of ocistow")]


def test_unreadable_directories_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_layout(tmp_path / "a")
    image_layout(tmp_path / "b")
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a":  # root may read everything
            raise PermissionError(13, os.strerror(13))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert skipped(tmp_path) == [("a", "Permission denied")]
    assert found(tmp_path) == [("b", True)]


def test_other_file_systems_are_left_out() -> None:
    told = skipped(Path("/dev"))
    assert ("pts", "another file system") in told


def test_depth_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (MAX_DEPTH + 2))
    image_layout(deep)
    image_layout(deep.parents[2])
    files = open_files()
    assert [why for _, why in skipped(tmp_path)] == [f"more than {MAX_DEPTH} directories deep"]
    assert len(found(tmp_path)) == 1
    assert open_files() <= files


def test_names_that_are_no_text(tmp_path: Path) -> None:
    image_layout(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
    (layout,) = find_layouts(tmp_path)
    assert os.fsencode(layout.path).endswith(b"/\xff")
    assert len(list(layout.blobs())) == 5


def test_opening_follows_no_link(tmp_path: Path) -> None:
    """Also not one that was made after the walk."""
    image_layout(tmp_path / "a" / "b")
    (layout,) = find_layouts(tmp_path)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "a").symlink_to("c")
    with pytest.raises(InvalidContent), layout.opened("sha256"):
        pass
    (tmp_path / "a").unlink()
    with pytest.raises(NotFound), layout.opened("sha256"):
        pass
    assert list(layout.blobs()) == []


def test_paths_of_blobs(tmp_path: Path) -> None:
    digest = Digest("sha256", "0" * 64)
    image_layout(tmp_path)
    (layout,) = find_layouts(tmp_path)
    assert layout.blob_path(digest) == tmp_path / "blobs" / "sha256" / digest.encoded
    assert isinstance(layout, ForeignLayout)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(find_layouts(tmp_path / "absent"))
