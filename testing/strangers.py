"""Commands run as a user who owns nothing, where the machine lets such users mount."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ocistow

from .mounts import TIMEOUT, environment

UID = 65534  # nobody, and nogroup

_SCRATCH = "/mnt"  # which is there, and only covered

# In a mount namespace of its own: /dev/fuse is for everybody, as udev makes it, and so is what a
# command needs, wherever root has it. $1 is a scratch directory; the code, the environment and
# the interpreter follow.
_STAGE = f"""
set -e
umask 022
scratch=$1
as="setpriv --reuid={UID} --regid={UID} --clear-groups --"

keep() {{ # NAME DIRECTORY: it is found again when one above it is covered
    mkdir "$scratch/$1" "$scratch/$1-upper" "$scratch/$1-work"
    mount --bind "$2" "$scratch/$1"
}}

show() {{ # NAME DIRECTORY: let the user read it at its place
    ! $as ls "$2" >/dev/null 2>&1 || return 0
    top=$2
    while ! $as test -x "$(dirname "$top")"; do top=$(dirname "$top"); done
    [ ! -e "$top" ] || mount -t tmpfs -o mode=755 none "$top"
    mkdir -p "$2"
    mount --bind "$scratch/$1" "$2"
    ! $as ls "$2" >/dev/null 2>&1 || return 0
    below=lowerdir=$scratch/$1,upperdir=$scratch/$1-upper,workdir=$scratch/$1-work
    mount -t overlay -o "metacopy=on,$below" none "$2"
    find "$2" ! -perm -o=r -exec chmod a+rX {{}} + # as a umask of 077 made it
}}

mount -t tmpfs -o mode=755 none "$scratch"
mknod -m 666 "$scratch/fuse" c 10 229
mount --bind "$scratch/fuse" /dev/fuse
keep code "$2"
keep environment "$3"
keep python "$4"
show code "$2"
show environment "$3"
show python "$4"
shift 4
export HOME=/ # that of root may be closed to them
exec $as "$@"
"""


@contextmanager
def home() -> Generator[Path]:
    """Give a directory that belongs to the user of `as_stranger`, for the block."""
    path = Path(tempfile.mkdtemp(prefix="stranger-"))
    try:
        shutil.chown(path, UID, UID)
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


def as_stranger(*command: str | Path) -> Sequence[str | Path]:
    """Return the command line by which root runs a command as a user who owns nothing.

    The process that is started becomes the command, and gets its signals. What it mounts is
    seen by it and its children only.
    """
    needed = (Path(ocistow.__file__).parents[2], sys.prefix, sys.base_prefix)
    return ["unshare", "--mount", "sh", "-c", _STAGE, "sh", _SCRATCH, *needed, *command]


def run_as_stranger(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command so, and return how it ended and what it said."""
    return subprocess.run(
        as_stranger(*command),
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
