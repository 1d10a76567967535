"""Files that lose their name while somebody has them open for writing: it does not come back."""

import hashlib
import json
import os
import random

import pytest

from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from .conftest import Client

CONTENT = random.Random(1).randbytes(100_000)
NAME = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"layout/blobs/sha256/{NAME}"
INDEX, MARKER = "layout/index.json", "layout/oci-layout"
EMPTY = b'{"schemaVersion": 2, "manifests": []}'


def index_of(image: str) -> bytes:
    manifests = [minimal_image(image).root.to_document()]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


async def prepare(client: Client) -> None:
    await client.mkdir("layout/blobs/sha256")
    await client.write_file(BLOB, CONTENT)
    await client.write_file(INDEX, EMPTY)
    await client.write_file(MARKER, b'{"imageLayoutVersion": "1.0.0"}')


async def remove(client: Client, path: str) -> None:
    above, _, name = path.rpartition("/")
    client.names.unlink(await client.inode(above), name.encode())


@pytest.mark.parametrize(
    ("path", "content"), [(BLOB, CONTENT), (INDEX, EMPTY)], ids=["blob", "index"]
)
async def test_a_file(client: Client, path: str, content: bytes) -> None:
    await prepare(client)
    handle = await client.open(path, os.O_WRONLY | os.O_TRUNC)
    await remove(client, path)
    await client.handles.write(handle, 0, content)
    await client.close(handle)
    assert not (client.store.layouts / path).exists()
    await client.write_file(path, content)
    assert (client.store.layouts / path).exists()
    assert violations(client.store.path) == []


async def test_a_whole_layout(client: Client) -> None:
    await prepare(client)
    handles = [await client.open(path, os.O_WRONLY | os.O_TRUNC) for path in (BLOB, INDEX)]
    for path in (BLOB, INDEX, MARKER):
        await remove(client, path)
    for path in ("layout/blobs/sha256", "layout/blobs", "layout"):
        above, _, name = path.rpartition("/")
        client.names.rmdir(await client.inode(above), name.encode())
    for handle, content in zip(handles, (CONTENT, EMPTY), strict=True):
        await client.handles.write(handle, 0, content)
        await client.close(handle)
    assert os.listdir(client.store.layouts) == []
    assert violations(client.store.path) == []


async def test_what_would_be_refused_is_no_error(client: Client) -> None:
    await prepare(client)
    handles = [await client.open(path, os.O_WRONLY) for path in (BLOB, INDEX, MARKER)]
    for path in (BLOB, INDEX, MARKER):
        await remove(client, path)
    for handle in handles:
        await client.handles.write(handle, 0, b"bad")
        await client.close(handle)
    assert os.listdir(client.store.layouts / "layout") == ["blobs"]
    assert client.view.counters["refused"].files == 0


@pytest.mark.parametrize("content", [EMPTY, b"bad"], ids=["good", "bad"])
async def test_a_new_index_that_was_committed_before(client: Client, content: bytes) -> None:
    await client.mkdir("layout")
    inode, handle = await client.create(INDEX)
    await client.handles.write(handle, 0, EMPTY)
    await client.handles.fsync(handle)
    await remove(client, INDEX)
    await client.handles.truncate(inode, handle, 0)
    await client.handles.write(handle, 0, content)
    await client.close(handle)
    assert os.listdir(client.store.layouts / "layout") == []


async def test_a_new_index_that_waited(client: Client) -> None:
    await client.mkdir("layout")
    inode, handle = await client.create(INDEX)
    await client.handles.write(handle, 0, index_of("absent"))
    await client.handles.flush(handle)
    await remove(client, INDEX)
    await client.handles.truncate(inode, handle, 0)
    await client.handles.write(handle, 0, EMPTY)
    await client.close(handle)
    assert os.listdir(client.store.layouts / "layout") == []


async def test_a_new_index_whose_name_was_anothers_is_committed(client: Client) -> None:
    """It never had the name that was removed."""
    await client.mkdir("layout")
    _, handle = await client.create(INDEX)
    await client.write_file(INDEX, EMPTY)
    await remove(client, INDEX)
    await client.handles.write(handle, 0, EMPTY)
    await client.close(handle)
    assert (client.store.layouts / INDEX).exists()


async def test_an_index_whose_name_another_has_by_now(client: Client) -> None:
    """The last to close wins, even if it has to wait as the other does."""
    await prepare(client)
    handle = await client.open(INDEX, os.O_WRONLY | os.O_TRUNC)
    await remove(client, INDEX)
    await client.write_file(INDEX, index_of("one"))
    await client.handles.write(handle, 0, index_of("two"))
    await client.close(handle)
    assert not (client.store.layouts / INDEX).exists()
    assert await client.read_file(INDEX) == index_of("two")
    assert len(client.generations) == 1
