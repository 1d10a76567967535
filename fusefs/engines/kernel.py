"""The `kernel` engine: FUSE spoken on /dev/fuse, with passthrough. For root."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
from pathlib import Path

import trio

from ...store.reading import Buffer
from ..calls import in_thread
from ..filesystem import FileSystem
from ..requests import Refusal
from ..system import libc
from ..system.table import KIND
from . import wire
from .answers import SILENT, Answers
from .backings import Backings
from .engine import Device
from .wire import Init, Opcode, Request

MAX_WRITE = 1 << 20  # bytes; the kernel's most without asking for more by sysctl
BACKGROUND = 64  # requests that nobody waits for, such as read-ahead, at once
IN_A_ROW = 32  # requests, before others on the event loop have their turn
SPARE = 8  # tasks that wait to read requests when all others wait for something

_WANTED = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.INIT_EXT
    | Init.PASSTHROUGH
)
_DEPTH = 1  # what lies below must be no overlay itself; an overlay on top remains possible
_BUFFER = MAX_WRITE + 4096  # the kernel refuses to fill less
_UMOUNT_PATIENCE = 5.0  # seconds that it may take to write what is left in mappings

_CAP_SYS_ADMIN = 21


class Kernel(trio.abc.Instrument):
    """An `Engine`.

    One task reads a request and answers it. If it has to wait for that, another one reads the next
    meanwhile, so there are as many tasks as requests that wait, and usually one.
    """

    def __init__(self) -> None:
        self._device = -1
        self._mountpoint = Path()
        self._is_over = False
        self._is_ending = False
        self._answering: trio.lowlevel.Task | None = None
        self._idle: list[trio.lowlevel.Task] = []
        self.has_passthrough = False

    def mount(self, filesystem: FileSystem, mountpoint: Path, device: Device) -> None:
        """Mount, and agree with the kernel on what both can do."""
        self._mountpoint = mountpoint
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            _mount(self._device, self._mountpoint, device)
            self._negotiate()
            os.set_blocking(self._device, False)
        except BaseException:
            self.unmount()
            raise
        backings = Backings(self._device)
        backings.is_possible = self.has_passthrough
        if self.has_passthrough:
            filesystem.pass_through()
        self._answers = Answers(filesystem, backings)

    async def serve(self) -> None:
        """Answer requests."""
        trio.lowlevel.add_instrument(self)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._work)
        trio.lowlevel.remove_instrument(self)

    def terminate(self) -> None:
        """Let `serve` return."""
        if not self._is_ending:
            self._is_ending = True
            trio.lowlevel.spawn_system_task(self._detach)

    def unmount(self) -> None:
        """Detach the mount."""
        if self._device < 0:
            return
        is_gone = _is_gone(self._device)
        os.close(self._device)  # first: then nothing waits for us to write what is in mappings
        self._device = -1
        if not is_gone:
            with contextlib.suppress(OSError):  # it was never mounted, or just unmounted
                _umount(self._mountpoint)

    def invalidate_inode(self, inode: int) -> None:
        """Make the kernel ask for attributes again."""
        self._notify(wire.invalid_inode(inode))

    def _notify(self, message: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # the kernel does not know it
            os.write(self._device, message)

    def _negotiate(self) -> None:
        request = wire.parse(memoryview(os.read(self._device, _BUFFER)))
        assert request.opcode == Opcode.INIT, request.opcode
        flags = wire.offered(request) & _WANTED
        self.has_passthrough = Init.PASSTHROUGH in flags
        answer = wire.accepted(
            request, flags, max_write=MAX_WRITE, background=BACKGROUND, depth=_DEPTH
        )
        os.writev(self._device, [wire.reply(request.unique, len(answer)), answer])

    async def _work(self) -> None:
        try:
            buffer = memoryview(mmap.mmap(-1, _BUFFER))  # takes as much memory as is used of it
        except OSError as error:
            raise MemoryError from error  # as of all else that needs some: this ends the mount
        await self._lead(buffer)
        while len(self._idle) < SPARE and await self._rest():
            await self._lead(buffer)

    async def _lead(self, buffer: memoryview) -> None:
        """Answer requests; return after the first one that waited, while another task led."""
        row, task = 0, trio.lowlevel.current_task()
        while not self._is_over:
            if (size := self._receive(buffer)) == 0:
                await self._next()
                row = 0
                continue
            if (row := row + 1) % IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
            self._answering = task
            try:
                await self._answer(wire.parse(buffer[:size]))
                if self._answering is not task:
                    return
            finally:
                if self._answering is task:
                    self._answering = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Let another task lead when the one that leads waits within a request."""
        if task is self._answering:
            self._answering = None
            self._hand_over()

    def _receive(self, buffer: memoryview) -> int:
        """Read a request and return its size; 0 when there is none."""
        try:
            return os.readv(self._device, [buffer])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                self._end()
                return 0
            if error.errno in (errno.ENOENT, errno.EINTR):  # its client gave up
                return 0
            raise

    async def _next(self) -> None:
        """Wait for a request, or the end."""
        if not self._is_over:
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._device)

    def _hand_over(self) -> None:
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        else:
            self._nursery.start_soon(self._work)

    async def _rest(self) -> bool:
        """Wait to be handed over to; False at the end."""
        if self._is_over:
            return False
        task = trio.lowlevel.current_task()

        def leave(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(leave)
        return not self._is_over

    def _end(self) -> None:
        self._is_over = True
        while self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        trio.lowlevel.notify_closing(self._device)

    async def _answer(self, request: Request) -> None:
        answer, code = None, 0
        try:
            answer = await self._answers.to(request)
        except Refusal as refusal:
            code = refusal.code
        if request.opcode not in SILENT:
            self._send(request.unique, answer or b"", code)

    def _send(self, unique: int, answer: Buffer, code: int) -> None:
        try:
            os.writev(self._device, [wire.reply(unique, len(answer), code), answer])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits for it any more
                raise

    async def _detach(self) -> None:
        with trio.move_on_after(_UMOUNT_PATIENCE), contextlib.suppress(OSError):
            await in_thread(_umount, self._mountpoint, abandon=True)
        self._end()


def lacking() -> str | None:
    """Return what this process lacks to mount by itself; None if it has all."""
    status = Path("/proc/self/status").read_text(errors="replace")
    mask = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(mask.split()[1], 16) >> _CAP_SYS_ADMIN & 1:
        return "CAP_SYS_ADMIN: be root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse"
    return None


def _mount(file: int, mountpoint: Path, device: Device) -> None:
    options = f"fd={file},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if device.allow_other:
        options += ",allow_other"
    flags = libc.MS_NOSUID | libc.MS_NODEV | (libc.MS_RDONLY if device.read_only else 0)
    flags |= libc.MS_NOEXEC if device.no_exec else 0
    libc.mount(device.source, mountpoint, KIND, flags, options)


def _umount(mountpoint: Path) -> None:
    """Detach what is mounted there; returns when it is written, if nobody uses it."""
    libc.umount(mountpoint, libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)


def _is_gone(device: int) -> bool:
    """Tell whether a device's mount has ended."""
    poll = select.poll()
    poll.register(device, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
