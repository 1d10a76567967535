"""Files that others replace whenever somebody is about to open them."""

import os

import pytest

from ocistow.oci.errors import OcistowError

from .conftest import Client

THREAD, OTHER = 7, 8
WAYS = [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC]


async def replace(client: Client, content: bytes, *, outside: bool) -> None:
    if outside:
        new = client.store.layouts / "image" / "new"
        new.write_bytes(content)
        new.rename(new.with_name("file"))
    else:
        await client.write_file("image/new", content)
        await client.rename("image/new", "image/file")


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("flags", WAYS)
async def test_who_opens_a_file_gets_one_however_often_it_is_replaced(
    client: Client, flags: int, outside: bool
) -> None:
    """The kernel looks once more after ESTALE, and then opens what it found, or fails."""
    await client.mkdir("image")
    await client.write_file("image/file", b"0")
    above, opened, last = await client.inode("image"), None, b""
    for last in (b"1", b"2"):
        inode = (await client.lookups.find(above, b"file", THREAD)).inode
        await client.lookups.find(above, b"file", OTHER)
        await replace(client, last, outside=outside)
        try:
            opened = await client.handles.open(inode, flags, THREAD)
            break
        except OSError:
            if last == b"2":
                raise
    assert opened is not None
    if flags & os.O_ACCMODE != os.O_WRONLY:
        content = bytes(await client.handles.read(opened.handle, 0, 10))
        assert content == b"" if flags & os.O_TRUNC else content in (b"1", b"2")
    await client.close(opened.handle)
    assert await client.read_file("image/file") == last


def kept(client: Client) -> int:
    """Return how many files of the store this process has open."""
    files = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if entry.is_symlink()]
    return sum(file.startswith(f"{client.store.layouts}/") for file in files)


async def fail_to_open(client: Client) -> None:
    inode = (await client.lookups.find(await client.inode("image"), b"file", THREAD)).inode
    await replace(client, b"1", outside=False)
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(inode, os.O_RDONLY, THREAD)


async def test_who_finds_nothing_is_expected_no_more(client: Client) -> None:
    await client.mkdir("image")
    await client.write_file("image/file", b"0")
    await fail_to_open(client)
    above = await client.inode("image")
    client.names.unlink(above, b"file")
    with pytest.raises(FileNotFoundError):
        await client.lookups.find(above, b"file", THREAD)
    await client.write_file("image/file", b"2")
    await client.lookups.find(above, b"file", THREAD)
    assert kept(client) == 0


async def test_who_goes_on_without_opening_is_expected_no_more(client: Client) -> None:
    await client.mkdir("image")
    await client.write_file("image/file", b"0")
    await fail_to_open(client)
    above = await client.inode("image")
    files: list[int] = []
    for _ in range(4):
        await client.lookups.find(above, b"file", THREAD)
        files.append(kept(client))
    assert files == [1, 1, 0, 0]


async def test_nothing_is_kept_of_what_is_not_opened(client: Client) -> None:
    await client.mkdir("image")
    await client.write_file("image/file", b"0")
    above, before = await client.inode("image"), len(os.listdir("/proc/self/fd"))
    for thread in range(1000):
        inode = (await client.lookups.find(above, b"file", thread)).inode
        await replace(client, b"1", outside=False)
        with pytest.raises((OSError, OcistowError)):
            await client.handles.open(inode, os.O_RDONLY, thread)
        await client.lookups.find(above, b"file", thread)
    assert len(os.listdir("/proc/self/fd")) - before < 100
    client.lookups.close()
    assert len(os.listdir("/proc/self/fd")) == before
