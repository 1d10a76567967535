"""Files that lose their name while somebody has them open for writing: it does not come back."""

import hashlib
import os
import random

import pytest

from ocistow.testing.invariants import violations

from .conftest import Client

CONTENT = random.Random(1).randbytes(100_000)
NAME = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"layout/blobs/sha256/{NAME}"
INDEX, MARKER = "layout/index.json", "layout/oci-layout"
EMPTY = b'{"schemaVersion": 2, "manifests": []}'


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
