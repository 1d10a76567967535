"""`ocistow mount`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import click
from click.core import ParameterSource

from ..fusefs.engines.choice import AUTO, NAMES
from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..store.store import Store
from . import logs
from .config import Settings
from .options import json_option

log = logging.getLogger(__name__)

DEFAULT = "/oci"
FILL_TIMEOUT = (5.0, 30.0)  # seconds, as in `Access`: readers wait in open(2) meanwhile
OWNER = click.IntRange(0, 2**32 - 2)
PATIENCE = 30.0  # seconds until a request that is not answered is looked into
MOUNTPOINT = Path  # not click.Path, which asks the mount: it may be dead, or stuck


def octal(_: click.Context, __: click.Parameter, text: str) -> int:
    """Read a permission mask the way `umask` prints it."""
    try:
        number = int(text, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise click.BadParameter(f"{text!r} is not an octal number up to 777")
    return number


def below(_: click.Context, __: click.Parameter, text: str) -> PurePosixPath:
    """Read a path below the layout root; that it is one is seen when it is opened."""
    return PurePosixPath(text.rstrip("/"))


@click.command()
@click.argument("mountpoint", type=MOUNTPOINT, default=DEFAULT)
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--sub",
    metavar="PATH",
    callback=below,
    default="",
    help="Show one directory below layouts/ only: a registry, a repository or an image.",
)
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option(
    "--allow-other/--no-allow-other",
    default=None,
    help="Let other users in; they may do all that you may.  [default: on for root]",
)
@click.option("--uid", metavar="N", type=OWNER, help="Owner to show.  [default: yours]")
@click.option("--gid", metavar="N", type=OWNER, help="Group to show.  [default: yours]")
@click.option(
    "--umask",
    metavar="MASK",
    callback=octal,
    default="022",
    show_default=True,
    help="For directories, octal.",
)
@click.option("--no-exec", is_flag=True, help="Let no program be run that lies there.")
@click.option(
    "--virtual-presence/--no-virtual-presence",
    default=True,
    show_default=True,
    help="Show blobs of the pool in every layout, so that nobody writes them again.",
)
@click.option(
    "--fill",
    is_flag=True,
    help="Fetch layers that an image lacks from the store's remotes, when they are opened.",
)
@click.option(
    "--engine",
    type=click.Choice([AUTO, *NAMES]),
    default=AUTO,
    show_default=True,
    help="What speaks FUSE: see docs/mount.md.",
)
@click.option(
    "--private/--no-private",
    default=True,
    show_default=True,
    help="With a command: let nobody else see the mount, where the system can.",
)
@click.option("--patience", type=click.FloatRange(min=0.1), default=PATIENCE, hidden=True)
@click.option("--status", is_flag=True, help="Tell what running mounts do, and do nothing else.")
@json_option
@click.option("--prometheus", is_flag=True, help="Print the status for Prometheus.")
@click.option("--supervise", is_flag=True, help="Start the server again when it crashes.")
@click.option("--background", is_flag=True, help="Return when the mount can be used.")
@click.option(
    "--log-file",
    type=click.Path(path_type=Path),
    help="Messages of a mount in the background.  [default: mount.log in the store]",
)
@click.pass_obj
def mount(
    settings: Settings,
    mountpoint: Path,
    command: tuple[str, ...],
    sub: PurePosixPath,
    read_only: bool,
    allow_other: bool | None,
    uid: int | None,
    gid: int | None,
    umask: int,
    no_exec: bool,
    virtual_presence: bool,
    fill: bool,
    engine: str,
    private: bool,
    patience: float,
    status: bool,
    as_json: bool,
    prometheus: bool,
    supervise: bool,
    background: bool,
    log_file: Path | None,
) -> int:
    """Show the store's layouts as a directory.

    Ends on SIGTERM, SIGINT or `ocistow umount`. With `-- COMMAND`, runs that with the store
    mounted, where possible for it alone, and exits with its status.
    """
    source_of = click.get_current_context().get_parameter_source
    forms = [source_of(form) for form in ("as_json", "prometheus")]
    asked_for = forms.count(ParameterSource.COMMANDLINE)  # OCISTOW_JSON is for all commands
    if asked_for and not status:
        raise click.UsageError("--json and --prometheus are for --status")
    if asked_for > 1:
        raise click.UsageError("--json and --prometheus exclude each other")
    if status:
        from .mount_status import show

        is_anywhere = source_of("mountpoint") is ParameterSource.DEFAULT
        asked = None if is_anywhere else mountpoint.absolute()
        show(asked, settings.store, as_json=as_json and not prometheus, prometheus=prometheus)
        return 0
    if command and background:
        raise click.UsageError("--background and a command exclude each other")
    if not read_only and _is_protected(settings.store):
        log.warning("%s may only be read, and is mounted so", settings.store)
        read_only = True
    with _opened(settings.store, sub, read_only):
        pass  # what is wrong with the store is said before anything is detached
    mountpoint = mountpoint.absolute()
    ready: Callable[[], None] = _nobody_waits
    log_messages: Callable[[], None] = _nobody_waits
    if command or background:
        from ..fusefs.system import process

        if command and shutil.which(command[0]) is None:
            raise NotFound(command[0])
        if command and private:
            process.own_mounts(mountpoint)
        started = process.start(None if command else _log(settings.store, log_file))
        if isinstance(started, process.Server):
            return process.run_with(started, mountpoint, command) if command else 0
        ready, log_messages = started, started.log_messages
        if background:
            logs.tell_time()
    if supervise:
        from ..fusefs.system.supervision import Limits, Supervisor

        ready = Supervisor(mountpoint, Limits()).supervise(ready, log_messages)
    from ..fusefs.mount import Options, serve
    from ..fusefs.system.notify import Service
    from ..publish.archives.shelf import Shelf

    options = Options(
        uid=os.getuid() if uid is None else uid,
        gid=os.getgid() if gid is None else gid,
        umask=umask,
        read_only=read_only,
        allow_other=os.geteuid() == 0 if allow_other is None else allow_other,
        no_exec=no_exec,
        virtual_presence=virtual_presence,
        engine=engine,
        patience=patience,
    )
    with _opened(settings.store, sub, read_only) as store, ExitStack() as closing:
        if settings.checksums:
            store.record_checksums()
        return serve(
            store,
            mountpoint,
            options,
            ready=ready,
            service=Service.of({} if command else os.environ),
            fill=closing.enter_context(_filling(store)) if fill else None,
            shelf=Shelf(store),
        )


@contextmanager
def _filling(store: Store) -> Generator[Callable[[PurePosixPath, Digest, int], None]]:
    from ..publish.access import Access
    from ..publish.remote import Filler, fill_layout

    with Filler(store, Access(timeout=FILL_TIMEOUT)) as filler:

        def fill(layout: PurePosixPath, digest: Digest, size: int) -> None:
            fill_layout(filler, store.layout(layout), digest, size)

        yield fill


@contextmanager
def _opened(path: Path, sub: PurePosixPath, read_only: bool) -> Generator[Store]:
    with Store.open(path) if read_only else Store.create(path) as store:
        if not sub.parts:
            yield store
            return
        with store.below(sub, create=not read_only) as shown:
            yield shown


def _is_protected(store: Path) -> bool:
    """Tell whether there is a store that this user, or anybody, may only read."""
    return store.is_dir() and not os.access(store, os.W_OK)


def _log(store: Path, file: Path | None) -> Path:
    """Return where a mount in the background writes its messages."""
    if file is None and _is_protected(store):
        log.warning("the mount's messages go nowhere: %s may only be read", store)
        return Path(os.devnull)
    return (file or store / "mount.log").absolute()


def _nobody_waits() -> None:
    """Tell nobody."""
