"""Commands run as a user who owns nothing, where the machine lets such users mount."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .mounts import TIMEOUT, environment

UID = 65534  # nobody, and nogroup

_SCRATCH = "/mnt"  # which is there, and only covered

# In a mount namespace of its own: /dev/fuse is for everybody, as udev makes it, and so is the
# interpreter, wherever root keeps it. $1 is a scratch directory, $2 an interpreter's prefix.
_STAGE = f"""
set -e
scratch=$1 prefix=$2
shift 2
mount -t tmpfs -o mode=755 none "$scratch"
mknod -m 666 "$scratch/fuse" c 10 229
mount --bind "$scratch/fuse" /dev/fuse
as="setpriv --reuid={UID} --regid={UID} --clear-groups --"
if ! $as test -x "$prefix/bin/python3"; then
    top=/$(echo "$prefix" | cut -d/ -f2)
    mkdir "$scratch/prefix"
    mount --bind "$prefix" "$scratch/prefix"
    mount -t tmpfs -o mode=755 none "$top"
    mkdir -p "$prefix"
    mount --bind "$scratch/prefix" "$prefix"
fi
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
    stage = ("unshare", "--mount", "sh", "-c", _STAGE, "sh", _SCRATCH, sys.base_prefix)
    return [*stage, *command]


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
