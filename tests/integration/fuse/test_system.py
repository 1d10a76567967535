"""Mounts that mount(8), /etc/fstab and service managers start."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.testing.mounts import (
    TIMEOUT,
    Mount,
    command_line,
    environment,
    mount_points,
    mounted,
    run,
    unmount,
    wait_until,
)

pytestmark = pytest.mark.fuse

PAGES = Path(__file__).parents[3] / "docs"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def mountpoint(fuse: None, tmp_path: Path) -> Path:
    path = tmp_path / "mount point"
    path.mkdir()
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program that mount(8) runs, as if it was installed."""
    path = tmp_path / "sbin" / "mount.ocistow"
    path.parent.mkdir()
    code = f"import sys; sys.argv[0] = {str(path)!r}; from ocistow.cli.main import main; main()"
    variables = f"PYTHONPATH={shlex.quote(environment()['PYTHONPATH'])}"
    path.write_text(
        f'#!/bin/sh\n{variables} exec {sys.executable} -W error -c {shlex.quote(code)} "$@"\n'
    )
    path.chmod(0o755)
    shutil.copy(path, path.with_name("mount.fuse.ocistow"))
    return path


def in_a_system(program: Path, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a mount namespace in which /sbin has the program."""
    upper = program.parent
    layers = f"lowerdir={upper}:/usr/sbin"
    script = f"mount -t overlay -o {shlex.quote(layers)} overlay /usr/sbin || exit 99\n{script}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        cwd="/",
    )
    if done.returncode == 99:
        pytest.skip("no overlay can be mounted")
    return done


@ROOT
@pytest.mark.parametrize("kind", ["ocistow", "fuse.ocistow"])
def test_mount_mounts_and_umount_unmounts(
    tmp_path: Path, mountpoint: Path, program: Path, kind: str
) -> None:
    place = shlex.quote(str(mountpoint))
    options = "rw,uid=7,gid=8,umask=027,sub=a/b,allow_other,_netdev,nofail,x-systemd.automount"
    done = in_a_system(
        program,
        f"set -e; mount -t {kind} -o {options} {tmp_path}/store {place}\n"
        f"mkdir {place}/directory; stat -c '%u %g %a' {place}/directory\n"
        f"findmnt -no FSTYPE,OPTIONS {place}\n"
        f"umount {place}; ls {place}; ls {tmp_path}/store/layouts/a/b",
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown, found, left = done.stdout.splitlines()
    assert shown == "7 8 750"
    assert re.fullmatch(r"fuse\.ocistow +rw,nosuid,nodev,.*allow_other.*", found)
    assert left == "directory"


@ROOT
def test_lines_of_fstab(tmp_path: Path, mountpoint: Path, program: Path) -> None:
    place = shlex.quote(str(mountpoint))
    escaped = str(mountpoint).replace(" ", r"\040")
    table = tmp_path / "fstab"
    table.write_text(f"{tmp_path}/store {escaped} ocistow ro,noexec,nofail,uid=root 0 0\n")
    run(tmp_path / "store", "ls")
    done = in_a_system(
        program,
        f"set -e; {shlex.join(command_line(tmp_path / 'store', 'mount', '/mnt', '--', 'true'))}\n"
        f"mount -T {table} {place}; findmnt -no OPTIONS {place}; umount {place}\n"
        f"mount -T {table} -o remount,rw {place} 2>/dev/null || echo not mounted",
    )
    assert (done.returncode, done.stderr) == (0, "")
    options, words = done.stdout.splitlines()
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(options.split(","))
    assert words == "not mounted"


@ROOT
def test_the_line_of_the_page_mounts(tmp_path: Path, program: Path) -> None:
    [line] = re.findall(r"^/\S+ +/oci +ocistow .*$", (PAGES / "mounting.md").read_text(), re.M)
    (tmp_path / "oci").mkdir()
    table = tmp_path / "fstab"
    table.write_text(
        line.replace("/var/lib/ocistow", f"{tmp_path}/store").replace("/oci", f"{tmp_path}/oci", 1)
    )
    done = in_a_system(
        program,
        f"set -e; mount -T {table} {tmp_path}/oci; findmnt -no FSTYPE {tmp_path}/oci\n"
        f"umount {tmp_path}/oci",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fuse.ocistow\n", "")


@ROOT
@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("bogus", 1, "mount.ocistow: unknown mount option 'bogus'"),
        ("ro", 32, "ocistow: a store at "),
    ],
)
def test_mount_says_what_is_wrong(
    tmp_path: Path, mountpoint: Path, program: Path, options: str, status: int, words: str
) -> None:
    place = shlex.quote(str(mountpoint))
    done = in_a_system(program, f"mount -t ocistow -o {options} {tmp_path}/store {place}; exit $?")
    assert done.returncode == status, done
    assert done.stderr.splitlines()[0].startswith(words)
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("engine", ["pyfuse3", pytest.param("kernel", marks=ROOT)])
def test_nothing_is_run_from_a_mount_that_forbids_it(
    tmp_path: Path, fuse: None, engine: str
) -> None:
    with mounted(tmp_path / "store", tmp_path / "mnt", "--no-exec", "--engine", engine) as mount:
        program = mount.path / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        with pytest.raises(PermissionError):
            subprocess.run([program], check=True)


@pytest.mark.parametrize("name", ["{}/notify", "@{}/notify"], ids=["file", "abstract"])
def test_a_service_manager_hears_how_a_mount_is(
    tmp_path: Path, mountpoint: Path, name: str
) -> None:
    address = name.format(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(TIMEOUT)
        manager.bind("\0" + address[1:] if address.startswith("@") else address)
        process = subprocess.Popen(
            command_line(tmp_path / "store", "mount", str(mountpoint)),
            env={**environment(), "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"},
            stderr=subprocess.PIPE,
            text=True,
        )
        mount = Mount(tmp_path / "store", mountpoint, process)
        try:
            heard = [manager.recv(1000).decode().split("\n")]
            while heard[-1][0] != "READY=1":
                assert heard[-1] == ["WATCHDOG=1"]
                heard.append(manager.recv(1000).decode().split("\n"))
            assert os.path.ismount(mountpoint)
            assert heard[-1][1:] == [f"STATUS=mounted at {mountpoint}", f"MAINPID={mount.pid}"]
            for _ in range(3):
                assert manager.recv(1000) == b"WATCHDOG=1"
            process.terminate()
            while (last := manager.recv(1000)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1\nSTATUS=unmounting"
        finally:
            mount.end()


MORTAL = """
import os, signal, sys
from ocistow.cli.main import main
from ocistow.fusefs.filesystem import FileSystem

for request in ("getattr", "lookup", "statfs"):
    setattr(FileSystem, request, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
sys.argv[0] = "ocistow"
main()
"""


def test_a_server_asks_nothing_of_its_own_mount(
    tmp_path: Path, mountpoint: Path, engine: str
) -> None:
    """One that is killed meanwhile would never end, and keep the device open for all clients."""
    (tmp_path / "link").symlink_to(mountpoint)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(TIMEOUT)
        manager.bind(address)
        arguments = ("mount", "--engine", engine, str(tmp_path / "link"))
        _, _, _, *words = command_line(tmp_path / "store", *arguments)
        process = subprocess.Popen(
            [sys.executable, "-c", MORTAL, *words],
            env={**environment(), "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"},
            stderr=subprocess.PIPE,
            text=True,
        )
        mount = Mount(tmp_path / "store", mountpoint, process)
        try:
            while not (said := manager.recv(1000)).startswith(b"READY=1\n"):
                assert said == b"WATCHDOG=1"
            for _ in range(3):
                assert manager.recv(1000) == b"WATCHDOG=1"
            assert mount.stop() == 0
            assert mountpoint not in mount_points()
        finally:
            mount.end()


def test_a_service_manager_that_is_gone_ends_no_mount(tmp_path: Path, mountpoint: Path) -> None:
    process = subprocess.Popen(
        command_line(tmp_path / "store", "mount", str(mountpoint)),
        env={**environment(), "NOTIFY_SOCKET": str(tmp_path / "nobody")},
        stderr=subprocess.PIPE,
        text=True,
    )
    mount = Mount(tmp_path / "store", mountpoint, process)
    try:
        mount.wait_until_usable()
        [warning] = mount.log.wait_for("^WARNING .*cannot tell")
        assert str(tmp_path / "nobody") in warning
    finally:
        mount.end()


def test_a_command_is_its_service_managers_own(tmp_path: Path, mountpoint: Path) -> None:
    line = command_line(tmp_path / "store", "mount", str(mountpoint), "--")
    done = subprocess.run(
        [*line, "sh", "-c", "echo $NOTIFY_SOCKET"],
        env={**environment(), "NOTIFY_SOCKET": str(tmp_path / "nobody")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'nobody'}\n", "")


def test_the_units_of_the_page_are_right(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (PAGES / "mounting.md").read_text()
    units = re.findall(r"^`/etc/systemd/system/([\w.-]+)`:\n+```ini\n(.*?)```", text, re.M | re.S)
    assert units
    for name, content in units:
        found = re.sub(r"^Exec(\w+)=\S+", r"Exec\1=/bin/true", content, flags=re.M)
        (tmp_path / name).write_text(found)
    done = subprocess.run(
        ["systemd-analyze", "verify", *[tmp_path / name for name, _ in units]],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done


BACKGROUND: list[tuple[str, list[str], int, str]] = [
    ("missing/below", [], os.EX_IOERR, "No such file or directory"),
    ("file", [], os.EX_DATAERR, "is not a directory"),
    ("mount point", ["--log-file", "/nowhere/log"], os.EX_IOERR, "/nowhere/log"),
    ("mount point", ["--sub", "../.."], os.EX_DATAERR, "not a path below"),
]


@pytest.mark.parametrize(("place", "options", "status", "words"), BACKGROUND)
def test_what_keeps_a_mount_from_the_background_is_said_at_once(
    fuse: None, tmp_path: Path, mountpoint: Path,
    place: str, options: list[str], status: int, words: str,
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    done = run(tmp_path / "store", "mount", "--background", *options, str(tmp_path / place))
    assert done.returncode == status, done
    assert words in done.stderr
    assert done.stderr.startswith("ocistow: ")
    assert done.stderr.count("\n") == 1


def test_a_mount_in_the_background_keeps_nothing_of_ours(tmp_path: Path, mountpoint: Path) -> None:
    """Neither the pipes that somebody reads to their end, nor the directory."""
    here = tmp_path / "here"
    here.mkdir()
    held, inherited = os.pipe()
    os.set_inheritable(inherited, True)
    line = command_line(Path("../store"), "mount", "--background", "../mount point")
    try:
        done = subprocess.run(
            line, cwd=here, env=environment(), close_fds=False,
            capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        os.close(inherited)
        assert os.read(held, 1) == b""
        here.rmdir()
        (mountpoint / "file").write_text("content")
        assert (tmp_path / "store" / "layouts" / "file").read_text() == "content"
        assert (tmp_path / "store" / "mount.log").exists()
        assert run(tmp_path / "store", "umount", str(mountpoint)).returncode == 0
        wait_until(lambda: mountpoint not in mount_points(), "it is unmounted")
    finally:
        os.close(held)
        unmount(mountpoint)
