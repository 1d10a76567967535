"""Requests of several clients in any order, which others overtake wherever they wait."""

import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from ocistow.fusefs.attributes import Attributes, Presentation
from ocistow.fusefs.filesystem import Changes, FileSystem
from ocistow.fusefs.tree import ROOT
from ocistow.fusefs.view import View
from ocistow.oci.errors import OcistowError
from ocistow.store.store import Store
from ocistow.testing.invariants import index_violations, violations
from ocistow.testing.minimal import minimal_image

CLIENTS = 6
REQUESTS = 400  # a client
OPEN = 8  # files a client keeps

IMAGE = minimal_image("any order")
INDEX = b'{"schemaVersion": 2, "manifests": [{"mediaType": "%b", "digest": "%b", "size": %d}]}' % (
    IMAGE.root.media_type.encode(),
    str(IMAGE.root.digest).encode(),
    IMAGE.root.size,
)
CONTENTS = [b"", b"a", random.Random(1).randbytes(70_000), *IMAGE.blobs.values()]
DOCUMENTS = [INDEX, b"{}", b'{"imageLayoutVersion": "1.0.0"}']
NAMES = [
    *(
        b"x",
        b"y",
        b"temporary",
        b"oci-put-blob1",
        b"blobs",
        b"sha256",
        b"index.json",
        b"oci-layout",
    ),
    *(hashlib.sha256(content).hexdigest().encode() for content in CONTENTS),
]
DIRECTORIES = [b"x", b"y", b"blobs", b"sha256"]

Result = TypeVar("Result")


class Waiting(View):
    """A view whose calls take as long as the dice say, and need no thread for that."""

    dice = random.Random()

    async def blocking(self, call: Callable[..., Result], *args: object, size: int = -1) -> Result:
        for _ in range(self.dice.randrange(6)):
            await trio.lowlevel.checkpoint()
        result = call(*args)
        for _ in range(self.dice.randrange(6)):
            await trio.lowlevel.checkpoint()
        return result


class Client:
    """Somebody who makes requests as the kernel does, of inodes that may be old."""

    def __init__(self, filesystem: FileSystem, inodes: list[int], dice: random.Random) -> None:
        self._filesystem = filesystem
        self._inodes = inodes  # that clients have heard of
        self._dice = dice
        self._handles: list[tuple[int, int]] = []  # inode and handle
        self._calls: Sequence[Callable[[], Awaitable[object]]] = [
            *(self._lookup, self._lookup, self._walk, self._walk, self._open, self._open),
            *(self._create, self._create, self._put, self._write, self._write, self._flush),
            *(self._close, self._rename, self._rename, self._unlink, self._rmdir, self._mkdir),
            *(self._link, self._truncate, self._change, self._read, self._list, self._forget),
            *(self._copy, self._fsync),
        ]

    async def run(self) -> None:
        """Make requests, and close everything."""
        for _ in range(REQUESTS):
            await self._try(self._dice.choice(self._calls))
            while len(self._handles) > OPEN:
                await self._try(self._close)
        while self._handles:
            await self._try(self._close)

    async def _try(self, call: Callable[[], Awaitable[object]]) -> None:
        with suppress(OSError, OcistowError):
            await call()

    def _inode(self) -> int:
        return self._dice.choice(self._inodes[-30:])

    def _handle(self) -> int:
        if not self._handles:
            raise FileNotFoundError
        return self._dice.choice(self._handles)[1]

    def _name(self) -> bytes:
        return self._dice.choice(NAMES)

    def _content(self) -> bytes:
        return self._dice.choice([*CONTENTS, *DOCUMENTS])

    def _know(self, shown: Attributes) -> int:
        self._inodes.append(shown.inode)
        return shown.inode

    async def _lookup(self) -> None:
        self._know(await self._filesystem.lookup(self._inode(), self._name(), 0))

    async def _directory(self, *names: bytes) -> int:
        inode = ROOT
        for name in names:
            try:
                inode = self._know(await self._filesystem.lookup(inode, name, 0))
            except FileNotFoundError:
                inode = self._know(await self._filesystem.mkdir(inode, name, 0))
        return inode

    async def _walk(self) -> None:
        """Look up what is in a layout."""
        blobs = await self._directory(self._dice.choice([b"x", b"y"]), b"blobs", b"sha256")
        self._know(await self._filesystem.lookup(blobs, self._name(), 0))

    async def _open(self) -> None:
        flags = self._dice.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
        flags |= self._dice.choice([0, 0, os.O_TRUNC, os.O_APPEND])
        inode = self._inode()
        self._handles.append((inode, (await self._filesystem.open(inode, flags, 0)).handle))

    async def _create(self) -> None:
        flags = self._dice.choice([os.O_WRONLY, os.O_RDWR | os.O_EXCL])
        opened, shown = await self._filesystem.create(self._inode(), self._name(), 0o644, flags)
        self._handles.append((self._know(shown), opened.handle))

    async def _put(self) -> None:
        """Write a blob or a document, beside its name and then at it."""
        layout = await self._directory(self._dice.choice([b"x", b"y"]))
        content = self._content()
        final = self._dice.choice([b"index.json", b"oci-layout"])
        above = layout
        if content in CONTENTS:
            above = await self._directory(b"x", b"blobs", b"sha256")
            final = hashlib.sha256(content).hexdigest().encode()
        first = self._dice.choice([(above, final), (above, b"temporary"), (layout, b"temporary")])
        opened, shown = await self._filesystem.create(*first, 0o644, os.O_WRONLY)
        self._handles.append((self._know(shown), opened.handle))
        await self._filesystem.write(opened.handle, 0, content)
        await self._filesystem.flush(opened.handle)
        await self._filesystem.rename(*first, above, final, 0)

    async def _write(self) -> None:
        await self._filesystem.write(
            self._handle(), self._dice.choice([0, 0, 5, 70_000]), self._content()
        )

    async def _read(self) -> None:
        await self._filesystem.read(self._handle(), 0, 100_000)

    async def _copy(self) -> None:
        await self._filesystem.copy(self._handle(), 0, self._handle(), 0, 1 << 20)

    async def _flush(self) -> None:
        await self._filesystem.flush(self._handle())

    async def _fsync(self) -> None:
        await self._filesystem.fsync(self._handle())

    async def _close(self) -> None:
        if self._handles:
            _, handle = self._handles.pop(self._dice.randrange(len(self._handles)))
            try:
                await self._filesystem.flush(handle)
            finally:
                await self._filesystem.release(handle)

    async def _rename(self) -> None:
        old, new = (self._inode(), self._name()), (self._inode(), self._name())
        if old != new:
            await self._filesystem.rename(*old, *new, 0)

    async def _unlink(self) -> None:
        await self._filesystem.unlink(self._inode(), self._name())

    async def _rmdir(self) -> None:
        await self._filesystem.rmdir(self._inode(), self._dice.choice(DIRECTORIES))

    async def _mkdir(self) -> None:
        parent, name = self._inode(), self._dice.choice(DIRECTORIES)
        self._know(await self._filesystem.mkdir(parent, name, 0))

    async def _link(self) -> None:
        self._know(await self._filesystem.link(self._inode(), self._inode(), self._name()))

    async def _truncate(self) -> None:
        size = self._dice.choice([0, 1, 100_000])
        inode, handle = self._inode(), None
        if self._handles and self._dice.randrange(2):
            inode, handle = self._dice.choice(self._handles)
        await self._filesystem.setattr(inode, Changes(size=size), handle)

    async def _change(self) -> None:
        await self._filesystem.setattr(self._inode(), Changes(mode=0o600, mtime_ns=1), None)

    async def _list(self) -> None:
        handle = await self._filesystem.opendir(self._inode())

        def take(name: bytes, shown: Attributes, after: int) -> bool:
            self._know(shown)
            return after < 5

        try:
            await self._filesystem.readdir(handle, 0, take)
            await self._filesystem.fsyncdir(handle)
        finally:
            await self._filesystem.releasedir(handle)

    async def _forget(self) -> None:
        number = self._dice.randrange(len(self._inodes))
        if self._inodes[number] != ROOT:
            self._filesystem.forget(self._inodes.pop(number), 1)


@pytest.mark.parametrize("passthrough", [False, True], ids=["asked", "passed through"])
@pytest.mark.parametrize("seed", range(3))
async def test_only_errors_that_are_foreseen(
    tmp_path: Path, seed: int, passthrough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", dice)  # whose turn it is: the same in every run
    with Store.create(tmp_path / "store") as store:
        view = Waiting(store, Presentation(0, 0, 0o022))
        view.dice, view.passthrough = dice, passthrough
        filesystem = FileSystem(view)
        inodes = [ROOT]
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(Client(filesystem, inodes, dice).run)
        allowed = index_violations(store.path, sparse=True)
        assert [lie for lie in violations(store.path, sparse=True) if lie not in allowed] == []
        await filesystem.close()
