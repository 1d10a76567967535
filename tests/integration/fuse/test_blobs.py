"""Blobs on the mount: what a name lets in, and what can be done with what is in."""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from blake3 import blake3

from ocistow.testing.mounts import Mount

Mounter = Callable[..., AbstractContextManager[Mount]]

pytestmark = pytest.mark.fuse

CONTENT = random.Random(1).randbytes(300_000)


def name_of(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def fresh(seed: str, size: int = 1000) -> bytes:
    """Content that no other test has."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def blobs(here: Path) -> Path:
    path = here / "blobs" / "sha256"
    path.mkdir(parents=True)
    return path


def in_pool(mount: Mount, content: bytes) -> Path:
    return mount.store / "blobs" / "sha256" / name_of(content)


def refusals(mount: Mount, blob: Path) -> list[str]:
    """Return the warnings about a blob once there is one, and once all are out.

    They are written in the order in which files are closed for the last time, so one more
    refused file flushes what came before.
    """
    path = str(blob.relative_to(mount.path))
    mount.log.wait_for(f"^WARNING .*{path}")
    barrier = blob.parent / name_of(fresh(f"barrier {path} {len(mount.warnings)}"))
    with pytest.raises(OSError, match="Input/output error"):
        barrier.write_bytes(b"not that")
    mount.log.wait_for(f"^WARNING .*{barrier.name}")
    return mount.log.matching(f"^WARNING .*{path}")


def test_a_blob_that_is_written_again_is_its_own_layouts(here: Path) -> None:
    """All layouts' blob is one inode; whose name was looked up last does not matter."""
    content = fresh("written again")
    first, mine, last = (here / n / "blobs/sha256" / name_of(content) for n in ("1", "2", "3"))
    for blob in (first, mine, last):
        blob.parent.mkdir(parents=True)
    first.write_bytes(content)
    assert mine.exists()
    assert last.exists()
    mine.write_bytes(content)
    assert os.listdir(mine.parent) == [mine.name]
    assert os.listdir(last.parent) == []


def test_content_written_under_its_name_is_a_blob_of_the_pool(
    blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("direct")
    (blobs / name_of(content)).write_bytes(content)
    assert (blobs / name_of(content)).read_bytes() == content
    assert in_pool(shared_mount, content).read_bytes() == content
    on_disk = shared_mount.layouts / blobs.relative_to(shared_mount.path) / name_of(content)
    assert on_disk.samefile(in_pool(shared_mount, content))


def test_every_registered_algorithm_names_blobs(mount_store: Mounter) -> None:
    content = fresh("algorithms")
    names = {
        "sha256": name_of(content),
        "sha512": name_of(content, "sha512"),
        "blake3": blake3(content).hexdigest(),
    }
    with mount_store() as mount:
        for algorithm, name in names.items():
            blob = mount.path / "blobs" / algorithm / name
            blob.parent.mkdir(parents=True)
            temporary, ordinary = blob.parent / "temporary", mount.path / "ordinary"
            temporary.write_bytes(content)
            temporary.rename(blob)
            assert blob.read_bytes() == content
            assert (mount.store / "blobs" / algorithm / name).read_bytes() == content
            ordinary.write_bytes(content)
            ordinary.rename(blob)
            with pytest.raises(OSError, match="Input/output error"):
                (blob.parent / ("0" * len(name))).write_bytes(content)


def test_a_wrong_name_is_refused_at_close_with_one_warning(
    blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("wrong at close")
    blob = blobs / name_of(b"another")
    file = os.open(blob, os.O_WRONLY | os.O_CREAT)
    assert os.write(file, content) == len(content)
    with pytest.raises(OSError, match="Input/output error") as caught:
        os.close(file)
    assert caught.value.errno == errno.EIO
    assert not blob.exists()
    assert os.listdir(blobs) == []
    [warning] = refusals(shared_mount, blob)
    assert name_of(content) in warning
    assert blob.name in warning
    assert not in_pool(shared_mount, content).exists()
    shared_mount.await_no_unnamed_files()


def test_a_wrong_name_is_refused_at_rename_with_one_warning(
    blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("wrong at rename")
    blob, temporary = blobs / name_of(b"yet another"), blobs / "temporary"
    temporary.write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        temporary.rename(blob)
    assert os.listdir(blobs) == ["temporary"]
    assert temporary.read_bytes() == content
    temporary.unlink()
    assert os.listdir(blobs) == []
    [warning] = refusals(shared_mount, blob)
    assert name_of(content) in warning
    shared_mount.await_no_unnamed_files()


def test_an_ordinary_file_with_a_wrong_name_stays_where_it_was(
    blobs: Path, here: Path, shared_mount: Mount
) -> None:
    content = fresh("ordinary, wrong")
    blob, ordinary = blobs / name_of(b"not this"), here / "oci-put-blob1"
    ordinary.write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        ordinary.rename(blob)
    assert ordinary.read_bytes() == content
    assert not blob.exists()
    assert len(refusals(shared_mount, blob)) == 1


def test_an_ordinary_file_becomes_a_blob_without_a_copy(
    blobs: Path, here: Path, shared_mount: Mount
) -> None:
    content = fresh("ordinary, right", 200_000)
    ordinary = here / "oci-put-blob2"
    ordinary.write_bytes(content)
    before = ordinary.stat().st_ino
    ordinary.rename(blobs / name_of(content))
    assert not ordinary.exists()
    assert in_pool(shared_mount, content).stat().st_ino == before
    assert (blobs / name_of(content)).read_bytes() == content


def test_what_was_not_written_in_order_is_hashed_all_the_same(blobs: Path) -> None:
    content = fresh("backwards", 200_000)
    blob = blobs / name_of(content)
    file = os.open(blob, os.O_WRONLY | os.O_CREAT)
    for offset in reversed(range(0, len(content), 7_000)):
        os.pwrite(file, content[offset : offset + 7_000], offset)
    os.close(file)
    assert blob.read_bytes() == content


def test_holes_count_as_zeros(blobs: Path) -> None:
    content = b"a" + bytes(99_999) + b"b" + bytes(50_000)
    blob = blobs / name_of(content)
    with blob.open("wb") as file:
        file.write(b"a")
        file.seek(100_000)
        file.write(b"b")
        file.truncate(150_001)
    assert blob.read_bytes() == content


def test_what_is_truncated_does_not_count(blobs: Path) -> None:
    content = fresh("short", 5_000)
    blob = blobs / name_of(content)
    with blob.open("wb") as file:
        file.write(content + b"too much")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 5_008
        file.truncate(5_000)
        assert os.fstat(file.fileno()).st_size == 5_000
    assert blob.read_bytes() == content


def test_an_empty_blob(blobs: Path) -> None:
    (blobs / name_of(b"")).touch()
    assert (blobs / name_of(b"")).read_bytes() == b""


def test_a_writer_reads_what_it_wrote_before_anybody_else_does(blobs: Path) -> None:
    content = fresh("read back", 100_000)
    blob = blobs / name_of(content)
    with blob.open("x+b", buffering=0) as file:
        file.write(content)
        assert not blob.exists()
        assert os.pread(file.fileno(), 1000, 50_000) == content[50_000:51_000]
    assert blob.exists()


def test_the_same_content_may_overwrite_a_blob(blobs: Path) -> None:
    content = fresh("same")
    blob = blobs / name_of(content)
    for _ in range(3):
        blob.write_bytes(content)
    assert blob.read_bytes() == content


def test_other_content_may_not_overwrite_a_blob(blobs: Path, shared_mount: Mount) -> None:
    content = fresh("stays")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        blob.write_bytes(b"something else")
    assert blob.read_bytes() == content
    with pytest.raises(OSError, match="Input/output error"), blob.open("r+b") as file:
        file.write(b"patched")
    assert blob.read_bytes() == content
    with pytest.raises(OSError, match="Input/output error"), blob.open("ab") as file:
        file.write(b"appended")
    assert blob.read_bytes() == content
    assert in_pool(shared_mount, content).read_bytes() == content


def test_a_blob_may_be_opened_for_writing_and_left_alone(blobs: Path) -> None:
    content = fresh("untouched")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND):
        file = os.open(blob, flags)
        assert os.fstat(file).st_size == len(content)
        if flags & os.O_RDWR:
            assert os.pread(file, 2000, 0) == content
        os.close(file)
    assert blob.read_bytes() == content


def test_truncate_of_a_blob_is_refused(blobs: Path) -> None:
    content = fresh("not cut")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    with pytest.raises(PermissionError):
        os.truncate(blob, 3)
    assert blob.read_bytes() == content


def test_modes_owners_and_times_of_blobs_are_accepted_and_ignored(blobs: Path) -> None:
    content = fresh("owned")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    before = blob.stat()
    blob.chmod(0o600)
    os.chown(blob, 12345, 12345)
    os.utime(blob, (1, 1))
    blob.touch()
    after = blob.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )
    assert after.st_mode & 0o777 == 0o644


@pytest.mark.parametrize("sharing", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_blobs_can_be_mapped(blobs: Path, sharing: int) -> None:
    content = fresh(f"mapped {sharing}", 100_000)
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    with blob.open("rb") as file, mmap.mmap(file.fileno(), 0, sharing, mmap.PROT_READ) as mapped:
        assert mapped[:] == content


def test_a_mapped_file_becomes_a_blob(here: Path, blobs: Path) -> None:
    content = fresh("written by mmap", 50_000)
    ordinary = here / "ordinary"
    with ordinary.open("w+b") as file:
        file.truncate(len(content))
        with mmap.mmap(file.fileno(), len(content)) as mapped:
            mapped[:] = content
            mapped.flush()
    ordinary.rename(blobs / name_of(content))
    assert (blobs / name_of(content)).read_bytes() == content


def test_a_shell_redirects_a_program_to_a_blob(blobs: Path, tmp_path: Path) -> None:
    content = fresh("redirected", 70_000)
    (tmp_path / "a").write_bytes(content)
    script = f"set -e; cat a > {blobs / name_of(content)}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (blobs / name_of(content)).read_bytes() == content


def test_a_shell_redirects_several_programs_to_a_blob(blobs: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(fresh("a", 70_000))
    (tmp_path / "b").write_bytes(fresh("b", 70_000))
    name = name_of(fresh("a", 70_000) + fresh("b", 70_000))
    script = f"{{ cat a; cat b; }} > {blobs / name}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.count("Input/output error") <= 1  # what the first cat closed was not yet it
    assert name_of((blobs / name).read_bytes()) == name


def test_every_duplicate_that_is_closed_asks_again(blobs: Path) -> None:
    content = fresh("dup", 3000)
    blob = blobs / name_of(content)
    file = os.open(blob, os.O_WRONLY | os.O_CREAT)
    for start in range(0, 2000, 1000):
        os.write(file, content[start : start + 1000])
        with pytest.raises(OSError, match="Input/output error"):
            os.close(os.dup(file))  # what there is so far is not what the name says
        assert not blob.exists()
    os.write(file, content[2000:])
    os.close(os.dup(file))
    assert blob.read_bytes() == content
    os.close(file)
    assert blob.read_bytes() == content


def test_a_forked_child_that_exits_does_not_end_the_parents_file(blobs: Path) -> None:
    content = fresh("inherited", 4000)
    blob = blobs / name_of(content)
    with blob.open("wb", buffering=0) as file:
        file.write(content[:1000])
        code = "import os, sys; os.write(int(sys.argv[1]), sys.stdin.buffer.read())"
        subprocess.run(
            [sys.executable, "-c", code, str(file.fileno())],
            input=content[1000:3000],
            pass_fds=[file.fileno()],
            check=True,
        )
        file.write(content[3000:])
    assert blob.read_bytes() == content


def test_no_more_is_written_once_it_is_a_blob(blobs: Path) -> None:
    content = fresh("sealed")
    blob = blobs / name_of(content)
    file = os.open(blob, os.O_RDWR | os.O_CREAT)
    os.write(file, content)
    os.close(os.dup(file))
    with pytest.raises(PermissionError):
        os.write(file, b"more")
    with pytest.raises(PermissionError):
        os.ftruncate(file, 0)
    os.close(file)
    assert blob.read_bytes() == content


def test_no_more_is_written_once_it_was_renamed_to_a_blob(
    here: Path, blobs: Path, engine: str
) -> None:
    """Where the kernel writes by itself it is another file, and nobody tells the writer."""
    for number, temporary in enumerate([here / "ordinary", blobs / "temporary"]):
        content = fresh(f"renamed while open {number}")
        is_passed = engine == "kernel" and temporary.parent == blobs
        refusal = suppress(PermissionError) if is_passed else pytest.raises(PermissionError)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT)
        os.write(file, content)
        os.rename(temporary, blobs / name_of(content))
        assert os.pread(file, 2000, 0) == content
        assert os.fstat(file).st_size == len(content)
        with refusal:
            os.pwrite(file, b"more", 10)
        with refusal:
            os.ftruncate(file, 0)
        assert (blobs / name_of(content)).read_bytes() == content
        os.close(file)
        assert (blobs / name_of(content)).read_bytes() == content


def test_exclusive_creation_works_although_the_pool_has_it(here: Path, blobs: Path) -> None:
    content = fresh("exclusive")
    (blobs / name_of(content)).write_bytes(content)
    other = here / "other" / "blobs" / "sha256"
    other.mkdir(parents=True)
    blob = other / name_of(content)
    assert blob.stat().st_size == len(content)  # present without being there
    with blob.open("xb") as file:
        file.write(content)
    assert blob.read_bytes() == content


def test_a_hard_link_can_be_made_although_the_pool_has_it(here: Path, blobs: Path) -> None:
    content = fresh("linked")
    (blobs / name_of(content)).write_bytes(content)
    other = here / "other" / "blobs" / "sha256"
    other.mkdir(parents=True)
    assert (other / name_of(content)).exists()
    (other / name_of(content)).hardlink_to(blobs / name_of(content))
    assert os.listdir(other) == [name_of(content)]


def test_the_pools_blobs_are_there_in_every_layout_but_listed_in_none(
    here: Path, blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("virtual")
    (blobs / name_of(content)).write_bytes(content)
    other = here / "reg.example" / "repo" / "tag" / "blobs" / "sha256"
    other.mkdir(parents=True)
    blob = other / name_of(content)
    assert os.listdir(other) == []
    assert blob.read_bytes() == content
    inodes = {blob.stat().st_ino, (blobs / blob.name).stat().st_ino}
    assert inodes == {in_pool(shared_mount, content).stat().st_ino}
    assert os.listdir(other) == []


def test_lstat_and_fstat_see_the_same_file(here: Path, blobs: Path) -> None:
    content = fresh("same file")
    (blobs / name_of(content)).write_bytes(content)
    other = here / "other" / "blobs" / "sha256"
    other.mkdir(parents=True)
    for directory in (blobs, other):
        before = os.lstat(directory / name_of(content))
        with (directory / name_of(content)).open("rb") as file:
            assert os.path.samestat(before, os.fstat(file.fileno()))


def test_an_unlinked_blob_is_gone_from_its_layout_alone(
    here: Path, blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("unlinked")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    blob.unlink()
    assert not blob.exists()
    with pytest.raises(FileNotFoundError):
        blob.unlink()
    assert in_pool(shared_mount, content).exists()
    other = here / "other" / "blobs" / "sha256"
    other.mkdir(parents=True)
    assert (other / blob.name).exists()
    blob.write_bytes(content)
    assert blob.read_bytes() == content


def test_an_unlinked_blob_can_still_be_read_by_who_has_it_open(blobs: Path) -> None:
    content = fresh("unlinked while open", 100_000)
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    with blob.open("rb") as file:
        blob.unlink()
        assert os.fstat(file.fileno()).st_size == len(content)
        assert file.read() == content


def test_symbolic_links_are_refused_where_blobs_belong(here: Path, blobs: Path) -> None:
    (here / "elsewhere").write_bytes(b"content of no blob")
    for name in (name_of(b"content of no blob"), "some-name"):
        with pytest.raises(PermissionError):
            (blobs / name).symlink_to(here / "elsewhere")
    assert os.listdir(blobs) == []


def test_a_link_from_an_ordinary_file_to_a_blob_is_refused(here: Path, blobs: Path) -> None:
    (here / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="cross-device") as caught:
        (blobs / name_of(b"content")).hardlink_to(here / "file")
    assert caught.value.errno == errno.EXDEV


def test_a_link_between_blobs_of_different_digests_is_refused(blobs: Path) -> None:
    content = fresh("linked wrongly")
    (blobs / name_of(content)).write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        (blobs / name_of(b"something else")).hardlink_to(blobs / name_of(content))


def test_an_ordinary_link_to_a_blob_is_written_without_touching_the_blob(
    here: Path, blobs: Path, shared_mount: Mount
) -> None:
    content = fresh("copy on write")
    blob, ordinary = blobs / name_of(content), here / "ordinary"
    blob.write_bytes(content)
    ordinary.hardlink_to(blob)
    assert ordinary.read_bytes() == content
    with ordinary.open("r+b") as file:
        file.write(b"changed")
    assert ordinary.read_bytes() == b"changed" + content[7:]
    assert blob.read_bytes() == content
    assert in_pool(shared_mount, content).read_bytes() == content


def test_a_blob_with_an_ordinary_link_keeps_its_rules(here: Path, blobs: Path) -> None:
    content = fresh("two names")
    blob, ordinary = blobs / name_of(content), here / "ordinary"
    blob.write_bytes(content)
    ordinary.hardlink_to(blob)
    with pytest.raises(OSError, match="Input/output error"):
        blob.write_bytes(b"something else")
    assert blob.read_bytes() == content
    assert ordinary.read_bytes() == content
    with ordinary.open("ab") as file:
        file.write(b"!")
    assert blob.read_bytes() == content
    assert ordinary.read_bytes() == content + b"!"


def test_a_blob_that_is_moved_out_is_copied(here: Path, blobs: Path, shared_mount: Mount) -> None:
    content = fresh("out and back")
    blob, ordinary = blobs / name_of(content), here / "ordinary"
    blob.write_bytes(content)
    with pytest.raises(OSError, match="cross-device"):
        blob.rename(ordinary)
    shutil.move(blob, ordinary)
    assert os.listdir(blobs) == []
    with ordinary.open("ab") as file:
        file.write(b"!")
    assert ordinary.read_bytes() == content + b"!"
    assert in_pool(shared_mount, content).read_bytes() == content
    os.truncate(ordinary, len(content))
    ordinary.rename(blob)
    assert blob.read_bytes() == content
    assert not ordinary.exists()


def test_a_temporary_file_that_is_moved_out_is_copied(here: Path, blobs: Path) -> None:
    (blobs / "temporary").write_bytes(b"content")
    with pytest.raises(OSError, match="cross-device"):
        (blobs / "temporary").rename(here / "ordinary")
    shutil.move(blobs / "temporary", here / "ordinary")
    assert (here / "ordinary").read_bytes() == b"content"


def test_new_names_in_directories_that_a_commit_made(
    here: Path, blobs: Path, shared_mount: Mount, forget: Callable[[Path], None]
) -> None:
    manifest = fresh_image(blobs, "made by a commit")
    layout = here / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_bytes(index_of(manifest))
    made = layout / "blobs" / "sha256"
    assert name_of(manifest) in os.listdir(made)
    forget(shared_mount.path)
    with (made / "temporary").open("xb") as file:
        file.write(manifest)
    (made / "temporary").unlink()
    forget(shared_mount.path)
    (made / "directory").mkdir()
    forget(shared_mount.path)
    os.link(made / name_of(manifest), layout / "ordinary")
    forget(shared_mount.path)
    (layout / "blobs").mkdir()  # as somebody does who copies a layout and finds no such directory
    with pytest.raises(FileExistsError):
        (layout / "blobs").mkdir()
    assert made.exists()


def index_of(manifest: bytes) -> bytes:
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{name_of(manifest)}",
        "size": len(manifest),
    }
    return json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()


def fresh_image(blobs: Path, seed: str) -> bytes:
    """Write the blobs of an image without layers; returns its manifest."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "author": seed,
            "rootfs": {"type": "layers", "diff_ids": list[str]()},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{name_of(config)}",
                "size": len(config),
            },
            "layers": list[object](),
        }
    ).encode()
    for content in (config, manifest):
        (blobs / name_of(content)).write_bytes(content)
    return manifest


def test_temporary_files_can_be_renamed_replaced_and_read(blobs: Path) -> None:
    first, second = blobs / "first", blobs / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"22")
    first.replace(second)
    assert second.read_bytes() == b"1"
    assert os.listdir(blobs) == ["second"]
    with second.open("ab") as file:
        file.write(b"2")
    assert second.read_bytes() == b"12"
    second.unlink()
    assert os.listdir(blobs) == []


def test_a_temporary_file_lives_until_its_last_handle_is_closed(
    blobs: Path, shared_mount: Mount
) -> None:
    with (blobs / "temporary").open("w+b", buffering=0) as file:
        file.write(b"abc")
        (blobs / "temporary").unlink()
        file.write(b"def")
        assert os.pread(file.fileno(), 10, 0) == b"abcdef"
    shared_mount.await_no_unnamed_files()


def test_rename_over_a_blob_that_is_open(blobs: Path) -> None:
    content = fresh("renamed over", 100_000)
    blob, temporary = blobs / name_of(content), blobs / "temporary"
    blob.write_bytes(content)
    with blob.open("rb") as file:
        first = file.read(10)
        temporary.write_bytes(content)
        temporary.rename(blob)
        assert first + file.read() == content
    assert blob.read_bytes() == content


def test_exclusive_renames_do_not_replace(here: Path) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    subprocess.run(["mv", "--no-clobber", here / "a", here / "b"], check=False)
    assert (here / "b").read_bytes() == b"b"


def test_ten_processes_write_the_same_blob(blobs: Path, shared_mount: Mount) -> None:
    blob = blobs / name_of(CONTENT)
    script = (
        "import os, sys, random, tempfile\n"
        "content = random.Random(1).randbytes(300_000)\n"
        "sys.stdin.read()\n"
        "for _ in range(3):\n"
        "    fd, name = tempfile.mkstemp(dir=os.path.dirname(sys.argv[1]))\n"
        "    for start in range(0, len(content), 32768):\n"
        "        os.write(fd, content[start:start + 32768])\n"
        "    os.close(fd)\n"
        "    os.rename(name, sys.argv[1])\n"
        "    with open(sys.argv[1], 'wb') as file:\n"
        "        file.write(content)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(blob)], stdin=subprocess.PIPE)
        for _ in range(10)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 10
    assert os.listdir(blobs) == [blob.name]
    assert blob.read_bytes() == CONTENT
    shared_mount.await_no_unnamed_files()


def test_readers_and_writers_of_many_blobs_at_once(blobs: Path) -> None:
    def write_and_read(number: int) -> bool:
        content = fresh(f"many {number}", 100_000)
        blob = blobs / name_of(content)
        blob.write_bytes(content)
        return blob.read_bytes() == content

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(write_and_read, range(40)))


def test_fsync_and_locks_of_a_file_on_its_way(blobs: Path) -> None:
    content = fresh("synced")
    temporary = blobs / "temporary"
    with temporary.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
    temporary.rename(blobs / name_of(content))
    assert (blobs / name_of(content)).read_bytes() == content


def test_extended_attributes_are_not_supported(blobs: Path) -> None:
    content = fresh("attributes")
    blob = blobs / name_of(content)
    blob.write_bytes(content)
    calls: list[Callable[[], object]] = [
        lambda: os.getxattr(blob, "user.x"),
        lambda: os.setxattr(blob, "user.x", b"y"),
    ]
    for call in calls:
        with pytest.raises(OSError, match="not supported") as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
