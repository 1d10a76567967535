"""How a mount lives beside other processes: in the background, or seen by one command alone."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import libc

log = logging.getLogger(__name__)

_FORWARDED = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}  # a terminal's, not SIGSTOP
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SI_USER = 0  # si_code of what a process sent; what the kernel sends has larger ones


@dataclass(frozen=True, slots=True)
class Server:
    """A child process that serves a mount, as its parent knows it."""

    pid: int

    def end(self) -> None:
        """Unmount, whoever still uses the mount, and wait until that is done."""
        os.kill(self.pid, signal.SIGTERM)
        status = _status(os.waitpid(self.pid, 0)[1])
        if status:
            log.warning("the mount ended before, with status %d", status)


@dataclass(frozen=True, slots=True)
class Ready:
    """To be called by a child process that can serve; `log_messages` alone where another tells."""

    messages: int  # the log's file; -1 for none
    writer: int  # of the pipe that the parent reads

    def __call__(self) -> None:
        """Begin to log, and let the parent go on."""
        self.log_messages()
        try:
            os.write(self.writer, b"!")
        except BrokenPipeError:  # who waited does so no more
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(self.writer)

    def log_messages(self) -> None:
        """Write to the log in place of stdout and stderr from now on."""
        if self.messages >= 0:
            os.dup2(self.messages, 1)
            os.dup2(self.messages, 2)
            os.close(self.messages)


def start(log_file: Path | None) -> Server | Ready:
    """Continue in a child process, which has no terminal, and only the standard ones of our files.

    Returns to the parent once the child can serve. In the child it returns what is to be called
    then; a child that ends before makes the parent exit with its status.

    With a log file, opened for appending before anything else, the child outlives its parent,
    and writes to that in place of stdout and stderr once it can serve. Without one it unmounts
    when its parent is gone.

    Raises:
        OSError: the log file cannot be opened.
    """
    messages = -1 if log_file is None else _open_log(log_file)
    reader, writer = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(writer)
        if messages >= 0:
            os.close(messages)
        with open(reader, "rb") as pipe:
            is_ready = bool(pipe.read(1))
        if not is_ready:
            _, status = os.waitpid(child, 0)
            _exit_like(_status(status))
        return Server(child)
    os.setsid()  # what is typed at a terminal is not for us
    _close_all_but({0, 1, 2, messages, writer})
    os.chdir("/")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if messages < 0:
        libc.end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(0)

    return Ready(messages, writer)


def run(command: Sequence[str]) -> int:
    """Run a command in this process' group and return its status, 128 + n for signal n.

    It gets the signals that processes send us; those of a terminal it got itself. When the
    terminal stops it, we stop, so that a shell notices. Needs the main thread, and no others.

    Raises:
        OSError: it cannot be run.
    """
    watched = {*_FORWARDED, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ours may be ignored, and then nobody is told
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = os.posix_spawnp(
            command[0], list(command), os.environ, setsigmask=before, setsigdef=_IGNORED_BY_PYTHON
        )
        while (status := _attend(child, signal.sigwaitinfo(watched))) is None:
            pass
        while signal.sigtimedwait(watched, 0):
            pass  # who waited for the command has heard
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return status


def run_with(server: Server, mountpoint: Path, command: Sequence[str]) -> int:
    """Run a command while a mount is served, and end both with it; returns as `run` does."""
    try:
        # until somebody asks, the kernel has the root belong to user 0: where a user namespace
        # knows none, it lets nobody write there
        with suppress(OSError):
            os.stat(mountpoint)
        return run(command)
    finally:
        server.end()


def own_mounts(mountpoint: Path) -> bool:
    """Give this process mounts of its own, which its children see and nobody else does.

    Without the right to it, a user namespace gives that where the system has such: there the
    user and group stay the same, others are shown as nobody, and set-user-ID programs do not
    work. False where a store could not be mounted at `mountpoint` so. Needs a single thread.
    """
    try:
        libc.unshare(libc.CLONE_NEWNS)
    except PermissionError:
        if not _may_mount_as_user(mountpoint):
            return False
        _enter_user_namespace()
    libc.mount(None, Path("/"), None, libc.MS_REC_PRIVATE, "")
    return True


def _attend(child: int, info: signal.struct_siginfo) -> int | None:
    """Act on a signal; return the child's status if it has ended."""
    if info.si_signo != signal.SIGCHLD:
        if info.si_code <= _SI_USER:
            os.kill(child, info.si_signo)
        return None
    options = os.WEXITED | os.WSTOPPED | os.WNOHANG
    while (found := os.waitid(os.P_PID, child, options)) is not None:
        if found.si_code != os.CLD_STOPPED:
            return found.si_status + (0 if found.si_code == os.CLD_EXITED else 128)
        if found.si_status in _STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)  # who continues us may have meant us alone
    return None


def _may_mount_as_user(mountpoint: Path) -> bool:
    """Try it in a child: who may enter a user namespace may still be refused everything there."""
    child = os.fork()
    if not child:
        try:
            _enter_user_namespace()
            device = os.open("/dev/fuse", os.O_RDWR)
            options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
            libc.mount("ocistow", mountpoint, "fuse", libc.MS_NOSUID | libc.MS_NODEV, options)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")  # before the next: user_namespaces(7)
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _close_all_but(kept: set[int]) -> None:
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept:
            with suppress(OSError):  # the one that read the directory
                os.close(number)


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exit_like(status: int) -> NoReturn:
    """End as a child did that has said why, unless it had no time to."""
    if status > 128:
        log.error("the mount was ended by signal %d before it could be used", status - 128)
    os._exit(status or os.EX_SOFTWARE)
