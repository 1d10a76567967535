"""`ocistow mount --sub`: one registry, repository or image of a store, and nothing else."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

import pytest

from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage
from ocistow.testing.invariants import violations
from ocistow.testing.layout_writer import image_of, write_image
from ocistow.testing.mounts import mounted, run, wait_until

from .conftest import Mounter

pytestmark = pytest.mark.fuse

REPOSITORY = "registry.example/team/app"


def test_a_repository_is_all_there_is(mount_store: Mounter, image: GeneratedImage) -> None:
    with mount_store() as mount:
        shutil.copytree(image.path, mount.path / "registry.example" / "other" / "latest")
    with mount_store("--sub", REPOSITORY) as mount:
        assert list(mount.path.iterdir()) == []
        assert os.listdir(mount.path / "..") == os.listdir(mount.path.parent)
        write_image(mount.path / "1", image_of(image))
        assert os.listdir(mount.path) == ["1"]
        blob = mount.path / "2" / "blobs" / "sha256" / image.layers[0].encoded
        blob.parent.mkdir(parents=True)
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name  # of the other image
        with pytest.raises(OSError, match="Input/output error"):
            (blob.parent / ("0" * 64)).write_bytes(b"not that")
        with pytest.raises(PermissionError):
            blob.with_name("link").symlink_to(blob)
        listed = run(mount.store, "ls", "--quiet").stdout.split()
        assert listed == ["registry.example/other:latest", f"{REPOSITORY}:1"]
    assert violations(mount.store, sparse=True) == []


def test_an_image_may_be_all_there_is(mount_store: Mounter, image: GeneratedImage) -> None:
    """Then its index lies in the root of the mount, and is as guarded as elsewhere."""
    with mount_store("--sub", f"{REPOSITORY}/1/") as mount:
        with pytest.raises(OSError, match="Input/output error"):
            (mount.path / "index.json").write_text("{")
        for name in ("index.json", "oci-layout", "blobs"):  # before its blobs: it waits for them
            source = image.path / name
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, mount.path / name)
        assert run(mount.store, "ls", "--quiet").stdout.split() == [f"{REPOSITORY}:1"]
        temporary = mount.path / "new"
        temporary.write_bytes((mount.path / "index.json").read_bytes() + b"\n")
        temporary.rename(mount.path / "index.json")
        assert (mount.layouts / REPOSITORY / "1" / "index.json").read_bytes().endswith(b"\n")
    assert violations(mount.store) == []
    with mount_store("--sub", f"{REPOSITORY}/1", "--read-only") as mount:
        subprocess.run(["diff", "-r", mount.path, mount.layouts / REPOSITORY / "1"], check=True)


def test_an_image_in_the_root_of_everything_has_no_name(mount_store: Mounter) -> None:
    with mount_store() as mount, pytest.raises(PermissionError):
        (mount.path / "index.json").write_text("{}")


def test_several_mounts_of_a_store_see_each_other(
    mount_store: Mounter, image: GeneratedImage, tmp_path: Path
) -> None:
    with (
        mount_store() as whole,
        mounted(whole.store, tmp_path / "part", "--sub", REPOSITORY) as part,
    ):
        write_image(part.path / "1", image_of(image))
        seen = whole.path / REPOSITORY / "1" / "index.json"
        wait_until(seen.exists, "the image is there")
        assert seen.read_bytes() == (part.path / "1" / "index.json").read_bytes()
        for layer in image.layers:
            (seen.parent / "blobs" / "sha256" / layer.encoded).stat()
        assert len(list((whole.store / "leases").iterdir())) == 2


def test_the_death_of_a_mount_takes_nothing_from_another(
    mount_store: Mounter, tmp_path: Path
) -> None:
    """Both write the same blob, and both were told that another is there."""
    content, pooled = b"content " * 1000, b"pooled"
    with mount_store() as one, mounted(one.store, tmp_path / "two") as two:
        with Store.open(one.store) as store:
            known = store.blobs.add([pooled]).encoded
        files = list[BinaryIO]()
        for mount in (one, two):
            blobs = mount.path / mount.path.name / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            assert (blobs / known).stat().st_size == len(pooled)
            files.append((blobs / hashlib.sha256(content).hexdigest()).open("wb", buffering=0))
            files[-1].write(content[:4000])
        two.kill()
        assert run(one.store, "gc", "--grace", "0").returncode == 0
        with files[0] as file:
            file.write(content[4000:])
        with pytest.raises(OSError, match="connect"), files[1] as file:
            file.write(content[4000:])
        names = one.path / one.path.name / "blobs" / "sha256"
        assert (names / hashlib.sha256(content).hexdigest()).read_bytes() == content
        assert (names / known).read_bytes() == pooled
    assert violations(one.store, sparse=True) == []


@pytest.mark.parametrize(
    ("sub", "status", "words"),
    [
        ("..", os.EX_DATAERR, "not a path below the layout root: '..'"),
        ("link/below", os.EX_DATAERR, "'link' is not a directory"),
        ("app/blobs/sha256", os.EX_DATAERR, "app/blobs/sha256 is a directory of blobs"),
    ],
)
def test_what_is_no_part_of_a_store_is_refused(
    fuse: None, tmp_path: Path, sub: str, status: int, words: str
) -> None:
    store = tmp_path / "store"
    with Store.create(store):
        (store / "layouts" / "link").symlink_to(tmp_path)
        (store / "layouts" / "file").touch()
    (tmp_path / "mnt").mkdir()
    done = run(store, "mount", "--background", "--sub", sub, str(tmp_path / "mnt"))
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert words in done.stderr


def test_a_part_that_is_absent_is_made_unless_it_is_only_to_be_read(
    mount_store: Mounter, tmp_path: Path
) -> None:
    with mount_store("--sub", "a/b"):
        pass
    assert (tmp_path / "store" / "layouts" / "a" / "b").is_dir()
    done = run(tmp_path / "store", "mount", "--read-only", "--sub", "a/c", str(tmp_path / "mnt"))
    assert (done.returncode, done.stderr) == (os.EX_NOINPUT, "ocistow: a/c: not found\n")
