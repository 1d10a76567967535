"""Requests that others overtake: what was answered before counts, and nobody's file is closed."""

import hashlib
import os
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ocistow.oci.manifest import Index
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from .conftest import Client

LARGE = bytes(range(256)) * 1024  # more than is written without a thread
MARKER = b'{"imageLayoutVersion": "1.0.0"}'
OLD = minimal_image("old")
NEW = b'{"schemaVersion": 2, "manifests": []}'


@pytest.mark.parametrize("passthrough", [False, True])
@pytest.mark.parametrize("again", [b"", b"again"])
async def test_a_file_stays_open_while_it_becomes_a_blob(
    client: Client, passthrough: bool, again: bytes
) -> None:
    """Although its name is removed meanwhile, and perhaps given to another."""
    client.view.passthrough = passthrough
    await client.mkdir("blobs/sha256")
    name = hashlib.sha256(LARGE).hexdigest()
    await client.write_file("blobs/sha256/new", LARGE)
    if passthrough:
        staged = next(iter(client.view.staged.values()))
        os.pwrite(staged.staging.ingest.file, LARGE, 0)
    client.disk.pause_at("sync")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.rename, "blobs/sha256/new", f"blobs/sha256/{name}")
        await client.disk.reached()
        client.names.unlink(await client.inode("blobs/sha256"), b"new")
        if again:
            await client.write_file("blobs/sha256/new", again)
        client.disk.resume()
    assert violations(client.store.path) == []
    assert await client.read_file(f"blobs/sha256/{name}") == LARGE
    if again:
        assert await client.read_file("blobs/sha256/new") == again
    assert client.disk.calls.count("close") > 0


async def test_an_index_that_waited_replaces_none_that_was_written_later(client: Client) -> None:
    await client.mkdir("layout/blobs/sha256")
    await client.write_file("layout/oci-layout", MARKER)
    _, handle = await client.create("layout/index.json")
    await client.write_file("layout/index.json", Index.of([OLD.root]).raw)
    OLD.add_to(client.store.blobs)
    await client.handles.write(handle, 0, NEW)
    client.disk.pause_at("name")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.close, handle)
        await client.disk.reached()
        nursery.start_soon(client.generations.settled)
        await wait_all_tasks_blocked()
        client.disk.resume()
    assert (client.store.layouts / "layout" / "index.json").read_bytes() == NEW


@pytest.mark.parametrize("waits", [False, True])
async def test_an_index_that_is_closed_while_the_one_before_is_moved_stays(
    client: Client, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        await client.mkdir(f"{name}/blobs/sha256")
        await client.write_file(f"{name}/oci-layout", MARKER)
    if not waits:
        OLD.add_to(client.store.blobs)
    _, handle = await client.create("old/index.json")  # which nobody sees before it is closed
    await client.write_file("old/index.json", Index.of([OLD.root]).raw)
    if waits:
        OLD.add_to(client.store.blobs)
    await client.handles.write(handle, 0, NEW)
    blocking, is_moved, may_go_on = client.view.blocking, trio.Event(), trio.Event()

    async def pausing(call: Callable[..., object], *args: object, size: int = -1) -> object:
        result = await blocking(call, *args, size=size)
        if call == client.view.gate.index and not is_moved.is_set():
            is_moved.set()
            await may_go_on.wait()
        return result

    monkeypatch.setattr(client.view, "blocking", pausing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.rename, "old/index.json", "new/index.json")
        await is_moved.wait()
        await client.close(handle)
        may_go_on.set()
    assert (client.store.layouts / "old" / "index.json").read_bytes() == NEW
    assert (client.store.layouts / "new" / "index.json").read_bytes() == Index.of([OLD.root]).raw


async def test_others_are_answered_while_a_file_is_copied_to_be_cut(client: Client) -> None:
    name = hashlib.sha256(LARGE).hexdigest()
    await client.mkdir("blobs/sha256")
    await client.write_file(f"blobs/sha256/{name}", LARGE)
    await client.write_file(f"blobs/sha256/{name}.new", LARGE)  # remembered as that blob
    inode = await client.inode(f"blobs/sha256/{name}.new")
    client.disk.pause_at("copy_range")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handles.truncate, inode, None, 5)
        await client.disk.reached()
        assert await client.read_file(f"blobs/sha256/{name}") == LARGE
        client.disk.resume()
    assert await client.read_file(f"blobs/sha256/{name}.new") == LARGE[:5]
