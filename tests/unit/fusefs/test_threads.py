"""A system that has no thread left for us: requests are answered all the same."""

import errno
import hashlib
import threading
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import pytest
import trio

from ocistow.fusefs.calls import in_thread
from ocistow.fusefs.engines.engine import Device
from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.filling import Filling
from ocistow.oci.digest import Digest

from .conftest import TIMEOUT, Client

LARGE = bytes(3 << 20)
INDEX = b'{"schemaVersion": 2, "manifests": []}'


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> Generator[pytest.MonkeyPatch]:
    """Let no worker thread be started until this is undone."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as poor:
        poor.setattr("trio._threads.start_thread_soon", refuse)
        yield poor


async def test_what_waits_for_a_disk_is_done_at_once(
    client: Client, few_threads: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hashlib.sha256(LARGE).hexdigest()
    await client.mkdir("image/blobs/sha256")
    await client.write_file(f"image/blobs/sha256/{digest}", LARGE)
    await client.write_file("image/file", LARGE)
    await client.rename("image/file", f"image/blobs/sha256/{digest}")
    await client.write_file("image/index.json", INDEX)
    layout = client.store.layouts / "image"
    assert (layout / "blobs/sha256" / digest).read_bytes() == LARGE
    assert (layout / "index.json").read_bytes() == INDEX
    (warning,) = caplog.messages  # one, however many requests there are
    assert "no thread" in warning


async def test_what_is_given_up_is_let_go(client: Client, few_threads: pytest.MonkeyPatch) -> None:
    await client.mkdir("image/blobs")
    _, handle = await client.create("image/blobs/temporary")
    await client.handles.write(handle, 0, LARGE)
    await client.handles.flush(handle)
    staged = next(iter(client.view.staged.values()))
    client.names.unlink(await client.inode("image/blobs"), b"temporary")
    await client.handles.release(handle)
    with trio.fail_after(TIMEOUT):
        while staged.staging.ingest.file >= 0:
            await trio.lowlevel.checkpoint()


async def test_what_waits_for_the_network_is_refused(
    client: Client, few_threads: pytest.MonkeyPatch
) -> None:
    def fill(layout: PurePosixPath, digest: Digest, size: int) -> None:
        raise AssertionError

    filling = Filling(fill, client.view.gate, client.view.files)
    with pytest.raises(OSError, match="no thread") as caught:
        await filling.fetch(PurePosixPath("image"), {Digest.of(b"layer"): 5})
    assert caught.value.errno == errno.EAGAIN


async def test_whom_nobody_can_watch_is_not_known(
    client: Client, few_threads: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"blob").hexdigest()
    for name in ("one", "two"):
        await client.mkdir(f"{name}/blobs/sha256")
        await client.write_file(f"{name}/blobs/sha256/{digest}", b"blob")
    inodes = {await client.inode(f"{name}/blobs/sha256/{digest}") for name in ("one", "two")}
    (inode,) = inodes
    assert await client.lookups.clients.opened_name(client.view.tree[inode], 1) is None


async def test_a_bug_in_a_thread_is_no_lack_of_threads() -> None:
    def call() -> None:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await in_thread(call, limiter=trio.CapacityLimiter(1))


class Engine:
    """An engine that nobody asks anything, and that once cannot tell the kernel."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []  # inodes, and by which thread
        self.over = trio.Event()

    def mount(self, filesystem: FileSystem, mountpoint: Path, device: Device) -> None:
        raise AssertionError

    async def serve(self) -> None:
        await self.over.wait()

    def terminate(self) -> None:
        self.over.set()

    def unmount(self) -> None:
        raise AssertionError

    def invalidate_inode(self, inode: int) -> None:
        self.told.append((inode, threading.get_ident()))
        if len(self.told) == 1:
            raise OSError(errno.ENOMEM, "no memory")


async def test_the_kernel_is_told_what_is_over_as_soon_as_there_is_a_thread(
    client: Client, few_threads: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the event loop it must not be told, which the kernel may wait for."""
    monkeypatch.setattr("ocistow.fusefs.watch.PAUSE", 0.0)
    await client.mkdir("image/blobs/sha256")
    engine, filesystem = Engine(), FileSystem(client.view)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(filesystem.serve, engine)
            inodes = {await look_up_lost(client, content) for content in (b"one", b"two")}
            few_threads.undo()
            while not inodes <= {inode for inode, _ in engine.told}:
                await trio.lowlevel.checkpoint()
            engine.terminate()
    assert threading.get_ident() not in {thread for _, thread in engine.told}


async def look_up_lost(client: Client, content: bytes) -> int:
    digest = Digest.of(content)
    path = f"image/blobs/sha256/{digest.encoded}"
    await client.write_file(path, content)
    inode = await client.inode(path)
    (client.store.blobs.path / "sha256" / digest.encoded).unlink()
    return inode
