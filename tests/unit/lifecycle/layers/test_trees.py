"""Layers of directories that others may change meanwhile."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer, launcher_layer, process_types_layer, walk
from ocistow.oci.errors import InvalidContent
from ocistow.testing.descriptors import open_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "below" / "deep").mkdir(parents=True)
    (tree / "below" / "deep" / "file").write_text("content")
    (tree / "below.txt").write_text("more")
    (tree / "link").symlink_to("below/deep")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret!")
    (tmp_path / "secret" / "deep").mkdir()
    (tmp_path / "secret" / "deep" / "file").write_text("secret!")
    return tree


def layer(tree: Path) -> LayerTar:
    return dir_layer("layer", tree, 1, 2)


def read(tar: LayerTar) -> bytes:
    stream = tar.open()
    try:
        return stream.read(1 << 30)
    finally:
        stream.close()


def contents(tar: LayerTar) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(read(tar))) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member) if member.isreg() else None) is not None
        }


def test_directories_come_before_names_that_sort_between(tree: Path) -> None:
    names = [os.fsdecode(entry.name) for entry in walk(os.fsencode(tree), 1, 2)]
    below = ["", "/below", "/below/deep", "/below/deep/file", "/below.txt", "/link"]
    assert names == [f"{tree}{name}" for name in below]


def test_a_layer_can_be_read_again(tree: Path) -> None:
    tar = layer(tree)
    assert read(tar) == read(tar)
    assert len(read(tar)) == tar.size


def test_a_file_that_grew_is_cut(tree: Path) -> None:
    tar = layer(tree)
    with (tree / "below.txt").open("a") as file:
        file.write("!" * 5000)
    assert contents(tar)[f"{tree}/below.txt"] == b"more"


def test_a_file_that_shrank_is_named(tree: Path) -> None:
    tar = layer(tree)
    (tree / "below" / "deep" / "file").write_text("con")
    with pytest.raises(InvalidContent, match=r"/deep/file had 7 bytes and ends at 3 now$"):
        read(tar)


def test_a_file_that_is_gone_is_named(tree: Path) -> None:
    tar = layer(tree)
    (tree / "below" / "deep" / "file").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read(tar)
    assert caught.value.filename == f"{tree}/below/deep/file"


@pytest.mark.parametrize("swapped", ["below", "below/deep", "below/deep/file"])
def test_nothing_is_read_through_a_link_that_was_put_there(tree: Path, swapped: str) -> None:
    tar = layer(tree)
    target = tree.parent / "secret" / ("file" if swapped.endswith("file") else "")
    (tree / swapped).rename(tree.parent / "away")
    (tree / swapped).symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory") as caught:
        read(tar)
    assert caught.value.filename == f"{tree}/below/deep/file"


def test_nothing_waits_for_a_fifo_that_was_put_there(tree: Path) -> None:
    tar = layer(tree)
    (tree / "below.txt").unlink()
    os.mkfifo(tree / "below.txt")
    with pytest.raises(OSError, match=r"no regular file any more.*below\.txt"):
        read(tar)


@pytest.mark.parametrize("swapped", ["below", "below/deep"])
def test_nothing_is_listed_through_a_link_that_was_put_there(tree: Path, swapped: str) -> None:
    entries = walk(os.fsencode(tree), 1, 2)
    while next(entries).name != os.fsencode(tree / swapped):
        pass
    (tree / swapped).rename(tree.parent / "away")
    (tree / swapped).symlink_to(tree.parent / "secret")
    with pytest.raises(NotADirectoryError) as caught:
        next(entries)
    assert caught.value.filename == f"{tree}/{swapped}"


def test_a_directory_that_is_a_link_is_a_link(tree: Path) -> None:
    [*_, entry] = layer(tree / "link").entries
    assert (entry.name, entry.target) == (os.fsencode(tree / "link"), b"below/deep")


def test_no_directory_stays_open(tree: Path) -> None:
    before = open_files()
    tar = layer(tree)
    stream = tar.open()
    stream.read(tar.size - 1500)
    stream.close()
    (tree / "below" / "deep" / "file").unlink()
    with pytest.raises(FileNotFoundError):
        read(tar)
    entries = walk(os.fsencode(tree), 1, 2)
    next(entries)
    entries.close()
    with pytest.raises(FileNotFoundError):
        layer(tree / "absent")
    assert open_files() <= before


def test_deep_trees_need_no_recursion(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 20, dir_fd=directory)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    tar = dir_layer("layer", tmp_path, 1, 2)
    assert len(tar.entries[-1].name) > 300 * 21
    assert len(read(tar)) == tar.size


def test_the_launcher_has_its_own_place(tree: Path) -> None:
    tar = launcher_layer(tree / "below.txt")
    assert contents(tar) == {"/cnb/lifecycle/launcher": b"more"}
    assert {(entry.uid, entry.gid, entry.mode) for entry in tar.entries} == {(0, 0, 0o755)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no", "failed to stat launcher at path '{0}': stat {0}: no such file or directory"),
        ("below", "failed to write launcher to layer: read {0}: is a directory"),
    ],
)
def test_what_is_no_launcher_is_refused(tree: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        launcher_layer(tree / name)
    assert str(caught.value) == message.format(tree / name)


def test_process_types_are_links_to_the_launcher() -> None:
    entries = process_types_layer(["web", "worker"]).entries
    assert [(entry.name, entry.target) for entry in entries] == [
        (b"/cnb", b""),
        (b"/cnb/process", b""),
        (b"/cnb/process/web", b"/cnb/lifecycle/launcher"),
        (b"/cnb/process/worker", b"/cnb/lifecycle/launcher"),
    ]


@pytest.mark.parametrize(
    ("type", "message"),
    [
        ("", "type is required for all processes"),
        *(
            (f"a{c}b", f"invalid process type 'a{c}b': type may not contain characters '/><:|&\\'")
            for c in "/><:|&\\"
        ),
    ],
)
def test_types_that_are_no_names_are_refused(type: str, message: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        process_types_layer(["web", type])
    assert str(caught.value) == message
