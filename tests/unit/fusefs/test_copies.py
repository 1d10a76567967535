"""Copies between files of a mount: a blob is not copied to become a blob."""

import hashlib
import os
import random

import pytest

from ocistow.oci.errors import DigestMismatch
from ocistow.testing.invariants import violations

from .conftest import Client

CONTENT = random.Random(1).randbytes(300_000)
NAME = hashlib.sha256(CONTENT).hexdigest()
HERE, THERE = "one/blobs/sha256", "two/blobs/sha256"
COPIES = {"write", "copy_range", "clone"}


async def opened_blob(client: Client) -> int:
    """Return a handle of a blob of one layout."""
    await client.mkdir(HERE)
    await client.mkdir(THERE)
    await client.write_file(f"{HERE}/{NAME}", CONTENT)
    client.disk.calls.clear()
    return await client.open(f"{HERE}/{NAME}")


async def copy(client: Client, source: int, target: int, step: int = 1 << 30) -> int:
    """Copy as cp(1) does, `step` bytes at once; returns how many."""
    done = 0
    while count := await client.handles.copy(source, done, target, done, step):
        done += count
    return done


@pytest.mark.parametrize("step", [len(CONTENT), 299_999, 100_000])
async def test_a_whole_blob_becomes_a_link(client: Client, step: int) -> None:
    source = await opened_blob(client)
    _, target = await client.create(f"{THERE}/temporary")
    assert await copy(client, source, target, step) == len(CONTENT)
    assert await client.handles.read(target, 10, 300) == CONTENT[10:310]
    await client.close(target)
    await client.rename(f"{THERE}/temporary", f"{THERE}/{NAME}")
    await client.close(source)
    links = [client.store.layouts / directory / NAME for directory in (HERE, THERE)]
    assert links[0].samefile(links[1])
    assert not COPIES & set(client.disk.calls)
    assert violations(client.store.path) == []


async def test_a_copy_in_the_place_of_the_blob_itself_costs_nothing(client: Client) -> None:
    source = await opened_blob(client)
    target = await client.open(f"{HERE}/{NAME}", os.O_WRONLY | os.O_TRUNC)
    await copy(client, source, target)
    await client.close(target)
    await client.close(source)
    assert not COPIES & set(client.disk.calls)
    assert violations(client.store.path) == []


async def test_a_copy_under_the_name_of_another_blob_is_refused_at_once(client: Client) -> None:
    source = await opened_blob(client)
    name = hashlib.sha256(b"another").hexdigest()
    _, target = await client.create(f"{THERE}/{name}", os.O_WRONLY)
    await copy(client, source, target)
    with pytest.raises(DigestMismatch):
        await client.close(target)
    assert not COPIES & set(client.disk.calls)
    assert os.listdir(client.store.layouts / THERE) == []


async def is_only_called(client: Client, content: bytes) -> None:
    """Call the temporary file what the blob is called, and what it is itself."""
    with pytest.raises(DigestMismatch):
        await client.rename(f"{THERE}/temporary", f"{THERE}/{NAME}")
    name = hashlib.sha256(content).hexdigest()
    await client.rename(f"{THERE}/temporary", f"{THERE}/{name}")
    assert violations(client.store.path) == []


async def test_a_part_of_a_blob_is_not_the_blob(client: Client) -> None:
    source = await opened_blob(client)
    _, target = await client.create(f"{THERE}/temporary")
    assert await client.handles.copy(source, 0, target, 0, 100_000) == 100_000
    assert await client.handles.read(target, 99_999, 100) == CONTENT[99_999:100_000]
    await client.close(target)
    await is_only_called(client, CONTENT[:100_000])


async def test_what_is_changed_after_the_copy_is_not_the_blob(client: Client) -> None:
    source = await opened_blob(client)
    _, target = await client.create(f"{THERE}/temporary")
    await copy(client, source, target)
    await client.handles.write(target, 5, b"changed")
    await client.close(target)
    content = CONTENT[:5] + b"changed" + CONTENT[12:]
    assert await client.read_file(f"{THERE}/temporary") == content
    await is_only_called(client, content)


async def test_a_copy_of_what_the_pool_lost_is_written_again(client: Client) -> None:
    source = await opened_blob(client)
    _, target = await client.create(f"{THERE}/temporary")
    await copy(client, source, target)
    (client.store.path / "blobs" / "sha256" / NAME).unlink()
    await client.close(target)
    await client.rename(f"{THERE}/temporary", f"{THERE}/{NAME}")
    assert (client.store.path / "blobs" / "sha256" / NAME).read_bytes() == CONTENT
    assert violations(client.store.path) == []


async def test_pieces_land_where_they_are_to(client: Client) -> None:
    source = await opened_blob(client)
    expected = bytearray(b"begun" + bytes(50) + CONTENT[100:200])
    for path in (f"{THERE}/temporary", "two/ordinary"):
        _, target = await client.create(path)
        await client.handles.write(target, 0, b"begun")
        assert await client.handles.copy(source, 100, target, 55, 100) == 100
        assert await client.handles.copy(source, len(CONTENT), target, 155, 100) == 0
        assert await client.handles.read(target, 0, 1000) == expected
        assert await client.handles.copy(target, 150, target, 200, 100) == 5
        assert await client.handles.read(target, 199, 100) == b"\0" + expected[150:155]
        await client.close(target)
    name = hashlib.sha256(expected + bytes(45) + expected[150:155]).hexdigest()
    await client.rename("two/ordinary", f"{THERE}/{name}")
    await client.rename(f"{THERE}/temporary", f"{THERE}/{name}")
    assert violations(client.store.path) == []


async def test_nothing_is_copied_into_what_is_read_only(client: Client) -> None:
    source = await opened_blob(client)
    target = await client.open(f"{HERE}/{NAME}")
    with pytest.raises(OSError, match="Bad file descriptor"):
        await client.handles.copy(source, 0, target, 0, 100)


async def test_nothing_is_copied_into_a_file_that_became_a_blob(client: Client) -> None:
    source = await opened_blob(client)
    _, target = await client.create("two/file")
    await client.handles.write(target, 0, b"content")
    await client.rename("two/file", f"{THERE}/{hashlib.sha256(b'content').hexdigest()}")
    with pytest.raises(PermissionError):
        await client.handles.copy(source, 0, target, 0, 100)
    assert violations(client.store.path) == []


async def test_a_blob_that_is_written_again_is_compared_and_not_written(client: Client) -> None:
    await client.close(await opened_blob(client))
    target = await client.open(f"{HERE}/{NAME}", os.O_RDWR | os.O_TRUNC)
    for offset in range(0, len(CONTENT), 100_000):
        await client.handles.write(target, offset, CONTENT[offset : offset + 100_000])
        assert (
            await client.handles.read(target, offset, 1 << 20)
            == (CONTENT[offset : offset + 100_000])
        )
    await client.close(target)
    assert not COPIES & set(client.disk.calls)
    assert violations(client.store.path) == []


@pytest.mark.parametrize("at", [0, 1, 150_000, len(CONTENT) - 1, len(CONTENT)])
async def test_what_begins_as_the_blob_and_goes_on_otherwise_is_what_was_written(
    client: Client, at: int
) -> None:
    await client.close(await opened_blob(client))
    target = await client.open(f"{HERE}/{NAME}", os.O_RDWR | os.O_TRUNC)
    written = CONTENT[:at] + b"another"
    await client.handles.write(target, 0, written[:100_000])
    await client.handles.write(target, 100_000, written[100_000:]) if at > 100_000 else None
    assert await client.handles.read(target, 0, 1 << 20) == written
    with pytest.raises(DigestMismatch):
        await client.handles.flush(target)
    await client.handles.write(target, at, CONTENT[at:] or b"")
    await client.handles.truncate(client.view.numbers.new(), target, len(CONTENT))
    await client.close(target)
    assert await client.read_file(f"{HERE}/{NAME}") == CONTENT
    assert violations(client.store.path) == []


async def test_a_blob_of_which_less_is_written_is_refused(client: Client) -> None:
    await client.close(await opened_blob(client))
    target = await client.open(f"{HERE}/{NAME}", os.O_WRONLY | os.O_TRUNC)
    await client.handles.write(target, 0, CONTENT[:-1])
    with pytest.raises(DigestMismatch):
        await client.close(target)
    assert await client.read_file(f"{HERE}/{NAME}") == CONTENT


async def test_a_blob_that_the_pool_just_lost_can_be_written_over(client: Client) -> None:
    await client.close(await opened_blob(client))
    inode = await client.inode(f"{THERE}/{NAME}")
    for lost in (client.store.path / "blobs/sha256" / NAME, client.store.layouts / HERE / NAME):
        lost.unlink()
    with pytest.raises(OSError, match="Stale"):
        await client.handles.open(inode, os.O_WRONLY | os.O_TRUNC)
    opened = await client.handles.open(inode, os.O_WRONLY | os.O_TRUNC)
    await client.handles.write(opened.handle, 0, CONTENT)
    await client.close(opened.handle)
    assert (client.store.path / "blobs/sha256" / NAME).read_bytes() == CONTENT
    assert violations(client.store.path) == []
