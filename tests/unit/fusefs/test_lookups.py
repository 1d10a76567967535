"""What a lookup costs, what it promises, and what is left of it when the kernel forgets."""

import os
from collections.abc import Callable

import pytest

from ocistow.fusefs.attributes import SECOND
from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.tree import ROOT, Tree
from ocistow.fusefs.watch import Watch
from ocistow.oci.digest import Digest
from ocistow.store.collection.collector import Collector
from ocistow.store.files import Files
from ocistow.testing.minimal import minimal_image

from .conftest import Client

BLOBS = "image/blobs/sha256"


class Counted:
    """How often the disk is asked, below the layouts and in the pool."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        for owner, name in ((Files, "stat"), (type(client.store.blobs), "stat")):
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name)))

    def _counting(self, call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def counting(*args: object) -> os.stat_result:
            self.calls += 1
            return call(*args)

        return counting


async def test_a_lookup_asks_the_disk_once_and_of_a_blob_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.mkdir(BLOBS)
    await client.write_file("image/file", b"")
    digest = client.store.blobs.add([b"content"])
    parent, blobs = await client.inode("image"), await client.inode(BLOBS)
    await client.lookups.find(blobs, digest.encoded.encode(), 0)
    counted = Counted(client, monkeypatch)
    await client.lookups.find(parent, b"file", 0)
    assert counted.calls == 1
    await client.lookups.find(parent, b"blobs", 0)
    assert counted.calls == 2
    await client.lookups.find(blobs, digest.encoded.encode(), 0)
    assert counted.calls == 4
    with Watch(client.store.blobs.path) as client.view.presence.watch:
        await client.lookups.find(blobs, digest.encoded.encode(), 0)
        assert counted.calls == 4


async def test_the_kernel_may_believe_in_a_blob_while_its_lease_lasts(client: Client) -> None:
    await client.mkdir(BLOBS)
    digest = client.store.blobs.add([b"content"])
    blobs = await client.inode(BLOBS)
    name = digest.encoded.encode()
    assert (await client.lookups.find(blobs, name, 0)).entry_timeout == SECOND
    with Watch(client.store.blobs.path) as client.view.presence.watch:
        shown = await client.lookups.find(blobs, name, 0)
        assert 1700 < shown.entry_timeout <= 1800
        (client.store.blobs.path / "sha256" / digest.encoded).unlink()
        assert client.view.presence.lost(frozenset([digest])) == [shown.inode]
        with pytest.raises(FileNotFoundError):
            await client.lookups.find(blobs, name, 0)
        with pytest.raises(OSError, match="Stale"):  # on which the kernel looks the name up
            client.view.attributes(client.view.tree[shown.inode])


async def test_what_nobody_was_promised_may_go_without_a_word(client: Client) -> None:
    await client.mkdir(BLOBS)
    digest = client.store.blobs.add([b"content"])
    await client.inode(f"{BLOBS}/{digest.encoded}")
    with Watch(client.store.blobs.path) as client.view.presence.watch:
        assert client.view.presence.lost(frozenset([Digest.of(b"other")])) == []
        assert len(client.view.presence.lost(None)) == 1


async def test_a_directory_that_was_replaced_is_stale(client: Client) -> None:
    await client.mkdir("image")
    path = client.store.layouts / "image"
    inode = await client.inode("image")
    assert client.view.attributes(client.view.tree[inode]).attr_timeout == 0
    path.rename(path.with_name("old"))
    for is_made in (False, True):
        if is_made:
            path.mkdir()
        with pytest.raises(OSError, match="Stale"):
            client.view.attributes(client.view.tree[inode])
    path.rmdir()
    with pytest.raises(OSError, match="Stale"):
        client.names.mkdir(inode, b"blobs")
    assert await client.inode("old") == inode


async def test_a_removed_blob_is_absent_until_it_is_written(client: Client) -> None:
    await client.mkdir(BLOBS)
    digest = client.store.blobs.add([b"content"])
    blobs = await client.inode(BLOBS)
    name = digest.encoded.encode()
    await client.lookups.find(blobs, name, 0)
    client.names.unlink(blobs, name)
    with pytest.raises(FileNotFoundError):
        await client.lookups.find(blobs, name, 0)
    await client.write_file(f"{BLOBS}/{digest.encoded}", b"content")
    assert (await client.lookups.find(blobs, name, 0)).size == 7


async def test_nothing_is_left_of_what_the_kernel_forgot(client: Client) -> None:
    view, filesystem = client.view, FileSystem(client.view)
    for number in range(300):
        layout = client.store.layouts / f"image-{number}"
        (layout / "blobs" / "sha256").mkdir(parents=True)
        content = b"%d" % number
        digest = client.store.blobs.add([content])
        file = layout / "blobs" / "sha256" / digest.encoded
        file.hardlink_to(client.store.blobs.path / "sha256" / digest.encoded)
        (layout / "shared").hardlink_to(file)  # which gets a number of ours
        inodes = [ROOT]
        for name in (layout.name, "blobs", "sha256", digest.encoded):
            inodes.append((await filesystem.lookup(inodes[-1], name.encode(), 0)).inode)
        inodes.append((await filesystem.lookup(inodes[1], b"shared", 0)).inode)
        await filesystem.unlink(inodes[3], digest.encoded.encode())
        assert len(view.traces) == 1
        await filesystem.rmdir(inodes[2], b"sha256")
        for inode in reversed(inodes[1:]):
            filesystem.forget(inode, 1)
        assert (len(view.tree), len(view.numbers), len(view.traces)) == (1, 0, 0)


async def test_what_is_remembered_of_directories_is_bounded(client: Client) -> None:
    traces = client.view.traces
    for directory in range(25_000):
        traces.unlink(directory, b"name")
        traces.make(directory, b"name", frozenset())
    assert len(traces) == 20_000
    assert traces.is_unlinked(24_999, b"name")
    assert not traces.is_unlinked(0, b"name")


async def test_what_another_process_replaced_is_another_directory(client: Client) -> None:
    await client.mkdir(BLOBS)
    digest = client.store.blobs.add([b"content"])
    blobs = await client.inode(BLOBS)
    client.names.unlink(blobs, digest.encoded.encode())
    path = client.store.layouts / BLOBS
    path.rename(path.with_name("old"))
    path.mkdir()
    assert (await client.lookups.find(await client.inode(BLOBS), digest.encoded.encode(), 0)).size
    assert len(client.view.traces) == 0


async def test_a_deep_path_is_forgotten_from_its_top(client: Client) -> None:
    tree: Tree[None] = Tree(None)
    node = tree[ROOT]
    for inode in range(2, 3000):
        below = tree.enter(inode, None)
        tree.name(below, node, b"d")
        node = below
    for inode in range(2, 3000):
        tree.forget(inode, 1)
    assert len(tree) == 1


async def test_an_image_that_is_committed_while_garbage_is_collected_keeps_its_blobs(
    client: Client,
) -> None:
    image = minimal_image("app")
    image.add_to(client.store.blobs)
    await client.mkdir(BLOBS)
    for digest in image.blobs:  # of which a client is told, and writes none
        await client.inode(f"{BLOBS}/{digest.encoded}")
    Collector(client.store, grace=-1).collect()
    image.write_to(path := client.store.layouts.parent / "plain")
    await client.write_file("image/oci-layout", (path / "oci-layout").read_bytes())
    await client.write_file("image/index.json", (path / "index.json").read_bytes())
    await client.view.close()
    Collector(client.store, grace=-1).collect()
    for digest, content in image.blobs.items():
        assert (client.store.layouts / BLOBS / digest.encoded).read_bytes() == content


async def listed(filesystem: FileSystem, handle: int, start: int, most: int) -> list[bytes]:
    """Return the names of one request, whose answer has room for so many."""
    names: list[bytes] = []

    def take(name: bytes, _: object, after: int) -> bool:
        if len(names) == most:
            return False
        names.append(name)
        assert after == start + len(names) or start
        return True

    await filesystem.readdir(handle, start, take)
    return names


async def test_a_listing_is_whole_and_begins_anew_when_it_is_rewound(client: Client) -> None:
    filesystem = FileSystem(client.view)
    root = client.store.layouts
    for number in range(100):
        (root / f"{number:03}").touch()
    handle = await filesystem.opendir(ROOT)
    seen: list[bytes] = []
    while names := await listed(filesystem, handle, len(seen), 1):
        seen += names
        (root / f"new-{len(seen)}").touch()
    assert seen == [b"%03d" % number for number in range(100)]
    assert await listed(filesystem, handle, 40, 2) == [b"040", b"041"]  # seekdir
    (root / "000").unlink()
    assert len(await listed(filesystem, handle, 0, 1000)) == 199  # rewinddir
    assert client.view.tree[ROOT].below == len(client.view.tree) - 1


async def test_a_large_directory_is_listed_in_a_thread(client: Client) -> None:
    filesystem = FileSystem(client.view)
    directory = client.store.layouts / "large"
    directory.mkdir()
    for number in range(3000):
        (directory / f"{number:05}-{'x' * 60}").touch()
    inode = await client.inode("large")
    handle = await filesystem.opendir(inode)
    names = await listed(filesystem, handle, 0, 10_000)
    assert sorted(names) == names
    assert len(names) == len(set(names)) == 3000


async def test_the_end_of_a_file_in_memory_is_read_without_the_disk(client: Client) -> None:
    await client.mkdir("image")
    await client.write_file("image/file", b"content")
    handle = await client.open("image/file")
    assert await client.handles.read(handle, 0, 4096) == b"content"
    assert await client.handles.read(handle, 7, 4096) == b""
    assert client.view.counters.disk_reads == 0
