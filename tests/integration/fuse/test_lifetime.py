"""How a mount begins and ends: signals, death, commands, and what it refuses."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.layout_writer import image_of, write_image
from ocistow.testing.mounts import (
    TIMEOUT,
    command_line,
    environment,
    mount_points,
    mounted,
    run,
    unmount,
    wait_until,
)

from .conftest import Mounter

pytestmark = pytest.mark.fuse


def is_one_line(text: str) -> bool:
    return text.startswith("ocistow: ") and text.count("\n") == 1


@pytest.fixture
def store(fuse: None, tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.mark.parametrize("ends", [False, True], ids=["alive", "ended"])
def test_a_test_that_fails_tells_what_its_mount_said(mount_store: Mounter, ends: bool) -> None:
    def fail() -> None:
        with mount_store() as mount:
            assert not ends or mount.stop() == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    (note,) = caught.value.__notes__
    assert ("had ended with status 0" if ends else "was killed now") in note
    assert ("stopping on SIGTERM" in note) == ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_unmount(mount_store: Mounter, number: signal.Signals) -> None:
    with mount_store() as mount:
        (mount.path / "file").write_bytes(b"content")
        assert mount.stop(number) == 0
        assert mount.path not in mount_points()
        assert os.listdir(mount.path) == []
        assert mount.log.matching(number.name)
    assert (mount.layouts / "file").read_bytes() == b"content"


def test_a_signal_unmounts_even_what_is_in_use(mount_store: Mounter) -> None:
    with mount_store() as mount:
        file = os.open(mount.path / "file", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"content")
        assert mount.stop() == 0
        assert mount.path not in mount_points()
        for call in (lambda: os.write(file, b"more"), lambda: os.close(file)):
            with pytest.raises(OSError, match=r"not connected|abort"):
                call()
    assert (mount.layouts / "file").read_bytes() == b"content"


def test_umount_unmounts_what_nobody_uses(mount_store: Mounter) -> None:
    with mount_store() as mount:
        with (mount.path / "file").open("wb"):
            busy = run(mount.store, "umount", str(mount.path))
            assert busy.returncode == os.EX_TEMPFAIL
            assert is_one_line(busy.stderr)
            assert mount.is_alive
        done = run(mount.store, "umount", str(mount.path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert mount.wait() == 0
        again = run(mount.store, "umount", str(mount.path))
        assert again.returncode == os.EX_NOINPUT
        assert is_one_line(again.stderr)


def test_umount_detaches_lazily(mount_store: Mounter) -> None:
    with mount_store() as mount:
        with (mount.path / "file").open("wb", buffering=0) as file:
            assert run(mount.store, "umount", "--lazy", str(mount.path)).returncode == 0
            assert mount.path not in mount_points()
            file.write(b"still there")
        assert mount.wait() == 0
    assert (mount.layouts / "file").read_bytes() == b"still there"


def test_a_store_is_mounted_once_at_a_place(mount_store: Mounter, tmp_path: Path) -> None:
    with mount_store() as mount:
        (tmp_path / "link").symlink_to(mount.path)
        for path in (mount.path, tmp_path / "link"):
            again = run(mount.store, "mount", str(path))
            assert again.returncode == os.EX_TEMPFAIL, again
            assert is_one_line(again.stderr)
        with mounted(mount.store, tmp_path / "elsewhere") as other:
            (mount.path / "file").write_bytes(b"content")
            assert (other.path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("what", ["missing", "file", "missing/below"])
def test_what_is_no_directory_is_refused_in_one_line(
    store: Path, tmp_path: Path, what: str
) -> None:
    (tmp_path / "file").touch()
    done = run(store, "mount", str(tmp_path / what))
    assert done.returncode in (os.EX_NOINPUT, os.EX_DATAERR, os.EX_IOERR)
    assert is_one_line(done.stderr), done.stderr
    assert what in done.stderr


def test_what_cannot_be_the_store_is_refused_in_one_line(
    fuse: None, tmp_path: Path, mountpoint: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for options in ((), ("--background",)):
        done = run(tmp_path / "other", "mount", *options, str(mountpoint))
        assert done.returncode == os.EX_DATAERR
        assert is_one_line(done.stderr)


def test_a_read_only_mount(mount_store: Mounter) -> None:
    with mount_store() as mount:
        (mount.path / "file").write_bytes(b"content")
    with mount_store("--read-only") as mount:
        assert (mount.path / "file").read_bytes() == b"content"
        calls: list[Callable[[], object]] = [
            lambda: (mount.path / "new").touch(),
            lambda: (mount.path / "file").write_bytes(b""),
            lambda: (mount.path / "file").unlink(),
            lambda: (mount.path / "directory").mkdir(),
            lambda: (mount.path / "file").rename(mount.path / "other"),
            lambda: (mount.path / "file").chmod(0o600),
        ]
        for call in calls:
            with pytest.raises(OSError, match="Read-only file system"):
                call()


def test_owners_and_permissions_are_for_show(mount_store: Mounter) -> None:
    with mount_store("--uid", "1234", "--gid", "2345", "--umask", "027") as mount:
        (mount.path / "file").touch()
        (mount.path / "directory").mkdir()
        for path in (mount.path, mount.path / "file", mount.path / "directory"):
            assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
        assert (mount.path / "directory").stat().st_mode & 0o777 == 0o750
        assert mount.path.stat().st_mode & 0o777 == 0o750


def test_a_mount_in_the_background(store: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    try:
        done = run(store, "-v", "mount", "--background", "--log-file", str(log), str(mountpoint))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.path.ismount(mountpoint)
        blob = mountpoint / "blobs" / "sha256" / ("0" * 64)
        blob.parent.mkdir(parents=True)
        with pytest.raises(OSError, match="Input/output error"):
            blob.write_bytes(b"not that")
        wait_until(lambda: "content has digest" in log.read_text(), "the refusal is logged")
        [line] = [line for line in log.read_text().splitlines() if "content has digest" in line]
        logged = datetime.fromisoformat(line.partition(" WARNING ")[0])
        assert timedelta(0) <= datetime.now(UTC) - logged < timedelta(seconds=TIMEOUT)
        again = run(store, "mount", "--background", str(mountpoint))
        assert again.returncode == os.EX_TEMPFAIL
        assert is_one_line(again.stderr)
        assert run(store, "umount", str(mountpoint)).returncode == 0
        wait_until(lambda: mountpoint not in mount_points(), "it is unmounted")
    finally:
        unmount(mountpoint)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit(37)", 37),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("os.close(os.open('file', os.O_CREAT))", 0),
    ],
)
def test_a_command_has_the_store_and_its_status_is_ours(
    store: Path, mountpoint: Path, code: str, status: int
) -> None:
    command = [sys.executable, "-c", f"import os; os.chdir({str(mountpoint)!r})\n{code}"]
    done = run(store, "mount", str(mountpoint), "--", *command)
    assert (done.returncode, done.stderr) == (status, "")
    assert mountpoint not in mount_points()
    assert (store / "layouts" / "file").exists() == ("file" in code)


def test_a_command_that_unmounts_is_waited_for(store: Path, mountpoint: Path) -> None:
    unmount = shlex.join([*command_line(store, "umount", str(mountpoint))])
    done = run(store, "mount", str(mountpoint), "--", "sh", "-c", f"{unmount} && exit 7")
    assert (done.returncode, done.stderr) == (7, "")


def test_what_cannot_be_run_is_said_in_one_line(
    store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("#!/there/is/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    for command in ("no-such-program-anywhere", str(tmp_path / "script")):
        done = run(store, "mount", str(mountpoint), "--", command)
        assert done.returncode in (os.EX_NOINPUT, os.EX_IOERR), done
        assert is_one_line(done.stderr), done.stderr
        assert mountpoint not in mount_points()


def test_a_commands_mount_is_its_own(store: Path, mountpoint: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets a mount of its own")
    ready, go = tmp_path / "ready", tmp_path / "go"
    for fifo in (ready, go):
        os.mkfifo(fifo)
    script = f"ls {mountpoint} > /dev/null && mountpoint {mountpoint} > {ready}; read x < {go}"
    with subprocess.Popen(
        command_line(store, "mount", str(mountpoint), "--", "sh", "-c", script), env=environment()
    ) as process:
        assert "is a mountpoint" in ready.read_text()
        assert mountpoint not in mount_points()
        go.write_text("x\n")
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_gets_our_signals(store: Path, mountpoint: Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(21))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    command = command_line(store, "mount", str(mountpoint), "--", sys.executable, "-c", code)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 21
    assert mountpoint not in mount_points()


def test_a_dead_mount_is_replaced(mount_store: Mounter) -> None:
    with mount_store() as mount:
        (mount.path / "file").write_bytes(b"content")
        mount.kill()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount.path)
        with mount_store() as again:
            assert (again.path / "file").read_bytes() == b"content"
            assert again.log.matching("^WARNING .*dead mount")
    assert mount.path not in mount_points()


def test_umount_clears_a_dead_mount(mount_store: Mounter) -> None:
    with mount_store() as mount:
        mount.kill()
        assert run(mount.store, "umount", str(mount.path)).returncode == 0
        assert mount.path not in mount_points()


class Builds:
    """Two builds after another until the mount is gone, and what they were told is committed."""

    def __init__(self, directory: Path, mount: Path, base: GeneratedImage, first: int) -> None:
        self.committed: dict[str, bytes] = {}
        self.is_over = threading.Event()
        self._directory, self._mount, self._base = directory, mount, base
        self._threads = [
            threading.Thread(target=self._work, args=(range(start, start + 20_000, 2),))
            for start in (first, first + 1)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _work(self, seeds: range) -> None:
        for seed in seeds:
            try:
                self._build(f"app-{seed}", seed)
            except (OSError, shutil.Error):
                break
        self.is_over.set()

    def _build(self, name: str, seed: int) -> None:
        source, target = self._directory / name, self._mount / name
        app = image_layout(source, seed=seed, layers=1, layer_size=90_000, base=self._base)
        if seed % 2:
            write_image(target, image_of(app, base=self._base.path, base_layers=2))
        else:
            shutil.copytree(app.path, target)
        self.committed[name] = (target / "index.json").read_bytes()


def test_death_at_any_moment_loses_nothing_that_was_committed(
    mount_store: Mounter, tmp_path: Path
) -> None:
    base = image_layout(tmp_path / "base", seed=1, layers=2, layer_size=200_000)
    dice, store = random.Random(20), tmp_path / "store"
    committed: dict[str, bytes] = {}
    for generation in range(12):
        with mount_store() as mount:
            for name, index in committed.items():
                assert (mount.path / name / "index.json").read_bytes() == index
            directory = tmp_path / str(generation)
            builds = Builds(directory, mount.path, base, 20_000 * generation)
            wait_for_files(mount.layouts, dice.randrange(1, 60), builds.is_over)
            mount.kill()
            builds.join()
        committed.update(builds.committed)
        broken = [v for v in violations(store, sparse=True) if not is_half_made(v, committed)]
        assert broken == []
        for name, index in committed.items():
            assert (store / "layouts" / name / "index.json").read_bytes() == index
    assert committed


def wait_for_files(path: Path, count: int, is_over: threading.Event) -> None:
    """Return once there are so many more files below a directory than there were."""
    before = len(list(path.rglob("*")))
    wait_until(lambda: is_over.is_set() or len(list(path.rglob("*"))) >= before + count, "files")


def is_half_made(violation: str, committed: dict[str, bytes]) -> bool:
    """Tell whether a violation is that of a layout whose marker nobody got to write."""
    name = re.search(r"app-\d+", violation)
    return name is not None and name[0] not in committed and "oci-layout" in violation
