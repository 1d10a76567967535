"""What a mount needs, and whether one can be made: by making one that nobody else sees."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import ocistow

from ...fusefs.health.status import statuses
from ...fusefs.system import process
from ...oci.wording import message_of, plain
from .check import Check, State, fail, ok, warn

DEVICE = Path("/dev/fuse")
CONFIG = Path("/etc/fuse.conf")
TABLE = Path("/etc/fstab")
MOUNTED = Path("/etc/mtab")
HELPERS = "/sbin:/sbin/fs.d:/sbin/fs"  # where mount(8) looks for `mount.TYPE`
TIMEOUT = 1.5  # seconds for a mount that takes 0.3

_NEEDED = "to mount; everything else works without"
_REFUSED = (
    "to mount is root's; in a container: --cap-add SYS_ADMIN, with AppArmor also "
    "--security-opt apparmor=unconfined; fusermount3 cannot help where no-new-privileges is set"
)
_CODE = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ocistow.cli.main import main; main()"
_PACKAGES = str(Path(ocistow.__file__).parents[1])  # its Python may know of them by no other way
_FSTAB = re.compile(r"\s*[^#\s]+\s+\S+\s+(fuse\.)?ocistow\s")


def namespaces() -> Check:
    """Try to have mounts that nobody else sees. Needs a single thread."""
    child = os.fork()
    if not child:
        private = False
        with suppress(OSError):
            private = process.own_mounts(Path(tempfile.gettempdir()))
        os._exit(0 if private else 1)
    if os.waitpid(child, 0)[1] == 0:
        how = "as root" if os.geteuid() == 0 else "in a user namespace"
        return ok("private mounts", f"possible, {how}")
    advice = (
        "`ocistow mount DIR -- COMMAND` is seen by everybody then; users may have namespaces after "
        "sysctl kernel.unprivileged_userns_clone=1, with AppArmor also "
        "kernel.apparmor_restrict_unprivileged_userns=0, containers with --privileged"
    )
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        advice = f"see {DEVICE}"
    return warn("private mounts", "not possible", advice)


def mounting() -> Iterator[Check]:
    """Look at what a mount needs, and make one."""
    device, helper = _device(), _helper()
    yield device
    yield helper
    yield _others()
    yield _table()
    if device.advice:
        yield fail("mount", "not tried", f"see {device.name}")
    else:
        yield _trial() if os.geteuid() == 0 else _trial_of_user(helper)


def _device() -> Check:
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        advice = f"modprobe fuse, as root; in a container: --device {DEVICE} ({_NEEDED})"
        return fail(str(DEVICE), "not there", advice)
    except PermissionError as error:
        advice = f"chmod 666 {DEVICE}, as root; in a container: --device {DEVICE} ({_NEEDED})"
        return fail(str(DEVICE), (error.strerror or "").lower(), advice)
    except OSError as error:
        return fail(str(DEVICE), message_of(error), f"modprobe fuse, as root ({_NEEDED})")
    return ok(str(DEVICE), "can be opened")


def _helper() -> Check:
    path = shutil.which("fusermount3")
    if path is None and os.geteuid() == 0:
        return ok("fusermount3", "not on PATH; root needs none")
    if path is None:
        return fail("fusermount3", "not on PATH", f"apt-get install fuse3, as root ({_NEEDED})")
    try:
        done = subprocess.run(  # noqa: S603 - found on the user's own PATH
            [path, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail("fusermount3", f"{path}: {error}", "apt-get install --reinstall fuse3")
    found = f"{path}, {plain(done.stdout).removeprefix('fusermount3 ')}"
    if os.geteuid() and not os.stat(path).st_mode & stat.S_ISUID:
        return fail("fusermount3", f"{found}, not set-user-ID", f"chmod u+s {path}, as root")
    if os.geteuid() and not MOUNTED.exists():  # a mount could be made, and not unmounted
        advice = f"ln -s /proc/self/mounts {MOUNTED}, as root ({_NEEDED})"
        return fail("fusermount3", f"{found}, and no {MOUNTED}, which it reads", advice)
    return ok("fusermount3", found)


def _others() -> Check:
    name = "user_allow_other"
    if os.geteuid() == 0:
        return ok(name, "root needs none")
    with suppress(OSError):
        if name in map(str.strip, CONFIG.read_text(errors="replace").splitlines()):
            return ok(name, f"set in {CONFIG}")
    advice = f"only you see your mounts, no container does; a line {name} in {CONFIG} changes that"
    return warn(name, f"not set in {CONFIG}", f"{advice}, with --allow-other")


def _table() -> Check:
    name = "mount.ocistow"
    found = shutil.which(name, path=HELPERS)
    wanted = False
    with suppress(OSError):
        wanted = any(map(_FSTAB.match, TABLE.read_text(errors="replace").splitlines()))
    if found or not wanted:
        return ok(name, found or f"not in /sbin, and no line of {TABLE} needs it")
    ours = shutil.which(name) or f"{Path(sys.executable).parent}/{name}"
    return fail(name, f"not in /sbin, but in {TABLE}", f"ln -s {ours} /sbin/")


def _trial_of_user(helper: Check) -> Check:
    """Mount for all programs of the user, as only `fusermount3` can; else for one alone."""
    if helper.advice:
        check = fail("mount", "not tried", f"see {helper.name}")
    else:
        check = _trial("--no-private")
    if check.state is State.OK or _trial().state is not State.OK:
        return check
    reason = f": {check.found}" if not helper.advice else ""
    return warn(check.name, f"works as `mount DIR -- COMMAND` alone{reason}", check.advice)


def _trial(*options: str) -> Check:
    """Mount an empty store in a temporary directory, and ask the server what it is."""
    prefix = "ocistow-doctor-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as directory:
        mountpoint = Path(directory, "mnt").resolve()
        mountpoint.mkdir()
        ours = ("--config", os.devnull, "--store", f"{directory}/store")
        start = (sys.executable, "-P", "-c", _CODE, _PACKAGES)
        command = [*start, *ours, "mount", *options, str(mountpoint), "--", "cat"]
        with subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if not k.startswith("OCISTOW_")},
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            with suppress(BrokenPipeError):
                server.stdin.write(b"\n")
                server.stdin.flush()
            is_up = bool(server.stdout.readline())  # `cat` runs as soon as the mount can be used
            engine = _engine(mountpoint) if is_up else ""
            _, words = server.communicate()
    if not is_up or server.returncode:
        said = plain(words.decode(errors="replace").strip().rpartition("\n")[2])
        return fail("mount", said.removeprefix("ocistow: "), _REFUSED)
    if engine == "kernel":
        return ok("mount", "works: engine kernel, with passthrough")
    return ok("mount", "works: engine pyfuse3; passthrough needs root and Linux 6.9")


def _engine(mountpoint: Path) -> str:
    known = (s["engine"] for s in statuses() if s.get("mountpoint") == str(mountpoint))
    return str(next(known, "unknown"))
