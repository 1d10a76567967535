"""The loop of the kernel engine, on a socket in place of /dev/fuse."""

import errno
import os
import random
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from struct import Struct

import trio
import trio.testing

from ocistow.fusefs.attributes import Attributes
from ocistow.fusefs.engines.answers import Answers
from ocistow.fusefs.engines.backings import Backings
from ocistow.fusefs.engines.kernel import SPARE, Kernel
from ocistow.fusefs.engines.wire import Opcode
from ocistow.fusefs.filesystem import FileSystem
from ocistow.fusefs.handles import Opened
from ocistow.fusefs.tree import ROOT

from .conftest import TIMEOUT, Client

REQUEST = Struct("=IIQQ16x")
REPLY = Struct("=IiQ")


class OnSocket(Kernel):
    """An engine whose device is one end of a pair of sockets, which keep messages apart, too."""

    def __init__(self, device: socket.socket, filesystem: FileSystem) -> None:
        super().__init__()
        self._device = device.fileno()
        self._answers = Answers(filesystem, Backings(self._device))


class Slow(FileSystem):
    """Names say in which way looking them up takes long."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.view)
        self.go_on = trio.Event()
        self.begun = 0

    async def lookup(self, parent: int, name: bytes, thread: int) -> Attributes:
        self.begun += 1
        if name == b"event":
            await self.go_on.wait()
        elif name == b"thread":
            await trio.to_thread.run_sync(os.getpid)
        elif name == b"turns":
            for _ in range(3):
                await trio.lowlevel.checkpoint()
        return await self.getattr(ROOT)

    async def open(self, inode: int, flags: int, thread: int) -> Opened:
        self.begun += 1
        await trio.sleep_forever()
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Device:
    """The kernel's side."""

    socket: trio.socket.SocketType
    filesystem: Slow

    async def send(self, opcode: int, unique: int, body: bytes = b"") -> None:
        await self.socket.send(REQUEST.pack(REQUEST.size + len(body), opcode, unique, ROOT) + body)

    async def look_up(self, unique: int, name: bytes) -> None:
        await self.send(Opcode.LOOKUP, unique, name + b"\0")

    async def receive(self) -> tuple[int, int]:
        """Return the unique number of an answer, and its errno."""
        answer = await self.socket.recv(1 << 16)
        size, code, unique = REPLY.unpack_from(answer)
        assert size == len(answer)
        return unique, -code

    async def until_begun(self, count: int) -> None:
        while self.filesystem.begun < count:
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served(client: Client) -> AsyncGenerator[Device]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        filesystem = Slow(client)
        engine = OnSocket(ours, filesystem)
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.serve)
                yield Device(trio.socket.from_stdlib_socket(theirs), filesystem)
                engine.terminate()


def test_requests_that_wait_keep_nobody_from_an_answer(client: Client) -> None:
    async def main() -> None:
        count = 3 * SPARE
        async with served(client) as device:
            for _ in range(2):  # with tasks that are new, and with those that were kept
                device.filesystem.go_on, device.filesystem.begun = trio.Event(), 0
                for unique in range(count):
                    await device.look_up(unique, b"event")
                await device.until_begun(count)
                await device.look_up(1000, b"at once")
                assert await device.receive() == (1000, 0)
                device.filesystem.go_on.set()
                answered = {await device.receive() for _ in range(count)}
                assert answered == {(unique, 0) for unique in range(count)}

    trio.run(main)


def test_every_request_is_answered_once_however_it_waits(client: Client) -> None:
    dice = random.Random(3)
    names = [dice.choice([b"now", b"turns", b"thread"]) for _ in range(1000)]

    async def main() -> None:
        async with served(client) as device, trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, device))
            answered = [await device.receive() for _ in names]
            assert sorted(answered) == [(unique, 0) for unique in range(len(names))]

    async def ask(device: Device) -> None:
        for unique, name in enumerate(names):
            await device.look_up(unique, name)
            if dice.random() < 0.02:
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main)


def test_who_opens_can_be_interrupted_and_others_are_not(client: Client) -> None:
    async def main() -> None:
        async with served(client) as device:
            await device.send(Opcode.OPEN, 2, bytes(8))
            await device.look_up(4, b"event")
            await device.until_begun(2)
            for unique in (4, 6, 2, 2):  # waits, was never there, waits, waits no more
                await device.send(Opcode.INTERRUPT, 1, unique.to_bytes(8, sys.byteorder))
            assert await device.receive() == (2, errno.EINTR)
            device.filesystem.go_on.set()
            assert await device.receive() == (4, 0)

    trio.run(main)


def test_what_is_forgotten_or_unknown(client: Client) -> None:
    async def main() -> None:
        async with served(client) as device:
            await device.send(Opcode.FORGET, 2, (0).to_bytes(8, sys.byteorder))
            await device.send(4000, 4)
            assert await device.receive() == (4, errno.ENOSYS)

    trio.run(main)
