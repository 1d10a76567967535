"""A directory of layouts on a file system without links, owners and unnamed files.

exFAT is one in user space, which needs nothing of the kernel but FUSE; not every kernel has vfat.
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import ocistow
from ocistow.lifecycle.console import Console
from ocistow.lifecycle.export import export
from ocistow.lifecycle.targets.layout import open_layouts
from ocistow.store.named_disk import NamedDisk
from ocistow.store.reading import open_directory
from ocistow.testing.builds import build
from ocistow.testing.images import image_layout

from ..conftest import program

APP = "example.com/app"
FILE_SYSTEMS = [
    pytest.param(("exfat-fuse", "mkfs.exfat"), marks=pytest.mark.fuse, id="exfat"),
    *(
        pytest.param(("vfat", "mkfs.vfat"), id="vfat")
        for line in Path("/proc/filesystems").read_text().splitlines()
        if line == "\tvfat"
    ),
]
WRITER = """
import sys
from ocistow.store.named_disk import NamedDisk
from ocistow.store.reading import open_directory
NamedDisk().create(open_directory(sys.argv[1]))
print("writing", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=FILE_SYSTEMS)
def fat(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    mounting, making = request.param
    image, path = tmp_path / "fat.img", tmp_path / "fat"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    path.mkdir()
    subprocess.run([program(making), image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([program("mount"), "-t", mounting, "-o", "loop", image, path], check=True)
    try:
        yield path
    finally:
        subprocess.run([program("umount"), "--lazy", path], check=True)


def killed(directory: Path) -> None:
    """Begin to write a file in a directory, and be killed an hour ago."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ocistow.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
    make_old(directory)


def make_old(directory: Path) -> None:
    for left in directory.glob(".unfinished-*"):
        os.utime(left, (then := time.time() - 3600, then))


def test_an_image_is_exported_and_what_a_killed_exporter_left_is_removed(
    fat: Path, tmp_path: Path
) -> None:
    made = build(tmp_path / "build")
    run = image_layout(fat / "example.com" / "run" / "latest")
    made.analyzed(f"{run.path}@{run.manifest}")
    layout = fat / APP / "latest"
    for content in ("first", "second"):
        (made.app / "index.html").write_text(content)
        with open_layouts(fat) as target:
            saved = export(made.inputs(APP), target, Console(io.BytesIO()))
            with target.find(APP) as image:
                assert image is not None
                assert image.root.digest == saved.digest
                for layer in image.layers:
                    image.source.open(layer.blob).close()
        assert not list(fat.rglob(".*"))
        for directory in (layout, layout / "blobs" / "sha256"):
            killed(directory)
        assert len(list(fat.rglob(".unfinished-*"))) == 2
    disk, blobs = NamedDisk(), open_directory(layout / "blobs" / "sha256")
    file = disk.create(blobs)
    make_old(layout / "blobs" / "sha256")
    with open_layouts(fat) as target:
        export(made.inputs(APP), target, Console(io.BytesIO()))
    assert len(list(fat.rglob(".unfinished-*"))) == 1  # its writer lives
    disk.close(file)
    os.close(blobs)
    assert not list(fat.rglob(".*"))
