"""What fsync(2) of a directory promises."""

from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.tree import ROOT

from .conftest import Client


async def test_the_names_in_a_directory_survive_power_loss(client: Client) -> None:
    filesystem = FileSystem(client.view)
    await client.mkdir("directory")
    for path, directory in (
        ("", client.store.layouts),
        ("directory", client.store.layouts / "directory"),
    ):
        handle = await filesystem.opendir(await client.inode(path))
        client.disk.synced.clear()
        await filesystem.fsyncdir(handle)
        assert client.disk.synced == [directory.stat().st_ino]
        await filesystem.releasedir(handle)


async def test_a_directory_that_is_gone_has_no_names(client: Client) -> None:
    filesystem = FileSystem(client.view)
    await client.mkdir("directory")
    handle = await filesystem.opendir(await client.inode("directory"))
    await filesystem.rmdir(ROOT, b"directory")
    client.disk.synced.clear()
    await filesystem.fsyncdir(handle)
    assert client.disk.synced == []
