"""What containers make of a mount: bind mounts, overlays, other roots, other processes."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.layout_writer import image_of, write_image
from ocistow.testing.mounts import (
    TIMEOUT,
    Mount,
    command_line,
    environment,
    is_usable,
    unmount,
    wait_until,
)

from .conftest import Run

pytestmark = pytest.mark.fuse

Bind = Callable[..., Path]


@pytest.fixture
def bind(tmp_path: Path) -> Generator[Bind]:
    """Mount something at a new directory until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a directory elsewhere")
    with ExitStack() as mounts:

        def bind(name: str, *arguments: object) -> Path:
            target = tmp_path / name
            target.mkdir(parents=True)
            command = ["mount", *map(str, arguments), str(target)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            mounts.callback(unmount, target)
            return target

        yield bind


def files_below(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_build_sees_two_images_and_no_others(
    here: Path, image: GeneratedImage, tmp_path: Path, bind: Bind, shared_mount: Mount
) -> None:
    """As pack mounts them: the run image to read, the app image to write."""
    app = image_layout(
        tmp_path / "source", seed=1, layers=4, layer_size=100_000
    )  # whose lowest layers are those of the run image
    shutil.copytree(image.path, here / "run")
    (here / "app").mkdir()
    run = bind("oci/run", "--bind", "-o", "ro", here / "run")
    target = bind("oci/app", "--bind", here / "app")
    assert files_below(run) == files_below(image.path)
    with pytest.raises(OSError, match="Read-only"):
        (run / "index.json").write_bytes(b"{}")
    report = write_image(target, image_of(app, base=run, base_layers=3))
    assert set(report.skipped) == set(app.layers[:3]) & set(image.layers)
    assert files_below(target) == files_below(shared_mount.layouts / here.name / "app")
    with pytest.raises(OSError, match="cross-device"):
        (target / "index.json").rename(run.parent / "index.json")
    assert (target / ".." / "run").samefile(run)


def test_an_overlay_over_a_mount_leaves_it_alone(
    here: Path, image: GeneratedImage, tmp_path: Path, bind: Bind
) -> None:
    shutil.copytree(image.path, here / "layout")
    before = files_below(here)
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir={here},upperdir={upper},workdir={work}"
    overlay = bind("overlay", "-t", "overlay", "overlay", "-o", options)
    assert files_below(overlay) == before
    blob = overlay / "layout" / "blobs" / "sha256" / image.config.encoded
    blob.write_bytes(b"something else")
    (overlay / "layout" / "index.json").unlink()
    (overlay / "layout" / "blobs" / "sha256" / image.manifest.encoded).rename(overlay / "moved")
    assert blob.read_bytes() == b"something else"
    assert not (overlay / "layout" / "index.json").exists()
    assert files_below(here) == before


def test_a_mount_is_no_upper_directory(here: Path, tmp_path: Path) -> None:
    """It has no extended attributes and no whiteouts: the kernel says so, and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount an overlay")
    for name in ("lower", "overlay"):
        (tmp_path / name).mkdir()
    for name in ("upper", "work"):
        (here / name).mkdir()
    options = f"lowerdir={tmp_path / 'lower'},upperdir={here / 'upper'},workdir={here / 'work'}"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "overlay")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert not os.path.ismount(tmp_path / "overlay")


def test_another_root(here: Path, run_tool: Run, bind: Bind) -> None:
    """Chroot to a directory of the mount: a program, its libraries, and a way up that ends."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    (here / "bin").mkdir()
    shutil.copy(busybox, here / "bin" / "sh")
    (here / "inside").write_text("inside\n")
    script = "read line < ../../inside; echo $line > /file; cd /..; echo *"
    assert run_tool("chroot", here, "/bin/sh", "-c", script) == "bin file inside\n"
    assert (here / "file").read_text() == "inside\n"


def test_a_container_with_the_mount_inside(
    here: Path, image: GeneratedImage, tmp_path: Path, run_tool: Run, bind: Bind
) -> None:
    """runc: another root, other namespaces, another user without any capability."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    root = tmp_path / "bundle" / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "sh")
    run_tool("runc", "spec", cwd=root.parent)
    config = json.loads((root.parent / "config.json").read_text())
    shutil.copytree(image.path, here / "image")
    script = """
        set -e
        cd /oci
        mkdir copy
        tar -C image -cf - . | tar -C copy -xf -
        cd copy/blobs/sha256
        sha256sum * | while read sum name; do test $sum = $name; done
        echo wrong > /oci/wrong
        mv /oci/wrong $(echo other | sha256sum | cut -c1-64) || echo refused
        mv /oci/copy /oci/moved
    """
    config["process"] |= {
        "terminal": False,
        "args": ["/bin/sh", "-c", script],
        "user": {"uid": 1234, "gid": 1234},
        "capabilities": {},
    }
    config["mounts"].append(
        {"destination": "/oci", "type": "bind", "source": str(here), "options": ["bind", "rw"]}
    )
    (root.parent / "config.json").write_text(json.dumps(config))
    for name in ("mkdir", "tar", "sha256sum", "cut", "mv"):
        (root / "bin" / name).symlink_to("sh")
    state = tmp_path / "runc"
    said = run_tool("runc", "--root", state, "run", f"ocistow-{os.getpid()}", cwd=root.parent)
    assert "refused" in said
    assert files_below(here / "moved") == files_below(image.path)


def test_clients_whose_processes_the_server_does_not_see(tmp_path: Path, engine: str) -> None:
    """They have no number that the kernel could tell, so none is known from the others."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a server in a PID namespace of its own")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    command = command_line(tmp_path / "store", "mount", f"--engine={engine}", str(mountpoint))
    apart = ["unshare", "--pid", "--fork", "--kill-child", *command]
    with subprocess.Popen(apart, env=environment()) as server:
        try:
            wait_until(lambda: is_usable(mountpoint), "it is mounted")
            blobs = mountpoint / "image" / "blobs" / "sha256"
            blobs.mkdir(parents=True)

            def write(number: int) -> None:
                content = b"%d" % (number % 4)
                blob = blobs / hashlib.sha256(content).hexdigest()
                for _ in range(20):
                    blob.write_bytes(content)  # which empties it first

            with ThreadPoolExecutor(4) as clients:
                list(clients.map(write, range(4)))
        finally:
            unmount(mountpoint)
            server.wait(TIMEOUT)
