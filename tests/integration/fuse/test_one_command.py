"""`ocistow mount -- COMMAND`: signals, terminals, and a mount that only the command sees."""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ocistow.testing.mounts import (
    TIMEOUT,
    command_line,
    environment,
    mount_points,
    unmount,
    wait_until,
)
from ocistow.testing.strangers import UID, as_stranger, home, run_as_stranger

pytestmark = pytest.mark.fuse

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Terminal:
    """A command with a terminal of its own, at which a test types and reads."""

    def __init__(self, *command: str) -> None:
        self.pid, self._file = pty.fork()
        if not self.pid:
            os.execvpe(command[0], command, environment())
        self._seen = ""

    def type(self, characters: bytes) -> None:
        os.write(self._file, characters)

    def read_until(self, text: str) -> str:
        while text not in self._seen:
            self._seen += os.read(self._file, 1000).decode()
        before, _, self._seen = self._seen.partition(text)
        return before

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._file)


@pytest.fixture
def mountpoint(fuse: None, tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


COUNTING = """
import os, signal, sys
seen = []
def count(*_):
    seen.append(1)
    os.write(1, b"seen %d" % len(seen))  # a print that a signal interrupts cannot print again
signal.signal(signal.SIGINT, count)
os.write(1, b"ready")
sys.stdin.readline()
sys.exit(30 + len(seen))
"""


def test_a_terminals_interrupt_reaches_a_command_once(tmp_path: Path, mountpoint: Path) -> None:
    command = (sys.executable, "-c", COUNTING)
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--", *command)
    with closing(Terminal(*line)) as terminal:
        terminal.read_until("ready")
        for number in (1, 2):
            terminal.type(b"\x03")
            terminal.read_until(f"seen {number}")
        terminal.type(b"\n")
        assert terminal.wait() == 32
    assert mountpoint not in mount_points()


def test_an_interrupt_ends_a_command_and_its_mount(tmp_path: Path, mountpoint: Path) -> None:
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--", "cat")
    with closing(Terminal(*line)) as terminal:
        terminal.type(b"line\n")
        terminal.read_until("line\r\nline\r\n")
        terminal.type(b"\x03")
        assert terminal.wait() == 128 + signal.SIGINT
    assert mountpoint not in mount_points()


def test_a_command_that_is_stopped_gives_the_shell_its_turn(
    tmp_path: Path, mountpoint: Path
) -> None:
    """While it is stopped, the mount goes on to answer."""
    command = ("sh", "-c", "echo ready; read word; echo got $word; exit 5")
    line = command_line(
        tmp_path / "store", "mount", "--no-private", str(mountpoint), "--", *command
    )
    steps = f"set -m; {shlex.join(line)}; ls {mountpoint} && echo turn; fg; echo end $?"
    with closing(Terminal("bash", "-c", steps)) as terminal:
        terminal.read_until("ready")
        terminal.type(b"\x1a")
        terminal.read_until("turn")
        terminal.type(b"something\n")
        terminal.read_until("got something")
        terminal.read_until("end 5")
        assert terminal.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_a_command_gets_what_we_are_sent(
    tmp_path: Path, mountpoint: Path, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    code = f"trap 'exit 21' {name}; echo ready; while :; do sleep 0.01; done"
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--", "sh", "-c", code)
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 21
    assert mountpoint not in mount_points()


def test_a_command_has_our_files_and_defaults(tmp_path: Path, mountpoint: Path) -> None:
    """A descriptor that the caller opened, and SIGPIPE, which Python ignores."""
    (tmp_path / "input").write_text("from our caller\n")
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--", "sh", "-c")
    script = (
        f"exec 7< {tmp_path / 'input'}\n"
        f"{shlex.join([*line, 'cat <&7; yes | head -1; kill -PIPE $$'])}"
    )
    done = subprocess.run(
        ["sh", "-c", script], env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stdout == "from our caller\ny\n"
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_the_mount_ends_with_whoever_asked_for_it(tmp_path: Path, mountpoint: Path) -> None:
    line = command_line(
        tmp_path / "store", "mount", "--no-private", str(mountpoint), "--", "sh", "-c"
    )
    script = "echo ready; trap '' TERM; read word"
    with subprocess.Popen(
        [*line, script],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert mountpoint in mount_points()
        process.kill()
        wait_until(lambda: mountpoint not in mount_points(), "it is unmounted")


def test_that_the_mount_was_killed_is_said(tmp_path: Path, mountpoint: Path) -> None:
    script = (
        "for p in $(cat /proc/$PPID/task/$PPID/children); do [ $p = $$ ] || kill -KILL $p; done; "
        "ls $0; exit 3"
    )
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--", "sh", "-c", script)
    done = subprocess.run(
        [*line, mountpoint], env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 3
    assert "connect" in done.stderr  # reset while it was asked, or none at all
    assert "the mount ended before, with status 137" in done.stderr
    unmount(mountpoint)


def test_an_impatient_user_leaves_no_mount(tmp_path: Path, mountpoint: Path) -> None:
    """Whoever started it was killed before it could be used."""
    os.mkfifo(tmp_path / "go")
    wait = f"os.read(os.open({str(tmp_path / 'go')!r}, os.O_RDONLY), 1)"
    code = (
        "import os, sys; from ocistow.fusefs import mount; original = mount.prepare\n"
        f"def prepare(path): {wait}; original(path)\n"
        "mount.prepare = prepare; from ocistow.cli.main import main; main()"
    )
    _, _, _, *arguments = command_line(
        tmp_path / "store", "-v", "mount", "--background", str(mountpoint)
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with (tmp_path / "go").open("w"):  # the child waits
            process.kill()
            process.wait(TIMEOUT)
        assert process.stderr is not None
        said = process.stderr.read()  # to the end, when it writes to its log instead
    log = tmp_path / "store" / "mount.log"
    wait_until(lambda: "stopping on SIGTERM" in log.read_text(), "it stops")
    wait_until(lambda: mountpoint not in mount_points(), "it is unmounted")
    assert "Traceback" not in said + log.read_text()


PLACES = pytest.mark.parametrize("owner", [UID, 0], ids=["their own", "root's"])


@ROOT
@PLACES
def test_an_ordinary_user_gets_a_mount_that_nobody_else_sees(fuse: None, owner: int) -> None:
    script = (
        "echo content > $0/file && cat $0/file && id -u && id -g && "
        "grep -c $0 /proc/self/mounts && readlink /proc/self/ns/user && "
        "grep CapEff /proc/self/status; exit 9"
    )
    with home() as path:
        (path / "mnt").mkdir()
        os.chown(path / "mnt", owner, owner)
        line = command_line(path / "store", "mount", str(path / "mnt"), "--", "sh", "-c", script)
        done = run_as_stranger(*line, str(path / "mnt"))
        assert (done.returncode, done.stderr) == (9, "")
        content, user, group, mounts, namespace, capabilities = done.stdout.splitlines()
        assert (content, user, group, mounts) == ("content", str(UID), str(UID), "1")
        assert namespace != os.readlink("/proc/self/ns/user")
        assert capabilities.split()[1] == "0" * 16
        file = path / "store" / "layouts" / "file"
        assert (file.read_text(), file.stat().st_uid) == ("content\n", UID)


@ROOT
@pytest.mark.parametrize(
    ("place", "options", "reason"),
    [
        ("/mnt", [], "no write access to mountpoint /mnt"),
        (None, ["--allow-other"], "'user_allow_other' is set in /etc/fuse.conf"),
    ],
)
def test_why_a_user_may_not_mount_is_said_in_a_line(
    fuse: None, place: str | None, options: list[str], reason: str
) -> None:
    with home() as path:
        (path / "mnt").mkdir()
        shutil.chown(path / "mnt", UID, UID)
        where = place or str(path / "mnt")
        done = run_as_stranger(*command_line(path / "store", "mount", *options, where))
    assert done.returncode == os.EX_NOPERM
    assert re.fullmatch(rf"ocistow: {where}: cannot mount: .*{reason}\n", done.stderr), done


# a process with another root directory than its mount namespace may not enter a user namespace
CHROOTED = (
    'mount -t tmpfs none $0 && mkdir $0/root && mount --rbind / $0/root && exec chroot $0/root "$@"'
)


@ROOT
@pytest.mark.parametrize("allowed", [True, False], ids=["not wanted", "not allowed"])
def test_an_ordinary_user_gets_an_ordinary_mount_else(
    fuse: None, tmp_path: Path, allowed: bool
) -> None:
    script = "echo content > $0/file && readlink /proc/self/ns/user"
    options = ["--no-private"] if allowed else []
    with home() as path:
        (path / "mnt").mkdir()
        os.chown(path / "mnt", UID, UID)
        line = command_line(
            path / "store", "mount", *options, str(path / "mnt"), "--", "sh", "-c", script
        )
        command = [*as_stranger(*line, path / "mnt")]
        if not allowed:
            command = ["unshare", "--mount", "sh", "-c", CHROOTED, tmp_path, *command]
        done = subprocess.run(
            command, env=environment(), cwd="/", capture_output=True, text=True, timeout=TIMEOUT
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == os.readlink("/proc/self/ns/user")
        assert (path / "store" / "layouts" / "file").read_text() == "content\n"


@ROOT
def test_an_ordinary_user_mounts_in_the_background_and_unmounts(fuse: None) -> None:
    with home() as path:
        (path / "mnt").mkdir()
        os.chown(path / "mnt", UID, UID)
        store, place = path / "store", str(path / "mnt")
        steps = [
            shlex.join(command_line(store, "mount", "--background", place)),
            f"stat -c '%u %U' {place}",
            f"(cd {place} && {shlex.join(command_line(store, 'umount', place))}; echo $?)",
            shlex.join(command_line(store, "umount", place)),
            f"! mountpoint -q {place}",
        ]
        done = run_as_stranger("sh", "-c", " && ".join(steps))
        assert done.stdout == f"{UID} nobody\n{os.EX_TEMPFAIL}\n"
        assert re.fullmatch(
            rf"ocistow: {place}: in use: [0-9]+ \(sh, cwd \.\), .*cwd \.\)\n", done.stderr
        )
        assert done.returncode == 0
