"""Requests that overlap: one is stopped in the middle of what it does to the disk."""

import hashlib
import logging
import os
import stat

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ocistow.fusefs.watch import Watch
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import Index
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from .conftest import Client

READER, WRITER = 1, 2  # threads
LARGE = bytes(range(256)) * 1024  # more than is written without a thread


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_write_during_a_rename_to_a_blob_does_not_reach_the_blob(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    _, handle = await client.create("file")
    await client.handles.write(handle, 0, LARGE)

    async def write() -> None:
        with pytest.raises(PermissionError):
            await client.handles.write(handle, 7, b"changed")

    client.disk.pause_at("name")  # of the copy that is made
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.rename, "file", f"blobs/sha256/{name_of(LARGE)}")
        await client.disk.reached()
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        client.disk.resume()
    assert violations(client.store.path) == []
    await client.close(handle)


async def test_a_truncation_during_a_rename_to_a_blob_does_not_reach_the_blob(
    client: Client,
) -> None:
    await client.mkdir("blobs/sha256")
    inode, handle = await client.create("file")
    await client.handles.write(handle, 0, LARGE)

    async def truncate(number: int | None) -> None:
        with pytest.raises(OSError, match=r"Stale|permitted"):
            await client.handles.truncate(inode, number, 3)

    client.disk.pause_at("name")  # of the copy that is made
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.rename, "file", f"blobs/sha256/{name_of(LARGE)}")
        await client.disk.reached()
        nursery.start_soon(truncate, handle)
        nursery.start_soon(truncate, None)
        await wait_all_tasks_blocked()
        client.disk.resume()
    assert violations(client.store.path) == []
    await client.close(handle)


async def test_a_file_that_is_emptied_during_a_write_is_hashed_anew(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    _, handle = await client.create("file")

    async def empty() -> None:
        await client.close(await client.open("file", os.O_WRONLY | os.O_TRUNC))

    client.disk.pause_at("written")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handles.write, handle, 0, LARGE)
        await client.disk.reached()
        nursery.start_soon(empty)
        await wait_all_tasks_blocked()
        client.disk.resume()
    await client.handles.write(handle, len(LARGE), b"the rest")
    with pytest.raises(Exception, match="content has digest"):
        await client.rename("file", f"blobs/sha256/{name_of(LARGE + b'the rest')}")
    await client.close(handle)
    assert violations(client.store.path) == []


async def test_a_file_cannot_be_opened_for_writing_during_its_rename_to_a_blob(
    client: Client,
) -> None:
    await client.mkdir("blobs/sha256")
    await client.write_file("file", LARGE)

    async def open_it() -> None:
        inode = await client.inode("file")
        with pytest.raises(OSError, match="Stale"):
            await client.handles.open(inode, os.O_RDWR)

    client.disk.pause_at("seal")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.rename, "file", f"blobs/sha256/{name_of(LARGE)}")
        await client.disk.reached()
        nursery.start_soon(open_it)
        await wait_all_tasks_blocked()
        client.disk.resume()
    assert violations(client.store.path) == []


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
async def test_a_file_that_somebody_can_write_to_is_copied_to_become_a_blob(
    client: Client, is_open: bool
) -> None:
    await client.mkdir("blobs/sha256")
    await client.write_file("file", LARGE)
    inode = await client.inode("file")
    await client.names.link(inode, await client.inode(""), b"other")
    if is_open:
        await client.open("file", os.O_RDWR)
    await client.rename("file", f"blobs/sha256/{name_of(LARGE)}")
    pool = client.store.blobs.path / "sha256" / name_of(LARGE)
    assert pool.samefile(client.store.layouts / "other") is not is_open
    is_same = await client.inode(f"blobs/sha256/{name_of(LARGE)}") == inode
    assert is_same is not is_open  # else the kernel would show readers what is written
    if is_open:
        with pytest.raises(OSError, match="Stale"):  # what is open since before is refused to write
            await client.handles.open(inode, os.O_RDWR)
    handle = await client.open("other", os.O_RDWR)
    await client.handles.write(handle, 0, b"changed")
    await client.close(handle)
    assert (await client.read_file("other"))[:7] == b"changed"
    assert violations(client.store.path) == []


@pytest.mark.parametrize("at", ["fsync", "rename"])
async def test_a_file_of_which_the_disk_may_have_lost_something_is_copied_to_become_a_blob(
    client: Client, at: str
) -> None:
    """The disk says so once: nobody can tell by the file itself."""
    await client.mkdir("blobs/sha256")
    await client.write_file("file", LARGE)
    await client.names.link(await client.inode("file"), await client.inode(""), b"other")
    blob = f"blobs/sha256/{name_of(LARGE)}"
    handle = await client.open("file")
    client.disk.fail_at("sync")
    with pytest.raises(OSError, match="Input/output"):
        await (client.handles.fsync(handle) if at == "fsync" else client.rename("file", blob))
    await client.close(handle)
    await client.rename("file", blob)
    pool = client.store.blobs.path / "sha256" / name_of(LARGE)
    assert not pool.samefile(client.store.layouts / "other")
    assert violations(client.store.path) == []


async def test_a_copied_link_to_a_blob_is_another_file_from_then_on(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    blob = f"blobs/sha256/{name_of(LARGE)}"
    await client.write_file(blob, LARGE)
    above = await client.inode("")
    await client.names.link(await client.inode(blob), above, b"file")
    inode = await client.inode("file")
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(inode, os.O_WRONLY)
    assert await client.inode("file") != inode
    handle = await client.open("file", os.O_WRONLY)
    await client.handles.write(handle, 0, b"changed")
    await client.close(handle)
    assert (await client.read_file("file"))[:7] == b"changed"
    assert violations(client.store.path) == []


async def test_a_waiting_index_is_committed_once_however_many_blobs_arrive(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    image = minimal_image("waited for")
    index = Index.of([image.root])
    await client.mkdir("layout/blobs/sha256")
    await client.write_file("layout/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    await client.write_file("layout/index.json", index.raw)
    assert not (client.store.layouts / "layout" / "index.json").exists()
    assert await client.read_file("layout/index.json") == index.raw
    image.add_to(client.store.blobs)
    client.disk.pause_at("name")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.generations.settled)
        await client.disk.reached()
        nursery.start_soon(client.generations.settled)
        await wait_all_tasks_blocked()
        client.disk.resume()
    assert (client.store.layouts / "layout" / "index.json").read_bytes() == index.raw
    assert caplog.messages == []


async def test_a_directory_is_none_the_less_where_a_blob_of_the_pool_was_shown(
    client: Client,
) -> None:
    await client.mkdir("layout/blobs/sha256")
    name = client.store.blobs.add([LARGE]).encoded
    above = await client.inode("layout/blobs/sha256")
    with Watch(client.store.path / "blobs") as client.view.presence.watch:
        shown = await client.lookups.find(above, name.encode(), 0)
        assert stat.S_ISREG(shown.mode)
        made = client.names.mkdir(above, name.encode())
        assert stat.S_ISDIR(made.mode)
        client.names.rmdir(above, name.encode())


async def test_whoever_makes_the_directory_that_came_with_blobs_finds_what_others_write_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_visible(_: int) -> bool:
        return True

    monkeypatch.setattr("ocistow.fusefs.namespace.is_visible", is_visible)
    await client.mkdir("layout")
    layout = await client.inode("layout")
    client.names.mkdir(layout, b"blobs")
    _, handle = await client.create("layout/blobs/sha256/temporary")
    await client.handles.write(handle, 0, LARGE)
    client.names.mkdir(await client.inode("layout/blobs"), b"sha256")
    await client.close(handle)
    await client.rename("layout/blobs/sha256/temporary", f"layout/blobs/sha256/{name_of(LARGE)}")
    assert await client.read_file(f"layout/blobs/sha256/{name_of(LARGE)}") == LARGE


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_the_kernel_wrote_by_itself_becomes_a_blob_that_nobody_writes_to(
    client: Client, is_open: bool
) -> None:
    client.view.passthrough = True
    await client.mkdir("layout/blobs/sha256")
    above = await client.inode("layout/blobs/sha256")
    opened, _ = await client.handles.create(above, b"temporary", 0o644, os.O_RDWR)
    kernels = os.open(f"/proc/self/fd/{opened.backing}", os.O_RDWR)
    os.pwrite(kernels, LARGE[1000:], 1000)
    os.pwrite(kernels, LARGE[:1000], 0)
    if not is_open:
        os.close(kernels)
        await client.close(opened.handle)
    await client.rename("layout/blobs/sha256/temporary", f"layout/blobs/sha256/{name_of(LARGE)}")
    if is_open:
        os.pwrite(kernels, b"changed", 0)
        os.close(kernels)
        await client.close(opened.handle)
    assert await client.read_file(f"layout/blobs/sha256/{name_of(LARGE)}") == LARGE
    assert violations(client.store.path, sparse=True) == []


async def test_what_the_kernel_writes_by_itself_is_the_content_whatever_others_ask(
    client: Client,
) -> None:
    client.view.passthrough = True
    await client.mkdir("layout/blobs/sha256")
    above = await client.inode("layout/blobs/sha256")
    name = client.store.blobs.add([b"copied"]).encoded
    source = await client.open(f"layout/blobs/sha256/{name}")
    opened, _ = await client.handles.create(above, b"temporary", 0o644, os.O_RDWR)
    other = await client.open("layout/blobs/sha256/temporary", os.O_RDWR)
    client.handles.keep(other)
    assert await client.handles.copy(source, 0, opened.handle, 0, 100) == len(b"copied")
    assert os.pread(opened.backing, 100, 0) == b"copied"
    os.pwrite(opened.backing, LARGE, 0)
    inode = await client.inode("layout/blobs/sha256/temporary")
    assert client.view.attributes(client.view.tree[inode]).size == len(LARGE)
    await client.close(other)
    await client.close(opened.handle)
    await client.rename("layout/blobs/sha256/temporary", f"layout/blobs/sha256/{name_of(LARGE)}")
    assert await client.read_file(f"layout/blobs/sha256/{name_of(LARGE)}") == LARGE


async def test_what_the_kernel_does_not_write_by_itself_is_refused_once_it_is_a_blob(
    client: Client,
) -> None:
    """As on a store that is an overlay itself, where nobody else has the file open."""
    client.view.passthrough = True
    await client.mkdir("layout/blobs/sha256")
    _, handle = await client.create("layout/blobs/sha256/temporary")
    client.handles.keep(handle)
    await client.handles.write(handle, 0, LARGE)
    await client.rename("layout/blobs/sha256/temporary", f"layout/blobs/sha256/{name_of(LARGE)}")
    with pytest.raises(PermissionError):
        await client.handles.write(handle, 0, b"changed")
    await client.close(handle)
    assert await client.read_file(f"layout/blobs/sha256/{name_of(LARGE)}") == LARGE


async def test_a_temporary_file_that_is_called_for_a_blob_is_compared_with_it(
    client: Client,
) -> None:
    client.view.passthrough = True
    await client.mkdir("layout/blobs/sha256")
    await client.write_file(f"layout/blobs/sha256/{name_of(LARGE)}", LARGE)
    client.disk.calls.clear()
    temporary = f"layout/blobs/sha256/{name_of(LARGE)}42"
    for content in (LARGE, LARGE[:100] + b"another" + LARGE[107:]):
        _, handle = await client.create(temporary)
        for start in range(0, len(LARGE), 10_000):
            await client.handles.write(handle, start, content[start : start + 10_000])
        await client.close(handle)
        assert ("write" in client.disk.calls) == (content != LARGE)
        assert await client.read_file(temporary) == content
        client.names.unlink(await client.inode("layout/blobs/sha256"), temporary[-66:].encode())


async def test_whoever_finds_an_index_opens_the_one_that_replaced_it(client: Client) -> None:
    """The kernel looks up again only once, and whoever commits often may be quicker twice."""
    await client.mkdir("layout")
    await client.write_file("layout/index.json", Index.of([]).raw)
    found = await client.inode("layout/index.json")
    image = minimal_image("replacing")
    image.add_to(client.store.blobs)
    newer = Index.of([image.root]).raw
    await client.write_file("layout/later", newer)
    await client.rename("layout/later", "layout/index.json")
    assert await client.inode("layout/index.json") != found
    reading = (await client.handles.open(found, os.O_RDONLY)).handle
    assert await client.handles.read(reading, 0, 1 << 20) == newer
    await client.close(reading)


async def test_a_temporary_file_that_the_kernel_forgot_becomes_a_blob(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    inode, handle = await client.create("blobs/sha256/temporary")
    await client.handles.write(handle, 0, LARGE)
    await client.close(handle)
    client.view.tree.forget(inode, 1)
    again = await client.inode("blobs/sha256/temporary")
    await client.rename("blobs/sha256/temporary", f"blobs/sha256/{name_of(LARGE)}")
    assert client.view.attributes(client.view.tree[again]).size == len(LARGE)
    assert Digest("sha256", name_of(LARGE)) in client.store.blobs


async def test_an_index_can_be_asked_about_after_it_was_replaced(client: Client) -> None:
    await client.mkdir("layout")
    first, second = (b'{"schemaVersion": 2, "manifests": []%b}' % space for space in (b"", b" "))
    await client.write_file("layout/index.json", first)
    inode = await client.inode("layout/index.json")
    opened = await client.handles.open(inode, os.O_RDONLY)
    writer = await client.open("layout/index.json", os.O_WRONLY | os.O_TRUNC)
    await client.handles.write(writer, 0, second)
    await client.handles.fsync(writer)
    assert await client.inode("layout/index.json") != inode
    assert client.view.attributes(client.view.tree[inode]).size == len(first)
    assert await client.handles.read(opened.handle, 0, 1000) == first
    await client.close(opened.handle)
    await client.close(writer)
    assert await client.read_file("layout/index.json") == second


async def test_an_index_that_is_removed_can_be_asked_about_while_it_is_open(
    client: Client,
) -> None:
    await client.mkdir("layout")
    content = b'{"schemaVersion": 2, "manifests": []}'
    await client.write_file("layout/index.json", content)
    inode = await client.inode("layout/index.json")
    handle = await client.open("layout/index.json")
    client.names.unlink(await client.inode("layout"), b"index.json")
    assert client.view.attributes(client.view.tree[inode]).size == len(content)
    assert await client.handles.read(handle, 0, 1000) == content
    await client.close(handle)


async def test_a_blob_that_is_written_again_is_not_put_into_another_layout(client: Client) -> None:
    """All layouts' blob is one inode, by which it is opened: the last that looked is not meant."""
    await client.mkdir("one/blobs/sha256")
    await client.mkdir("two/blobs/sha256")
    await client.write_file(f"one/blobs/sha256/{name_of(LARGE)}", LARGE)
    inode = await client.inode(f"one/blobs/sha256/{name_of(LARGE)}")
    assert await client.inode(f"two/blobs/sha256/{name_of(LARGE)}") == inode
    opened = await client.handles.open(inode, os.O_WRONLY)
    await client.handles.write(opened.handle, 0, LARGE)
    client.names.rmdir(await client.inode("two/blobs"), b"sha256")
    await client.close(opened.handle)
    client.names.rmdir(await client.inode("two"), b"blobs")
    assert violations(client.store.path) == []


async def test_what_is_given_up_is_let_go_while_others_are_answered(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    _, handle = await client.create(f"blobs/sha256/{name_of(b'other')}")
    await client.handles.write(handle, 0, bytes(2 << 20))
    with pytest.raises(InvalidContent):
        await client.handles.flush(handle)
    client.disk.pause_at("close")
    await client.handles.release(handle)
    await client.disk.reached()
    await client.write_file("file", b"meanwhile")
    client.disk.resume()


async def test_a_blob_is_not_emptied_by_the_inode_that_others_read(client: Client) -> None:
    """The kernel believes that an inode is empty once it has opened it with O_TRUNC.

    It may send that when the file has become a blob since it found the name.
    """
    await client.mkdir("blobs/sha256")
    await client.write_file("file", LARGE)
    parent, name = await client.inode("blobs/sha256"), name_of(LARGE).encode()
    known = await client.inode("file")
    await client.rename("file", f"blobs/sha256/{name.decode()}")
    assert (await client.lookups.find(parent, name, READER)).inode == known
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(known, os.O_WRONLY | os.O_TRUNC, WRITER)
    for _ in range(2):  # the kernel looks twice when a number changed, and forgets the first
        shown = await client.lookups.find(parent, name, WRITER)
        client.view.tree.forget(shown.inode, 1)
    shown = await client.lookups.find(parent, name, WRITER)
    assert shown.inode != known
    assert shown.entry_timeout == 0
    assert (await client.lookups.find(parent, name, READER)).inode == known
    opened = await client.handles.open(shown.inode, os.O_WRONLY | os.O_TRUNC, WRITER)
    assert (await client.lookups.find(parent, name, WRITER)).inode == known
    await client.handles.write(opened.handle, 0, LARGE)
    await client.close(opened.handle)
    assert violations(client.store.path) == []


async def test_a_blob_that_the_kernel_reads_by_itself_is_opened_for_writing_by_another_inode(
    client: Client,
) -> None:
    """A mapping of that could change the pool's file."""
    client.view.passthrough = True
    await client.mkdir("layout/blobs/sha256")
    await client.write_file(f"layout/blobs/sha256/{name_of(LARGE)}", LARGE)
    inode = await client.inode(f"layout/blobs/sha256/{name_of(LARGE)}")
    reader = await client.handles.open(inode, os.O_RDONLY)
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(inode, os.O_WRONLY)
    assert await client.inode(f"layout/blobs/sha256/{name_of(LARGE)}") != inode
    await client.close(reader.handle)


async def test_a_reader_of_a_descriptor_may_empty_it(client: Client) -> None:
    """By /proc/self/fd the kernel comes to the same inode however often it looks."""
    await client.mkdir("blobs/sha256")
    await client.write_file(f"blobs/sha256/{name_of(LARGE)}", LARGE)
    inode = await client.inode(f"blobs/sha256/{name_of(LARGE)}")
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(inode, os.O_WRONLY | os.O_TRUNC, WRITER)
    opened = await client.handles.open(inode, os.O_WRONLY | os.O_TRUNC, WRITER)
    with pytest.raises(InvalidContent):
        await client.close(opened.handle)


async def test_pages_of_a_bad_file_go_when_the_blob_is_another_file(client: Client) -> None:
    """The kernel, which still knows the name, opens the inode without looking it up again."""
    await client.mkdir("blobs/sha256")
    await client.write_file(f"blobs/sha256/{name_of(LARGE)}", LARGE)
    inode = await client.inode(f"blobs/sha256/{name_of(LARGE)}")

    async def keeps() -> bool:
        opened = await client.handles.open(inode, os.O_RDONLY)
        await client.close(opened.handle)
        return opened.keep

    assert await keeps()
    pool = client.store.path / "blobs" / "sha256" / name_of(LARGE)
    bad = pool.rename(client.store.path / "bad")
    client.store.blobs.add([LARGE])
    assert not await keeps()
    assert await keeps()
    bad.unlink()


@pytest.mark.parametrize("layouts", [["one"], ["one", "two"]], ids=["alone", "one of two"])
async def test_a_blob_that_was_found_in_a_directory_is_opened_after_that_was_removed(
    client: Client, layouts: list[str]
) -> None:
    """The pool's blobs are found in every layout, so that the directory was empty."""
    blob = client.store.blobs.add([LARGE])
    for layout in layouts:
        await client.mkdir(f"{layout}/blobs/sha256")
        await client.inode(f"{layout}/blobs/sha256/{blob.encoded}")
    inode = await client.inode(f"{layouts[0]}/blobs/sha256/{blob.encoded}")
    client.names.rmdir(await client.inode(f"{layouts[-1]}/blobs"), b"sha256")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        opened = await client.handles.open(inode, flags)
        await client.close(opened.handle)
    assert violations(client.store.path) == []


async def test_directories_that_a_commit_made_have_no_name_when_they_are_removed(
    client: Client,
) -> None:
    """Or the next directories with their numbers would seem to lie in each other."""
    image = minimal_image("made")
    image.add_to(client.store.blobs)
    await client.mkdir("layout")
    await client.write_file("layout/index.json", Index.of([image.root]).raw)
    known = [
        client.view.tree[await client.inode(f"layout/{path}")]
        for path in ("blobs", "blobs/sha256", f"blobs/sha256/{image.root.digest.encoded}")
    ]
    client.names.rmdir(await client.inode("layout"), b"blobs")
    assert [node.names for node in known] == [{}, {}, {}]


async def test_a_reader_waits_while_what_it_reads_is_copied(client: Client) -> None:
    """What was read till then is closed, and another file may get its descriptor."""
    await client.mkdir("blobs/sha256")
    await client.write_file(f"blobs/sha256/{name_of(LARGE)}", LARGE)
    handle = await client.open(f"blobs/sha256/{name_of(LARGE)}", os.O_RDWR)
    found: list[bytes] = []

    async def read() -> None:
        found.append(bytes(await client.handles.read(handle, 0, 4)))

    client.disk.pause_at("copy_range")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handles.write, handle, 0, b"NEWS")
        await client.disk.reached()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert found == []
        client.disk.resume()
    assert found == [b"NEWS"]
    with pytest.raises(InvalidContent):
        await client.close(handle)
