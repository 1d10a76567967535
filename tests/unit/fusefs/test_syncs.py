"""What fsync(2) of a directory promises."""

import errno
import os

import pytest

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


@pytest.mark.parametrize("path", ["oci-put-blob1", "blobs/temporary"])
async def test_a_close_does_not_fail_where_no_more_files_can_be_opened(
    client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel wrote by itself is there; only the disk does not begin with it."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    client.view.passthrough = True
    await client.mkdir("blobs")
    _, handle = await client.create(path)
    with monkeypatch.context() as poor:
        poor.setattr(os, "open", refuse)
        poor.setattr(os, "dup", refuse)
        await client.handles.flush(handle)
    await client.handles.release(handle)
