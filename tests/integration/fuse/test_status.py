"""What a running mount tells of itself, to whom, and whatever it is busy with."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocistow.fusefs.health.status import PREFIX
from ocistow.testing.descriptors import open_files
from ocistow.testing.images import GeneratedImage
from ocistow.testing.layout_writer import image_of, write_image
from ocistow.testing.mounts import Mount, command_line, environment, mounted, run

from .conftest import Mounter

pytestmark = pytest.mark.fuse


def status_of(mount: Mount) -> Any:
    done = run(mount.store, "mount", "--status", "--json", str(mount.path))
    assert (done.returncode, done.stderr) == (0, "")
    [status] = json.loads(done.stdout)["mounts"]
    return status


def addresses(pid: int) -> list[str]:
    """Return where a process tells its status."""
    own = {name for _, name in open_files(pid)}
    found = re.findall(rf"(\d+) @({PREFIX}.*)", Path("/proc/net/unix").read_text())
    return [address for inode, address in found if f"socket:[{inode}]" in own]


def test_what_became_of_content_is_counted(mount_store: Mounter, image: GeneratedImage) -> None:
    with mount_store() as mount:
        shutil.copytree(image.path, mount.path / "first")
        written = status_of(mount)["content"]
        sizes = [(image.path / "blobs" / "sha256" / d.encoded).stat().st_size for d in image.layers]
        assert written["committed"]["files"] == len(image.layers) + 2
        assert written["committed"]["bytes"] > sum(sizes)
        assert written["saved"] == {"files": 0, "bytes": 0}
        # a writer that looks, and finds all of it there
        write_image(mount.path / "second", image_of(image, base=image.path, base_layers=3))
        saved = status_of(mount)["content"]["saved"]
        assert saved == written["committed"]
        layer = image.layers[0].encoded
        blob = mount.path / "third" / "blobs" / "sha256" / layer
        blob.parent.mkdir(parents=True)
        blob.write_bytes((image.path / "blobs" / "sha256" / layer).read_bytes())
        wrong = blob.with_name("0" * 64)
        with pytest.raises(OSError, match="Input/output"):
            wrong.write_bytes(b"wrong")
        mount.log.wait_for("^WARNING .*refused")
        content = status_of(mount)["content"]
        assert content["present"]["files"] >= 1
        assert content["refused"] == {"files": 1, "bytes": 5}
        for beside in (blob.parent.parent / "temporary", mount.path / "third" / "oci-put-blob1"):
            beside.write_bytes(b"wrong")
            with pytest.raises(OSError, match="Input/output"):
                beside.rename(wrong)
            beside.unlink()
        (mount.path / "third" / "index").write_bytes(b"wrong")
        with pytest.raises(OSError, match="Input/output"):
            (mount.path / "third" / "index").rename(mount.path / "third" / "index.json")
        assert status_of(mount)["content"]["refused"] == {"files": 4, "bytes": 20}


def test_what_is_written_all_the_same_was_not_saved(
    mount_store: Mounter, image: GeneratedImage
) -> None:
    with mount_store() as mount:
        shutil.copytree(image.path, mount.path / "first")
        committed = status_of(mount)["content"]["committed"]
        (mount.path / "second").mkdir()
        for name in ("oci-layout", "index.json"):
            shutil.copyfile(image.path / name, mount.path / "second" / name)
        assert status_of(mount)["content"]["saved"] == committed
        subprocess.run(["cp", "-a", f"{image.path}/.", mount.path / "second"], check=True)
        content = status_of(mount)["content"]
        assert content["saved"] == {"files": 0, "bytes": 0}
        assert content["present"] == content["committed"] == committed


def test_requests_and_what_is_kept_are_told(mount_store: Mounter) -> None:
    with mount_store() as mount:
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / "absent")
        with (mount.path / "file").open("wb") as file:
            file.write(b"content")
            file.flush()
            status = status_of(mount)
        assert status["pid"] == mount.pid
        assert status["store"] == str(mount.store)
        assert status["kept"]["handles"] == 1
        assert status["kept"]["inodes"] >= 2
        assert status["errors"]["ENOENT"] >= 1
        assert status["requests"] == {"underWay": 0, "oldestSeconds": 0}
        for name in ("lookup", "create", "write", "getattr"):
            times = status["operations"][name]
            assert times["count"] >= 1
            assert 0 < times["p50Seconds"] <= times["p99Seconds"] <= times["longestSeconds"] < 30


def test_every_mount_of_a_store_is_told_and_each_by_its_place(
    mount_store: Mounter, tmp_path: Path
) -> None:
    with mount_store() as mount, mounted(mount.store, tmp_path / "two", "--read-only") as other:
        with mounted(tmp_path / "another", tmp_path / "three"):
            done = run(mount.store, "mount", "--status")
        assert done.returncode == 0, done.stderr
        assert str(mount.path) in done.stdout
        assert str(other.path) in done.stdout
        assert "read-only" in done.stdout
        assert "three" not in done.stdout
        (tmp_path / "link").symlink_to(other.path)
        done = run(mount.store, "mount", "--status", str(tmp_path / "link"))
        assert done.stdout.splitlines()[0].strip() == str(other.path), done.stderr
        done = run(mount.store, "mount", "--status", str(tmp_path / "nowhere"))
        assert done.returncode == os.EX_NOINPUT
        assert done.stderr == f"ocistow: a running mount at {tmp_path / 'nowhere'}: not found\n"


def test_prometheus_reads_it(mount_store: Mounter) -> None:
    with mount_store() as mount:
        (mount.path / "file").write_bytes(b"content")
        done = run(mount.store, "mount", "--status", "--prometheus", str(mount.path))
    assert done.returncode == 0, done.stderr
    families = set[str]()
    for line in done.stdout.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert kind in ("gauge", "counter", "summary")
            assert name not in families
            families.add(name)
        else:
            sample = re.fullmatch(r'(\w+)\{\w+="[^"]*"(?:,\w+="[^"]*")*\} [0-9.e+-]+', line)
            assert sample is not None, line
            assert re.sub("_(sum|count)$", "", sample[1]) in families
    assert 'what="saved"' in done.stdout


def test_a_status_needs_the_owner_and_nothing_else(mount_store: Mounter) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with mount_store() as mount:
        [address] = addresses(mount.pid)
        code = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
            "client = socket.socket(socket.AF_UNIX); client.connect('\\0' + sys.argv[1]);"
            "sys.exit(len(client.recv(1)))"
        )
        assert subprocess.run([sys.executable, "-c", code, address], check=False).returncode == 0
        with socket.socket(socket.AF_UNIX) as silent:  # who does not read keeps nobody waiting
            silent.connect(f"\0{address}")
            assert status_of(mount)["pid"] == mount.pid
        mount.kill()
        assert address not in Path("/proc/net/unix").read_text()


def test_a_stuck_mount_tells(mount_store: Mounter, fuse: None, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from ocistow.cli.main import main\n"
        "from ocistow.fusefs.filesystem import FileSystem\n"
        "async def readlink(self, inode):\n"
        "    time.sleep(1000)\n"
        "FileSystem.readlink = readlink\n"
        "sys.argv[0] = 'ocistow'\n"
        "main()\n"
    )
    (tmp_path / "mnt").mkdir()
    _, _, _, *words = command_line(tmp_path / "store", "mount", str(tmp_path / "mnt"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env=environment()
    )
    mount = Mount(tmp_path / "store", tmp_path / "mnt", process)
    try:
        mount.wait_until_usable()
        (mount.path / "link").symlink_to("nowhere")
        reading = subprocess.Popen(["readlink", str(mount.path / "link")])
        while status_of(mount)["requests"]["underWay"] == 0:
            pass
        mount.kill()
        assert reading.wait(60) != 0
    finally:
        if mount.is_alive:
            mount.kill()
        mount.end()


def test_no_status_is_left_when_a_mount_ends(mount_store: Mounter) -> None:
    with mount_store() as mount:
        [address] = addresses(mount.pid)
        mount.stop(signal.SIGINT)
        assert address not in Path("/proc/net/unix").read_text()
