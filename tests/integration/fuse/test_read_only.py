"""Mounts of stores that are, or are to be, only read."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage
from ocistow.testing.mounts import command_line, mount_points, mounted, run, unmount
from ocistow.testing.strangers import UID, home, run_as_stranger

from .conftest import Mounter

pytestmark = pytest.mark.fuse

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, or become somebody else")
NAME = Path("registry.example", "app", "1")


@contextmanager
def protected(path: Path) -> Generator[None]:
    """Let nobody change what is below a directory."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def filled(store: Path, image: GeneratedImage) -> Path:
    Store.create(store).close()
    done = run(store, "add", f"oci:{image.path}:latest", "registry.example/app:1")
    assert done.returncode == 0, done
    return store


def everything(path: Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(file), file.stat().st_mtime_ns, file.stat().st_ino) for file in path.rglob("*")
    )


def assert_readable(mount: Path, image: GeneratedImage) -> None:
    subprocess.run(["diff", "-r", image.path / "blobs", mount / NAME / "blobs"], check=True)
    virtual = mount / "registry.example" / "blobs" / "sha256" / image.layers[0].encoded
    assert not virtual.exists()  # nothing has a directory for it, and none can be made


def test_a_read_only_mount_changes_nothing_in_the_store(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    store = filled(tmp_path / "store", image)
    shutil.rmtree(store / "leases")
    (store / "layouts" / "empty" / "blobs" / "sha256").mkdir(parents=True)
    before = everything(store)
    with mount_store("--read-only") as mount:
        assert_readable(mount.path, image)
        blob = mount.path / "empty" / "blobs" / "sha256" / image.layers[0].encoded
        assert len(blob.read_bytes()) == blob.stat().st_size  # virtually there
        assert mount.warnings == []
    assert everything(store) == before


@ROOT
@pytest.mark.parametrize("options", [("--read-only",), ()], ids=["asked", "not asked"])
def test_a_store_on_a_read_only_file_system_is_mounted_read_only(
    fuse: None, image: GeneratedImage, tmp_path: Path, options: tuple[str, ...]
) -> None:
    store = filled(tmp_path / "store", image)
    with protected(store), mounted(store, tmp_path / "mnt", *options) as mount:
        assert_readable(mount.path, image)
        with pytest.raises(OSError, match="Read-only file system"):
            (mount.path / "file").touch()
        said = [] if options else [f"{store} may only be read, and is mounted so"]
        assert [line.partition(": ")[2] for line in mount.warnings] == said


@ROOT
def test_a_read_only_store_in_the_background_has_no_log_of_its_own(
    fuse: None, image: GeneratedImage, tmp_path: Path
) -> None:
    store = filled(tmp_path / "store", image)
    (tmp_path / "mnt").mkdir()
    with protected(store):
        try:
            done = run(store, "mount", "--read-only", "--background", str(tmp_path / "mnt"))
            assert done.returncode == 0, done
            assert done.stderr.count("\n") == 1
            assert f"messages go nowhere: {store} may only be read" in done.stderr
            assert_readable(tmp_path / "mnt", image)
        finally:
            unmount(tmp_path / "mnt")


@ROOT
def test_a_store_of_another_user_is_mounted_read_only(fuse: None, image: GeneratedImage) -> None:
    with home() as path:
        store = filled(path / "store", image)
        (path / "mnt").mkdir()
        line = command_line(
            store, "mount", str(path / "mnt"), "--", "sh", "-c", "cat $0/index.json; touch $0/new"
        )
        done = run_as_stranger(*line, path / "mnt" / NAME)
        assert done.stdout == (store / "layouts" / NAME / "index.json").read_text()
        assert "may only be read" in done.stderr
        assert "Read-only file system" in done.stderr
        assert not [file for file in store.rglob("*") if file.stat().st_uid == UID]


def test_no_store_is_made_to_be_read_only(fuse: None, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = run(tmp_path / "store", "mount", "--read-only", str(tmp_path / "mnt"))
    assert done.returncode == os.EX_NOINPUT
    assert done.stderr == f"ocistow: a store at {tmp_path / 'store'}: not found\n"
    assert not (tmp_path / "store").exists()
    assert tmp_path / "mnt" not in mount_points()
