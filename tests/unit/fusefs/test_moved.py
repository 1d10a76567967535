"""Files that are renamed while somebody has them open for writing: no byte is lost in silence."""

import gc
import hashlib
import os

import pytest

from ocistow.fusefs.contents import Ordinary
from ocistow.oci.errors import InvalidContent
from ocistow.testing.invariants import violations
from ocistow.testing.minimal import minimal_image

from .conftest import Client

INDEX = b'{"schemaVersion": 2, "manifests": []}'
MARKER = b'{"imageLayoutVersion": "1.0.0"}'
GUARDED = [("index.json", INDEX), ("oci-layout", MARKER)]


async def written(client: Client, path: str, content: bytes) -> bytes:
    await client.mkdir("layout/blobs/sha256")
    await client.mkdir("other")
    await client.write_file(path, content)
    return content


@pytest.mark.parametrize(("name", "content"), GUARDED)
@pytest.mark.parametrize("new", ["layout/kept", "other/kept", "other/{}"])
async def test_what_a_writer_adds_to_what_is_moved(
    client: Client, name: str, content: bytes, new: str
) -> None:
    await written(client, f"layout/{name}", content)
    idle, before, after = [await client.open(f"layout/{name}", os.O_WRONLY) for _ in range(3)]
    await client.handles.write(before, 0, content + b" ")
    await client.rename(f"layout/{name}", new.format(name))
    await client.handles.write(after, 0, content + b"\n")
    for handle in (before, after):
        with pytest.raises(InvalidContent, match="renamed"):
            await client.close(handle)
    await client.close(idle)
    assert await client.read_file(new.format(name)) == content
    assert not (client.store.layouts / "layout" / name).exists()


@pytest.mark.parametrize(("name", "content"), GUARDED)
async def test_the_next_file_of_that_name_is_its_own_writer_s(
    client: Client, name: str, content: bytes
) -> None:
    await written(client, f"layout/{name}", content)
    handle = await client.open(f"layout/{name}", os.O_WRONLY)
    await client.rename(f"layout/{name}", "layout/kept")
    await client.write_file(f"layout/{name}", content + b" ")
    await client.handles.write(handle, 0, content + b"\n")
    with pytest.raises(InvalidContent, match="renamed"):
        await client.close(handle)
    assert await client.read_file(f"layout/{name}") == content + b" "


@pytest.mark.parametrize("old", ["layout/new", "layout/blobs/sha256/new"])
@pytest.mark.parametrize(("name", "content"), GUARDED)
async def test_what_a_writer_adds_after_a_rename_to_an_index_or_marker(
    client: Client, name: str, content: bytes, old: str
) -> None:
    await client.mkdir("layout/blobs/sha256")
    _, handle = await client.create(old, os.O_WRONLY)
    await client.handles.write(handle, 0, content)
    await client.rename(old, f"layout/{name}")
    await client.handles.flush(handle)  # what was renamed is there
    assert await client.read_file(f"layout/{name}") == content
    if "blobs" in old:
        await client.handles.write(handle, 0, b"more")
        with pytest.raises(InvalidContent, match="renamed"):
            await client.handles.flush(handle)
    else:
        with pytest.raises(PermissionError):
            await client.handles.write(handle, 0, b"more")
    await client.handles.release(handle)
    assert await client.read_file(f"layout/{name}") == content


async def test_what_a_writer_adds_after_a_rename_to_a_blob_that_was_there(client: Client) -> None:
    content = b"content"
    blob = client.store.blobs.add([content])
    await client.mkdir("layout/blobs/sha256")
    _, handle = await client.create(f"layout/blobs/sha256/{blob.encoded}.new", os.O_WRONLY)
    await client.handles.write(handle, 0, content)
    await client.rename(
        f"layout/blobs/sha256/{blob.encoded}.new", f"layout/blobs/sha256/{blob.encoded}"
    )
    await client.handles.write(handle, len(content), b"more")
    with pytest.raises(InvalidContent, match="renamed"):
        await client.close(handle)
    assert violations(client.store.path) == []


async def test_a_temporary_file_is_not_taken_for_another_of_its_name(client: Client) -> None:
    await client.mkdir("blobs/sha256")
    _, handle = await client.create("blobs/sha256/new")
    await client.handles.write(handle, 0, b"unlinked")
    client.names.unlink(await client.inode("blobs/sha256"), b"new")
    await client.write_file("blobs/sha256/new", b"content")
    name = hashlib.sha256(b"content").hexdigest()
    await client.rename("blobs/sha256/new", f"blobs/sha256/{name}")
    await client.close(handle)
    assert await client.read_file(f"blobs/sha256/{name}") == b"content"


async def test_an_index_that_waits_is_not_moved_to_where_blobs_are(client: Client) -> None:
    await client.mkdir("layout/blobs/sha256")
    image = minimal_image("late")
    index = (
        b'{"schemaVersion": 2, "manifests": [{"mediaType": "%b", "digest": "%b", "size": %d}]}'
        % (
            image.root.media_type.encode(),
            str(image.root.digest).encode(),
            image.root.size,
        )
    )
    await client.write_file("layout/index.json", index)
    with pytest.raises(OSError, match="cross-device"):
        await client.rename("layout/index.json", "layout/blobs/sha256/temporary")
    assert await client.read_file("layout/index.json") == index


async def lose(client: Client, content: bytes) -> None:
    """Write a file of which a sync fails; afterwards nobody knows of it any more."""
    inode, handle = await client.create("file")
    await client.handles.write(handle, 0, content)
    await client.close(handle)
    ordinary = client.view.tree[inode].content
    assert isinstance(ordinary, Ordinary)
    client.view.lose(ordinary)
    client.view.tree.forget(inode, 1)


async def test_a_file_that_the_disk_lost_is_not_believed_after_it_was_forgotten(
    client: Client,
) -> None:
    """The kernel forgets an inode when it needs memory; the next sync does not fail again."""
    content = b"content"
    await client.mkdir("blobs/sha256")
    await lose(client, content)
    lost = (client.store.layouts / "file").stat().st_ino
    gc.collect()
    name = hashlib.sha256(content).hexdigest()
    await client.rename("file", f"blobs/sha256/{name}")
    assert (client.store.layouts / "blobs" / "sha256" / name).stat().st_ino != lost
    assert violations(client.store.path) == []
