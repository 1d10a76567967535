"""Every tree becomes the archive that Go makes of it."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import Tree, absolute, dir_layer, walk

from .conftest import Golden

pytestmark = pytest.mark.golang

NAMES = st.one_of(
    st.sampled_from(["a", "a.txt", "a-", "b", "B", ".hidden", "é", "\U0001f4e6", "\udcff", "x\ny"]),
    st.sampled_from(["n" * 99, "n" * 155, "é" * 100, "n" * 254, "ﬀ"]),
)
KINDS = st.sampled_from(["file", "file", "file", "link", "fifo", "socket", "device", "hard link"])
MODES = st.sampled_from([0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o600])
SIZES = st.sampled_from([0, 1, 511, 512, 513, 70_000, (1 << 20) - 512, 1 << 20])
TREES = st.recursive(
    st.tuples(KINDS, MODES, SIZES),
    lambda below: st.dictionaries(NAMES, below, max_size=6),
    max_leaves=25,
)

Node = tuple[str, int, int] | dict[str, "Node"]


def files(directory: Path) -> Iterator[str]:
    return (entry.path for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))


def make(path: Path, node: Node) -> None:
    if isinstance(node, dict):
        path.mkdir()
        for name, below in node.items():
            make(path / name, below)
        return
    kind, mode, size = node
    if kind == "link":
        path.symlink_to("t" * (size % 4000 or 1))
        return
    if kind == "socket":
        directory = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:  # whose path may be only 107 bytes long
            name = f"/proc/self/fd/{directory}/{path.name}"
            if len(os.fsencode(name)) < 108:
                listener.bind(name)
        os.close(directory)
        return
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device" and os.geteuid() == 0:
        os.mknod(path, 0o060000, os.makedev(300, size % (1 << 20)))
    elif kind == "hard link" and (others := list(files(path.parent))):
        os.link(others[0], path)
    else:
        path.write_bytes(os.urandom(size))
    path.chmod(mode)


@settings(max_examples=60)
@given(tree=TREES, size=st.sampled_from([1 << 20, 999, 1 << 22]))
def test_trees_are_gos(golden: Golden, tree: Node, size: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tree")
        make(path, tree)
        root = absolute(path)
        layer = LayerTar.of("tree", walk(root, 5, 7), lambda: Tree(root))
        stream = layer.open()
        archive = b"".join(iter(lambda: stream.read(size), b""))
        stream.close()
        assert archive == golden.archive(path, 5, 7)
        assert layer.size == len(archive)


def test_what_is_above_keeps_its_owner(golden: Golden, tmp_path: Path) -> None:
    """Go writes those that are above like any other directory."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    layer = dir_layer("tree", tree, 5, 7)
    above = [entry for entry in layer.entries if tree.is_relative_to(os.fsdecode(entry.name))]
    assert [os.fsdecode(entry.name) for entry in above] == [
        *map(str, reversed([path for path in tree.parents if path != Path("/")])),
        str(tree),
    ]
    for entry in above[:-1]:
        status = os.stat(entry.name)
        assert (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
        assert entry.mode == status.st_mode & 0o7777
    whole = layer.open().read(layer.size)
    assert whole.endswith(golden.archive(tree, 5, 7))
