"""What another process has removed while the kernel still believes in it: it is to look again."""

import errno
import hashlib
import os
import shutil
from collections.abc import Awaitable, Callable

import pytest

from .conftest import Client

CONTENT = b"content"
NAME = hashlib.sha256(CONTENT).hexdigest()
INDEX = b'{"schemaVersion": 2, "manifests": []}'
FILES = ["image/file", "image/index.json", f"image/blobs/sha256/{NAME}"]


async def image(client: Client) -> None:
    await client.mkdir("image/blobs/sha256")
    for path, content in zip(FILES, (b"file", INDEX, CONTENT), strict=True):
        await client.write_file(path, content)


async def is_stale(answer: Awaitable[object]) -> bool:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno is looked at
        await answer
    return caught.value.errno == errno.ESTALE


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
@pytest.mark.parametrize("path", FILES[:2])
async def test_a_file(client: Client, path: str, flags: int) -> None:
    """ENOENT would tell a client that asks for a file to be created that there is none."""
    await image(client)
    inode = await client.inode(path)
    shutil.rmtree(client.store.layouts / "image")
    assert await is_stale(client.handles.open(inode, flags))


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
async def test_a_blob_that_is_to_be_written_to(client: Client, flags: int) -> None:
    await image(client)
    inode = await client.inode(FILES[2])
    shutil.rmtree(client.store.layouts / "image")
    assert await is_stale(client.handles.open(inode, flags))


@pytest.mark.parametrize("name", ["file", "index.json", "oci-layout", "blobs/new", f"blobs/{NAME}"])
async def test_the_directory_of_a_new_file(client: Client, name: str) -> None:
    above, _, name = f"image/{name}".rpartition("/")
    await client.mkdir(above)
    inode = await client.inode(above)
    shutil.rmtree(client.store.layouts / "image")
    assert await is_stale(client.handles.create(inode, name.encode(), 0o644, os.O_WRONLY))


WAYS: dict[str, Callable[[Client, int], Awaitable[object]]] = {
    "mkdir": lambda client, image: as_request(lambda: client.names.mkdir(image, b"new")),
    "symlink": lambda client, image: as_request(lambda: client.names.symlink(image, b"new", b"to")),
    "link": lambda client, image: linked(client, image, "beside/file", "new"),
    "link a blob": lambda client, image: linked(client, image, f"blobs/sha256/{NAME}", "new"),
    "rename": lambda client, image: moved(client, image, "beside/file", "new"),
    "rename to an index": lambda client, image: moved(client, image, "beside/new", "index.json"),
}


async def as_request(call: Callable[[], object]) -> None:
    call()


async def linked(client: Client, image: int, path: str, name: str) -> None:
    await client.names.link(await client.inode(path), image, name.encode())


async def moved(client: Client, image: int, path: str, name: str) -> None:
    above, _, old = path.rpartition("/")
    await client.names.rename(await client.inode(above), old.encode(), image, name.encode(), 0)


@pytest.mark.parametrize("way", WAYS)
async def test_the_directory_of_a_new_name(client: Client, way: str) -> None:
    await image(client)
    await client.mkdir("beside")
    await client.mkdir("blobs/sha256")
    await client.write_file(f"blobs/sha256/{NAME}", CONTENT)
    await client.write_file("beside/file", b"file")
    await client.write_file("beside/new", INDEX)
    inode = await client.inode("image")
    shutil.rmtree(client.store.layouts / "image")
    assert await is_stale(WAYS[way](client, inode))
    assert len(client.generations) == 0  # nothing waits for what never comes
    assert await client.read_file("beside/file") == b"file"
    assert await client.read_file("beside/new") == INDEX


async def test_the_directory_of_an_index_that_is_closed(client: Client) -> None:
    await client.mkdir("image")
    _, handle = await client.create("image/index.json")
    await client.handles.write(handle, 0, INDEX)
    shutil.rmtree(client.store.layouts / "image")
    assert await is_stale(client.close(handle))
    assert len(client.generations) == 0
