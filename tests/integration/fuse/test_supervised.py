"""`mount --supervise`: a server that crashes is started again."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.testing.mounts import (
    TIMEOUT,
    Mount,
    command_line,
    environment,
    is_usable,
    mount_points,
    run,
    unmount,
    wait_until,
)

from .conftest import Mounter

pytestmark = pytest.mark.fuse


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pid_of(path: Path, store: Path) -> int:
    status = run(store, "mount", "--status", "--json", str(path)).stdout
    return int(json.loads(status)["mounts"][0]["pid"])


def crash(mount: Mount) -> None:
    [server] = children(mount.pid)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: children(mount.pid) not in ([server], []), "there is another server")
    wait_until(lambda: is_usable(mount.path), "the mount can be used again")


def test_a_server_that_crashed_is_started_again(mount_store: Mounter) -> None:
    with mount_store("--supervise") as mount:
        (mount.path / "file").write_bytes(b"content")
        file = os.open(mount.path / "open", os.O_CREAT | os.O_WRONLY)
        crash(mount)
        for call in (lambda: os.write(file, b"lost"), lambda: os.close(file)):
            with pytest.raises(OSError, match=r"not connected|abort"):
                call()
        assert (mount.path / "file").read_bytes() == b"content"
        [told] = mount.log.matching("^ERROR")
        assert "ended with signal 9; starting another in 0.1 s" in told
        assert mount.log.matching("^WARNING .*removing the dead mount")
        [server] = children(mount.pid)
        assert mount.stop() == 0
        assert not Path(f"/proc/{server}").exists()
    assert mount.path not in mount_points()


def test_a_supervisor_ends_when_somebody_unmounts(mount_store: Mounter) -> None:
    with mount_store("--supervise") as mount:
        assert run(mount.store, "umount", str(mount.path)).returncode == 0
        assert mount.wait() == 0
        assert mount.log.matching("^ERROR") == []


def test_what_could_never_be_mounted_is_not_tried_again(fuse: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path / "store", "mount", "--supervise", str(tmp_path / "file"))
    assert done.returncode == os.EX_DATAERR
    assert done.stderr.count("\n") == 1


def test_in_the_background(fuse: None, tmp_path: Path) -> None:
    path, store, log = tmp_path / "mnt", tmp_path / "store", tmp_path / "log"
    path.mkdir()
    options = ("--supervise", "--background", f"--log-file={log}")
    supervisor = 0
    try:
        done = run(store, "mount", *options, str(path))
        assert (done.returncode, done.stderr) == (0, "")
        assert is_usable(path)
        supervisor = parent(pid_of(path, store))
        os.kill(pid_of(path, store), signal.SIGKILL)
        wait_until(lambda: "removing the dead mount" in log.read_text(), "another one starts")
        wait_until(lambda: is_usable(path), "it can be used again")
        assert parent(pid_of(path, store)) == supervisor
        assert run(store, "umount", str(path)).returncode == 0
        wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), "the supervisor ends")
        assert log.read_text().count("ERROR") == 1
        assert path not in mount_points()
        supervisor = 0
    finally:
        if supervisor > 1:  # or it would mount again
            os.kill(supervisor, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), "the supervisor ends")
        unmount(path)


def test_for_one_command(fuse: None, tmp_path: Path) -> None:
    path, store = tmp_path / "mnt", tmp_path / "store"
    path.mkdir()
    status = shlex.join(command_line(store, "mount", "--status", "--json", str(path)))
    script = (
        "echo content > $0/file && "
        f"server=$({status} | sed -n 's/^ *\"pid\": \\([0-9]*\\),$/\\1/p') && "
        '[ "$server" -gt 1 ] && kill -9 "$server" && '
        "until cat $0/file 2> /dev/null; do :; done; exit 7"
    )
    command = ("bash", "-c", script, str(path))
    done = subprocess.run(
        command_line(store, "mount", "--supervise", str(path), "--", *command),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (7, "content\n"), done.stderr
    assert "starting another" in done.stderr
    assert path not in mount_points()


def test_it_gives_up(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from ocistow.fusefs.system.supervision import Limits, Supervisor\n"
        "limits = Limits(crashes=3, first=0.01)\n"
        "supervisor = Supervisor(Path(sys.argv[1]), limits)\n"
        "told = supervisor.supervise(lambda: print('ready', flush=True), lambda: None)\n"
        "told()\n"
        "print('served', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stdout.count("served") == 3
    assert done.stdout.count("ready") == 1
    assert "gave up after 3 times in 600 s" in done.stderr
