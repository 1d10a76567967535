"""Real file systems in sparse image files, mounted for a block; read-only and full ones, too."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 60.0  # seconds; making and mounting one takes some milliseconds
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

_STEP = 1 << 20  # bytes; the largest piece that fills a file system
_SMALLEST = 512  # bytes


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file system is made.

    Attributes:
        type: what mount(8) calls it.
        make: the command that makes it in an image file.
        size: of the image in bytes, the least that is comfortable; it takes far less of the disk.
    """

    type: str
    make: tuple[str, ...]
    size: int

    @property
    def in_user_space(self) -> bool:
        """Tell whether a process of ours is the file system, by FUSE."""
        return self.type.endswith("-fuse")


KINDS = {
    "ext4": Kind("ext4", ("mkfs.ext4", "-q", "-m0"), 64 << 20),  # hard links, at most 65,000
    "xfs": Kind("xfs", ("mkfs.xfs", "-q"), 300 << 20),  # hard links and reflinks
    "btrfs": Kind("btrfs", ("mkfs.btrfs", "-q"), 128 << 20),  # likewise
    "exfat": Kind("exfat-fuse", ("mkfs.exfat",), 32 << 20),  # no links, owners or unnamed files
    "tmpfs": Kind("tmpfs", (), 64 << 20),  # hard links; no image at all
}


class Unavailable(Exception):
    """What this machine, or its user, lacks to mount a file system."""


@contextmanager
def mounted(
    kind: str, path: Path, *, size: int | None = None, options: str = ""
) -> Generator[Path]:
    """Make a file system and mount it for the block, at a directory that is made.

    Its image lies beside the directory until the block ends. What still runs there then keeps
    it, but no longer by its path. The loop device goes with the last user.

    Args:
        kind: one of `KINDS`.
        path: of the directory, which may be there and empty.
        size: of the image in bytes.
        options: for mount(8), such as `ro`.

    Raises:
        Unavailable: nobody but root can mount; or a program, the kernel's part, or loop devices
            are missing.
    """
    path.mkdir(parents=True, exist_ok=True)
    image = path.with_name(f"{path.name}.img")
    try:
        if kind == "tmpfs":
            _needs("mount", "umount")
            sized = ",".join(filter(None, (options, f"size={size or KINDS[kind].size}")))
            with _attached(kind, kind, path, sized):
                yield path
        else:
            make(kind, image, size)
            with mounted_image(kind, image, path, options=options):
                yield path
    finally:
        image.unlink(missing_ok=True)


def make(kind: str, image: Path, size: int | None = None) -> None:
    """Make a file system in an image file, whose content it takes the place of.

    Raises:
        Unavailable: a program is missing.
    """
    how = KINDS[kind]
    _needs(how.make[0])
    with image.open("wb") as file:
        file.truncate(size or how.size)
    _run(*how.make, str(image))


@contextmanager
def mounted_image(kind: str, image: Path, path: Path, *, options: str = "") -> Generator[Path]:
    """Mount an image file for the block, at a directory that is made, as `mounted` does.

    Raises:
        Unavailable: as `mounted` does.
    """
    how = KINDS[kind]
    _needs("mount", "umount", *((f"mount.{how.type}",) if how.in_user_space else ()))
    with _attached(how.type, str(image), path, ",".join(filter(None, (options, "loop")))):
        yield path


@contextmanager
def _attached(type_: str, source: str, path: Path, options: str) -> Generator[None]:
    path.mkdir(parents=True, exist_ok=True)
    try:
        try:
            _run("mount", "-t", type_, "-o", options, source, str(path))
        except subprocess.CalledProcessError as error:
            if "unknown filesystem type" in error.stderr or "loop device" in error.stderr:
                raise Unavailable(error.stderr.strip()) from error
            raise
        try:
            yield
        finally:
            unmount(path)
    finally:
        path.rmdir()


@contextmanager
def read_only(path: Path) -> Generator[Path]:
    """Let nobody write below a directory for the block; files that are open stay writable.

    A hard link from outside, or to there, fails with EXDEV, since that is another mount then.

    Raises:
        Unavailable: nobody but root can mount.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root, to mount")
    _run("mount", "--bind", str(path), str(path))
    try:
        _run("mount", "-o", "remount,bind,ro", str(path))
        yield path
    finally:
        unmount(path)


@contextmanager
def full(path: Path, *, left: int = 0) -> Generator[Path]:
    """Leave about `left` bytes on the file system of a directory for the block.

    The file that takes the others is named by none of ours. Names may still fit, as in the
    inodes that are there already.
    """
    ballast = path / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            step = _STEP
            while step >= _SMALLEST:
                try:
                    file.write(b"x" * step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
            file.truncate(max(0, file.tell() - left))
            with suppress(OSError):
                os.fsync(file.fileno())  # what is allocated late must not fail in the block
        yield path
    finally:
        ballast.unlink(missing_ok=True)


def unmount(path: Path) -> None:
    """Take a file system away, at once where nobody uses it and else when nobody does."""
    try:
        _run("umount", str(path))
    except subprocess.CalledProcessError:
        _run("umount", "--lazy", str(path))


def _needs(*programs: str) -> None:
    if os.geteuid() != 0:
        raise Unavailable("needs root, to mount")
    for program in programs:
        if shutil.which(program, path=PATH) is None:
            raise Unavailable(f"needs {program}")


def _run(*command: str) -> None:
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PATH": PATH, "LC_ALL": "C"},
    )
