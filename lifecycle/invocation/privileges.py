"""Which user a phase runs as: what it hands over to that user, and how it becomes that user.

Source: Go's lifecycle, priv/user_linux.go and the `Privileges` of cmd/lifecycle.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...oci.errors import PhaseFailed
from ...publish.words import words_of
from ..inputs import Inputs
from ..platform_api import Code
from .arguments import Phase

_PR_SET_DUMPABLE = 4  # prctl(2)
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def refuse_root(phase: Phase) -> None:
    """See that the phases that run buildpacks do it as the user of the build image.

    Raises:
        PhaseFailed: one of them would run as root.
    """
    if phase in (Phase.DETECT, Phase.BUILD) and os.getuid() == 0:
        raise PhaseFailed(Code.FAILED, f"failed to {phase.verb}: refusing to run as root")


def drop(phase: Phase, inputs: Inputs) -> Inputs:
    """Become the user of the build image, for good, and return the inputs with its environment.

    What needs root, such as a daemon's socket, is opened before. A phase that runs buildpacks hides
    from them what it knows: they run as the same user, and its environment has credentials.

    Raises:
        PhaseFailed: it could not be done.
    """
    if phase in (Phase.DETECT, Phase.BUILD, Phase.CREATE):
        _hide()
    if phase in (Phase.DETECT, Phase.BUILD):
        return inputs
    uid, gid = inputs.uid, inputs.gid
    if phase is Phase.PUBLISH and uid == gid == 0:
        return inputs  # nobody asked
    for directory in filter(None, _volumes(phase, inputs)):
        hand_over(directory, uid, gid)
    try:
        _become(uid, gid)
    except OSError as error:
        message = f"failed to exec as user {uid}:{gid}: {words_of(error)}"
        raise PhaseFailed(Code.FAILED, message) from error
    if phase is not Phase.CREATE:
        return inputs
    return replace(inputs, environ={**inputs.environ, **_environment_of(uid)})


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """Give a directory, with all that is in it, to a user who may not write into it.

    One that the user may write into is taken to hold only what that user may, too. No symbolic
    link below it is followed, whatever happens there meanwhile.

    Raises:
        PhaseFailed: it could not be done.
    """
    with _doing("stat", directory):
        try:
            found = directory.stat()
        except FileNotFoundError:
            return
    if _can_write(found, uid, gid):
        return
    with _doing("open", directory):
        top = os.open(directory, _OPEN)
    try:
        with _doing("chown", directory):
            os.chown(top, uid, gid)
        for below, names, files, here in os.fwalk(dir_fd=top, onerror=_unlisted):
            for name in (*names, *files):
                with _doing("chown", directory / below / name):
                    os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)
    finally:
        os.close(top)


def _volumes(phase: Phase, inputs: Inputs) -> tuple[Path | None, ...]:
    if phase is Phase.RESTORE:
        return inputs.layers_dir, inputs.cache_dir
    caches = (inputs.cache_dir, inputs.launch_cache_dir)
    if phase in (Phase.ANALYZE, Phase.CREATE):
        return *caches, inputs.layers_dir
    return caches if phase is Phase.EXPORT else ()


def _can_write(found: os.stat_result, uid: int, gid: int) -> bool:
    return (
        found.st_uid == uid
        or (found.st_gid == gid and bool(found.st_mode & stat.S_IWGRP))
        or bool(found.st_mode & stat.S_IWOTH)
    )


def _become(uid: int, gid: int) -> None:
    if (uid, gid) == (os.getuid(), os.getgid()):
        return
    if min(uid, gid) < 0:  # the system would take -1 for "as it is"
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if os.getuid() == 0:
        os.setgroups([gid])  # root's own would outlive root
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _hide() -> None:
    """Keep others of the same user from /proc/PID/{environ,mem,fd} and from ptrace(2)."""
    import ctypes  # takes 5 ms, and most phases run nothing

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _environment_of(uid: int) -> Mapping[str, str]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        action = f"set environment for user {uid}"
        message = f"failed to {action}: user: unknown userid {uid}"
        raise PhaseFailed(Code.FAILED, message) from None
    return {"HOME": user.pw_dir, "USER": user.pw_name}


@contextmanager
def _doing(operation: str, path: Path) -> Generator[None]:
    """Let what the system refuses end the phase, in Go's words."""
    try:
        yield
    except OSError as error:
        message = f"failed to chown volumes: {operation} {path}: {words_of(error)}"
        raise PhaseFailed(Code.FAILED, message) from error


def _unlisted(error: OSError) -> None:
    with _doing("open", Path(error.filename)):
        raise error
