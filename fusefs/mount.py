"""A mount's life: from the mount point to the main loop and back."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ..oci.errors import Busy, InvalidContent
from ..store.store import Store
from .archives import Archives, ArchivingFileSystem
from .attributes import Presentation
from .calls import in_thread
from .engines import choice
from .engines.engine import Device, Engine
from .filesystem import FileSystem
from .filling import Fill
from .health.dump import state
from .health.ending import abort, is_foreseen
from .health.status import About, Status
from .health.watchdog import Watchdog
from .places import has_rules
from .shelf import Shelf
from .system.notify import NOBODY, Service
from .system.table import find, is_mounted, unmount
from .view import View

log = logging.getLogger(__name__)

READ_AHEAD = 1024  # KiB; with the kernel's 128 a first read is half as fast
ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Options:
    """How a store is shown. `uid`, `gid` and `umask` are for show: see docs/mount.md."""

    uid: int
    gid: int
    umask: int = 0o022
    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False
    virtual_presence: bool = True
    engine: str = choice.AUTO
    patience: float = 30.0  # seconds: see `Watchdog`


def serve(
    store: Store,
    mountpoint: Path,
    options: Options,
    *,
    ready: Callable[[], None] = lambda: None,
    service: Service = NOBODY,
    fill: Fill | None = None,
    shelf: Shelf | None = None,
) -> int:
    """Mount the store's layouts and answer requests until unmounted, SIGTERM or SIGINT.

    `ready` is called when the mount can be used, and `service` told. A dead mount at the same
    place is removed first. Must run in the main thread, once a process: pyfuse3 has one
    session. `fill` fetches what images lack: see `Filling`. `shelf` makes the archives of
    `.archives`. Returns the status to exit with: EX_SOFTWARE when a bug ended the mount, which
    is logged with the mount's state.

    Raises:
        InvalidContent: the mount point is no directory, or the store is one of blobs only.
        Busy: a living mount of ocistow is there already.
        OSError: the kernel refuses.
    """
    prepare(mountpoint)
    where = mountpoint.resolve()
    if where.is_relative_to(store.path.resolve()):
        raise InvalidContent(f"{mountpoint} lies in the store that it is to show")
    if has_rules(store.prefix):
        raise InvalidContent(f"{store.prefix} is a directory of blobs, expected one of images")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each open and staged file has one
    presentation = Presentation(options.uid, options.gid, options.umask)
    view = View(
        store,
        presentation,
        virtual=options.virtual_presence,
        read_only=options.read_only,
        fill=fill,
    )
    filesystem = FileSystem(view)
    if shelf is not None:
        filesystem = ArchivingFileSystem(view, Archives(view, shelf, presentation))
    shown = store.layouts if store.prefix.parts else store.path
    device = Device(_plain(shown), options.read_only, options.allow_other, options.no_exec)
    _postpone(ENDING)
    with Watchdog(filesystem, options.patience, partial(abort, where)) as watchdog:
        # not the mount point as it was given: umount2(2) follows no links, and to resolve one is a
        # question to what is mounted at its end
        engine = choice.mount(options.engine, filesystem, where, device)
        server = _Server(engine, filesystem, where, ready, service)
        about = About(where, store.path, type(engine).__name__.lower(), options.read_only)
        try:
            with Status(filesystem, about):
                trio.run(_serve, server, watchdog)
        except Exception as error:
            if is_foreseen(error):
                raise
            if not watchdog.is_bug_known:
                log.exception("a bug ends the mount", extra={"state": state(filesystem)})
            return os.EX_SOFTWARE
        finally:
            watchdog.expect_end()
            service.tell(STOPPING="1", STATUS="unmounting")
            engine.unmount()
            trio.run(filesystem.close)
    return 0


def _postpone(numbers: Iterable[signal.Signals]) -> None:
    """Keep signals until there is a handler and they are unblocked; ignore them after it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # which the kernel heeds only when not blocked


@dataclass(frozen=True, slots=True)
class _Server:
    """What serves a mount, and who is told."""

    engine: Engine
    filesystem: FileSystem
    mountpoint: Path
    ready: Callable[[], None]
    service: Service


async def _serve(server: _Server, watchdog: Watchdog) -> None:
    mountpoint, service = server.mountpoint, server.service

    async def attend(signals: AsyncIterator[int]) -> None:
        await _announce(mountpoint, server.ready)
        service.tell(READY="1", STATUS=f"mounted at {mountpoint}", MAINPID=str(os.getpid()))
        async for number in signals:
            log.info("stopping on %s", signal.Signals(number).name)
            watchdog.expect_end()
            server.filesystem.give_up()  # or the end would wait for whoever waits
            server.engine.terminate()

    # before the first answer: whoever can use the mount may also send a signal
    with trio.open_signal_receiver(*ENDING) as signals, watchdog.watching_loop():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend, signals)
            if service.interval:
                nursery.start_soon(_live, service)
            await server.filesystem.serve(server.engine)
            nursery.cancel_scope.cancel()


async def _live(service: Service) -> None:
    """Give signs of life while the event loop turns; `Watchdog` looks at single requests.

    The mount is not asked, as little as in `_announce`.
    """
    while True:
        service.tell(WATCHDOG="1")
        await trio.sleep(service.interval)


async def _announce(mountpoint: Path, ready: Callable[[], None]) -> None:
    """Say that the mount can be used: who asks it something from now on gets an answer.

    It is not asked here. A server that waits for its own answer when it is killed never ends:
    its thread waits for good, and keeps the device open, so that all clients wait, too.
    """
    # only root may, and there may be no thread; it is speed, not function
    with contextlib.suppress(OSError):
        if entry := await in_thread(find, mountpoint):
            bdi = Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb")
            await in_thread(bdi.write_text, str(READ_AHEAD))
    ready()


def prepare(mountpoint: Path) -> None:
    """Make sure that there is a directory to mount on, and no dead mount in the way.

    Raises:
        InvalidContent: it is no directory.
        Busy: a living mount of ocistow is there already.
    """
    try:
        os.statvfs(mountpoint)  # stat(2) is answered for a second by what the dead one said
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        log.warning("removing the dead mount at %s", mountpoint)
        unmount(mountpoint, lazy=True)
    if not mountpoint.is_dir():
        raise InvalidContent(f"{mountpoint} is not a directory")
    if is_mounted(mountpoint):
        raise Busy(f"{mountpoint}: a store is mounted there already")


def _plain(path: Path) -> str:
    """Return a path for the table of mounts, as far as mount options can hold it."""
    return "".join(
        c if c.isascii() and c.isprintable() and c not in ",\\" else "_" for c in str(path)
    )
