"""`ocistow umount`: who keeps a mount busy, and what else is mounted there."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ocistow.testing.mounts import Mount, command_line, mount_points, mounted, run
from ocistow.testing.strangers import home, run_as_stranger

from .conftest import Mounter

pytestmark = pytest.mark.fuse

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


@contextmanager
def busy(code: str) -> Generator[int]:
    """Run Python code in a process that then waits; it gives the process' number."""
    source = f"import mmap, os, sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


def refusal(mount: Mount) -> str:
    done = run(mount.store, "umount", str(mount.path))
    assert done.returncode == os.EX_TEMPFAIL, done
    assert mount.is_alive
    start = f"ocistow: {mount.path}: in use: "
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(start).strip()


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("os.chdir({0!r} + '/a b')", "cwd a b"),
        ("os.chdir({0!r})", "cwd ."),
        ("file = os.open({0!r} + '/a b/file', os.O_RDONLY); os.dup2(file, 99); os.close(file)",
         "fd 99 a b/file"),
        ("file = open({0!r} + '/a b/file', 'rb')\n"
         "mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)\n"
         "file.close()\n"
         # the mapping keeps a descriptor of its own, too
         "[os.close(int(n)) for n in os.listdir('/proc/self/fd') if int(n) > 2 and "
         "os.path.exists('/proc/self/fd/' + n)]",
         "mapped a b/file"),
        pytest.param("os.chroot({0!r} + '/a b')", "root a b", marks=ROOT),
    ],
    ids=["directory", "the root", "descriptor", "mapping", "chroot"],
)  # fmt: skip
def test_who_uses_a_mount_is_named(mount_store: Mounter, code: str, use: str) -> None:
    with mount_store() as mount:
        (mount.path / "a b").mkdir()
        (mount.path / "a b" / "file").write_bytes(b"content")
        with busy(code.format(str(mount.path))) as pid:
            command = Path(f"/proc/{pid}/comm").read_text().strip()
            assert refusal(mount) == f"{pid} ({command}, {use})"
        assert run(mount.store, "umount", str(mount.path)).returncode == 0
        assert mount.wait() == 0


def test_of_many_who_use_a_mount_some_are_named(mount_store: Mounter) -> None:
    with mount_store() as mount:
        with ExitStack() as users:
            for _ in range(7):
                users.enter_context(busy(f"os.chdir({str(mount.path)!r})"))
            said = refusal(mount)
        assert said.count("cwd .") == 5
        assert said.endswith(", and 2 more")


@ROOT
def test_what_is_mounted_in_a_mount_keeps_it(mount_store: Mounter) -> None:
    with mount_store() as mount:
        for below in (mount.path / "below", mount.path):
            below.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "scratch", below], check=True)
            try:
                done = run(mount.store, "umount", str(mount.path))
            finally:
                subprocess.run(["umount", below], check=True)
            assert done.returncode == os.EX_TEMPFAIL
            if below == mount.path:
                assert "scratch (tmpfs) is mounted over it" in done.stderr
            else:
                assert f"{below} is mounted in it" in done.stderr


@ROOT
def test_a_part_that_was_bound_elsewhere_stays(mount_store: Mounter, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    with mount_store() as mount:
        (mount.path / "image").mkdir()
        subprocess.run(["mount", "--bind", mount.path / "image", elsewhere], check=True)
        try:
            done = run(mount.store, "umount", str(mount.path))
            assert done.returncode == 0
            assert done.stderr == f"still to be seen at {elsewhere}\n"
            assert mount.path not in mount_points()
            (elsewhere / "file").write_bytes(b"content")
        finally:
            subprocess.run(["umount", elsewhere], check=True)
        assert mount.wait() == 0
    assert (mount.layouts / "image" / "file").read_bytes() == b"content"


def test_a_mount_that_does_not_answer_is_not_asked(mount_store: Mounter) -> None:
    with mount_store() as mount:
        (mount.path / "directory").mkdir()
        with busy(f"os.chdir({str(mount.path / 'directory')!r})") as pid:
            os.kill(mount.pid, signal.SIGSTOP)
            try:
                assert refusal(mount).startswith(f"{pid} (")
                assert run(mount.store, "umount", "--lazy", str(mount.path)).returncode == 0
                assert mount.path not in mount_points()
            finally:
                os.kill(mount.pid, signal.SIGCONT)
        assert mount.wait() == 0


def test_what_is_no_store_is_not_unmounted(mount_store: Mounter, tmp_path: Path) -> None:
    for path in ("/", str(tmp_path), str(tmp_path / "missing")):
        done = run(tmp_path / "store", "umount", path)
        assert done.returncode == os.EX_NOINPUT, done
        assert done.stderr == f"ocistow: a mounted store at {path}: not found\n"


@ROOT
def test_a_mount_of_another_user_is_only_theirs_to_end(fuse: None) -> None:
    with home() as path, mounted(path / "store", path / "mnt") as mount:
        done = run_as_stranger(*command_line(path / "store", "umount", str(mount.path)))
        assert done.returncode == os.EX_NOPERM, done
        assert done.stderr.count("\n") == 1
        assert mount.is_alive
