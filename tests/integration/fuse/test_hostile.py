"""Attacks on a mount of their own: no name may lie, no call may hang, no server may end."""

import errno
import hashlib
import json
import mmap
import os
import random
import resource
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from ocistow.store.store import Store
from ocistow.testing.clients import call_beside, watched
from ocistow.testing.invariants import strays, violations
from ocistow.testing.minimal import MinimalImage, minimal_image
from ocistow.testing.mounts import Mount, mounted, run, unmount, wait_until

from .conftest import Mounter

pytestmark = pytest.mark.fuse

MARKER = b'{"imageLayoutVersion": "1.0.0"}'
EVIL = b"EVIL"


@pytest.fixture
def mount(mount_store: Mounter) -> Generator[Mount]:
    """A mount for one attack, which it must outlive without a lie in its store."""
    with mount_store() as mount, watched(mount):
        yield mount
        assert_unharmed(mount)


@pytest.fixture
def other(mount: Mount, tmp_path: Path) -> Generator[Mount]:
    """A second mount of the same store."""
    with mounted(mount.store, tmp_path / "other") as other, watched(other):
        yield other
        assert_unharmed(other)


@pytest.fixture
def layout(mount: Mount) -> Path:
    path = mount.path / "layout"
    (path / "blobs" / "sha256").mkdir(parents=True)
    return path


def assert_unharmed(mount: Mount) -> None:
    assert mount.is_alive, mount.log.lines[-20:]
    os.listdir(mount.path)
    assert violations(mount.store, sparse=True) == []
    assert strays(mount.store) == []


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_of(layout: Path, content: bytes) -> Path:
    return layout / "blobs" / "sha256" / name_of(content)


def on_disk(mount: Mount, path: Path) -> Path:
    return mount.layouts / path.relative_to(mount.path)


def assert_nobody_is_told_a_lie(mount: Mount, blob: Path) -> None:
    """Check a blob, if it is there, for whoever opens it now: here, in another layout, on disk."""
    other = mount.path / "unrelated" / "blobs" / "sha256"
    other.mkdir(parents=True, exist_ok=True)
    for path in (blob, other / blob.name, on_disk(mount, blob), mount.store / "blobs/sha256"):
        with suppress(FileNotFoundError):
            content = (path / blob.name if path.is_dir() else path).read_bytes()
            assert name_of(content) == blob.name, f"{path} begins with {content[:8]!r}"


def index_of(image: MinimalImage) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [image.root.to_document()]}).encode()


def fails(call: Callable[..., object], *arguments: object) -> bool:
    """Make a call and tell whether it ended with an errno, whatever that is."""
    try:
        call(*arguments)
    except OSError:
        return True
    return False


@contextmanager
def repeatedly(call: Callable[[], object], *, threads: int = 3) -> Generator[None]:
    """Make a call over and over in several threads during the block, whatever it reports."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                call()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        is_over.set()
        for worker in workers:
            worker.join()


# What is still written to while it gets its name


def empty_by_open(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def empty_by_name(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.slow
@pytest.mark.parametrize("empty", [empty_by_open, empty_by_name])
def test_what_is_emptied_while_it_is_renamed_does_not_lie(
    mount: Mount, layout: Path, empty: Callable[[Path], None]
) -> None:
    dice, renamed = random.Random(1), 0
    first, second = layout / "first", layout / "second"
    with repeatedly(lambda: empty(second)):
        for _ in range(300):
            content = dice.randbytes(200_000)
            second.touch()
            file = os.open(first, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.pwrite(file, content[100_000:], 100_000)
            os.pwrite(file, content[:100_000], 0)
            os.close(file)
            with suppress(OSError):
                first.rename(second)
                second.rename(blob_of(layout, content))
                renamed += 1
            assert_nobody_is_told_a_lie(mount, blob_of(layout, content))
    assert renamed


@pytest.mark.parametrize("name", ["ordinary", "oci-put-blob9"])
def test_times_do_not_hide_what_another_mount_wrote(
    mount: Mount, other: Mount, layout: Path, name: str
) -> None:
    dice = random.Random(2)
    content, evil = dice.randbytes(8192), dice.randbytes(8192)
    file = layout / name
    file.write_bytes(content)
    before = on_disk(mount, file).stat()
    there = other.path / file.relative_to(mount.path)
    writer = os.open(there, os.O_RDWR)
    os.pwrite(writer, evil, 0)
    os.close(writer)
    os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(OSError, match="Input/output error"):
        file.rename(blob_of(layout, content))
    assert_nobody_is_told_a_lie(mount, blob_of(layout, content))
    assert_nobody_is_told_a_lie(other, blob_of(there.parent, content))


@pytest.mark.parametrize("name", ["ordinary", "oci-put-blob9"])
@pytest.mark.parametrize("mapped", [False, True])
def test_another_mounts_writer_does_not_change_a_blob(
    mount: Mount, other: Mount, layout: Path, name: str, mapped: bool
) -> None:
    content = random.Random(3).randbytes(8192)
    file, blob = layout / name, blob_of(layout, content)
    file.write_bytes(content)
    there = other.path / file.relative_to(mount.path)
    writer = os.open(there, os.O_RDWR)
    pages = mmap.mmap(writer, len(content)) if mapped else None
    with suppress(OSError):
        file.rename(blob)
    with suppress(OSError):
        if pages is None:
            os.pwrite(writer, EVIL, 0)
        else:
            pages[:4] = EVIL
            pages.flush()
    harms: list[Callable[[], object]] = [
        lambda: os.ftruncate(writer, 3),
        lambda: os.truncate(there, 3),
    ]
    for harm in harms:
        with suppress(OSError):
            harm()
        assert_nobody_is_told_a_lie(mount, blob)
    if pages is not None:
        pages.close()
    os.close(writer)
    assert_nobody_is_told_a_lie(mount, blob)
    assert_nobody_is_told_a_lie(other, blob_of(there.parent, content))


@pytest.mark.parametrize("name", ["ordinary", "oci-put-blob1"])
@pytest.mark.parametrize("is_read_before", [False, True])
def test_stores_to_a_mapped_file_do_not_change_the_blob_it_became(
    mount: Mount, layout: Path, name: str, is_read_before: bool
) -> None:
    content = random.Random(4).randbytes(8192)
    file, blob = layout / name, blob_of(layout, content)
    file.write_bytes(content)
    writer = os.open(file, os.O_RDWR)
    with mmap.mmap(writer, len(content)) as pages:
        if is_read_before:
            assert pages[:] == content
        file.rename(blob)
        reader = os.open(blob, os.O_RDONLY)
        pages[:4] = EVIL
        assert os.pread(reader, len(content), 0) == content
        assert blob.read_bytes() == content
        assert_nobody_is_told_a_lie(mount, blob)
        with suppress(OSError):
            pages.flush()
        assert os.pread(reader, len(content), 0) == content
        assert blob.read_bytes() == content
        with suppress(OSError):
            os.pwrite(writer, EVIL, 4096)
        assert_nobody_is_told_a_lie(mount, blob)
        os.close(reader)
    with suppress(OSError):
        os.close(writer)
    assert blob.read_bytes() == content
    assert_nobody_is_told_a_lie(mount, blob)


def test_stores_that_were_not_flushed_before_the_rename_do_not_lie(
    mount: Mount, layout: Path
) -> None:
    content = random.Random(5).randbytes(8192)
    file, blob = layout / "ordinary", blob_of(layout, content)
    file.write_bytes(content)
    writer = os.open(file, os.O_RDWR)
    with mmap.mmap(writer, len(content)) as pages:
        pages[:4] = EVIL
        with suppress(OSError):
            file.rename(blob)
        assert_nobody_is_told_a_lie(mount, blob)
        with suppress(OSError):
            pages.flush()
        assert_nobody_is_told_a_lie(mount, blob)
    with suppress(OSError):
        os.close(writer)
    assert_nobody_is_told_a_lie(mount, blob)


@pytest.mark.parametrize("name", ["oci-put-blob1", "ordinary", "blobs/sha256/temporary"])
def test_a_file_that_is_open_for_writing_becomes_a_blob_that_stays(
    mount: Mount, layout: Path, name: str
) -> None:
    content = random.Random(6).randbytes(8192)
    blob = blob_of(layout, content)
    writer = os.open(layout / name, os.O_RDWR | os.O_CREAT)
    os.write(writer, content)
    os.rename(layout / name, blob)
    assert blob.read_bytes() == content
    harms: list[Callable[[], object]] = [
        lambda: os.pwrite(writer, EVIL, 0),
        lambda: os.write(writer, EVIL),
        lambda: os.ftruncate(writer, 3),
        lambda: os.truncate(f"/proc/self/fd/{writer}", 3),
        lambda: os.posix_fallocate(writer, 0, 100_000),
        lambda: os.close(os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_TRUNC)),
        lambda: os.fsync(writer),
    ]
    for harm in harms:
        with suppress(OSError):
            harm()
        assert blob.read_bytes() == content
        assert_nobody_is_told_a_lie(mount, blob)
    with suppress(OSError):
        os.close(writer)
    assert blob.read_bytes() == content


# What must not hang or end the mount


@pytest.mark.parametrize("gap", [0, 64])
@pytest.mark.parametrize("call", ["mkdir", "open", "link"])
def test_a_path_before_a_page_of_this_very_mount(mount_store: Mounter, call: str, gap: int) -> None:
    content = b"known"
    with mount_store() as mount, watched(mount, seconds=10):
        (mount.layouts / "large").write_bytes(random.Random(7).randbytes(20_000_000))
        with Store.open(mount.store) as store:
            store.blobs.add([content])
        blob = blob_of(mount.path / "layout", content)
        blob.parent.mkdir(parents=True)
        call_beside(call, blob, mount.path / "large", gap=gap)
        assert_unharmed(mount)


def test_a_file_that_is_only_read_is_emptied_by_who_opens_it(mount: Mount) -> None:
    """Linux does that, whatever the access mode; a server that fails there keeps the file open."""
    file = mount.path / "ordinary"
    file.touch()
    before = len(os.listdir(f"/proc/{mount.pid}/fd"))
    for _ in range(20):
        file.write_bytes(b"content")
        os.close(os.open(file, os.O_RDONLY | os.O_TRUNC))
        assert file.read_bytes() == b""
    wait_until(lambda: len(os.listdir(f"/proc/{mount.pid}/fd")) <= before, "all is closed")


@pytest.mark.parametrize("name", ["blobs/sha256/temporary", "blobs/sha256/" + "ab" * 32])
def test_a_file_that_is_gone_cannot_be_opened_again(mount: Mount, layout: Path, name: str) -> None:
    file = os.open(layout / name, os.O_RDWR | os.O_CREAT)
    os.write(file, b"content")
    handle = os.open(f"/proc/self/fd/{file}", os.O_PATH)
    again = f"/proc/self/fd/{handle}"
    with suppress(OSError):
        (layout / name).unlink()
    with suppress(OSError):
        os.close(file)
    mount.await_no_unnamed_files()
    uses: list[Callable[[int], object]] = [
        os.fsync,
        lambda file: os.pread(file, 10, 0),
        lambda file: os.pwrite(file, b"content", 0),
        lambda file: os.ftruncate(file, 3),
    ]
    for use in uses:
        with suppress(OSError), opened(again, os.O_RDWR) as file:
            use(file)
            pytest.fail("a file that is gone was used")
        assert mount.is_alive
    for flags in (os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        with suppress(OSError), opened(again, flags):
            pass
    assert fails(os.truncate, again, 3)
    os.close(handle)


@contextmanager
def opened(path: str, flags: int) -> Generator[int]:
    file = os.open(path, flags)
    try:
        yield file
    finally:
        with suppress(OSError):
            os.close(file)


def remove(directory: Path) -> None:
    directory.rmdir()


def replace(directory: Path) -> None:
    another = directory.parents[2] / "another" / "blobs" / "sha256"
    another.mkdir(parents=True)
    another.rename(directory)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC])
@pytest.mark.parametrize("lose", [remove, replace])
def test_a_blob_whose_directory_is_gone_is_opened_for_writing_and_checked(
    mount: Mount, layout: Path, lose: Callable[[Path], None], flags: int
) -> None:
    """Between LOOKUP and OPEN, the directory goes; here, a descriptor needs no LOOKUP."""
    other = mount.path / "other" / "blobs" / "sha256"
    other.mkdir(parents=True)
    (other / name_of(b"content")).write_bytes(b"content")
    known = os.open(blob_of(layout, b"content"), os.O_PATH)  # of the pool alone
    lose(blob_of(layout, b"content").parent)
    for content in (b"content", EVIL):
        file = os.open(f"/proc/self/fd/{known}", flags)
        os.write(file, content)
        assert fails(os.close, file) == (content == EVIL)
    os.close(known)


@pytest.mark.parametrize("lose", [remove, replace])
@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("is_refused_before", [True, False])
def test_a_blob_whose_directory_is_gone_when_it_is_closed(
    mount: Mount,
    layout: Path,
    lose: Callable[[Path], None],
    is_right: bool,
    is_refused_before: bool,
) -> None:
    blob = blob_of(layout, b"content")
    file = os.open(blob, os.O_WRONLY | os.O_CREAT)
    if is_refused_before:
        os.write(file, b"con")
        with pytest.raises(OSError, match="Input/output error"):
            os.close(os.dup(file))
        os.write(file, b"tent" if is_right else b"evil")
    else:
        os.write(file, b"content" if is_right else EVIL)
    is_kept = fails(lose, blob.parent)  # as good, since something is about to be there
    assert fails(os.close, file) != (is_kept and is_right)
    mount.await_no_unnamed_files()
    assert blob.exists() == (is_kept and is_right)


@contextmanager
def soft_limit(files: int) -> Generator[None]:
    """Let processes that are started in the block open few files, unless they ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_files_are_staged_than_a_shell_lets_a_process_open(mount_store: Mounter) -> None:
    with ExitStack() as stack:
        with soft_limit(256):
            mount = stack.enter_context(mount_store())
        blobs = mount.path / "layout" / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for number in range(300):
            (blobs / f"temporary{number}").write_bytes(b"%d" % number)
        for number in range(300):
            content = b"%d" % number
            (blobs / f"temporary{number}").rename(blobs / name_of(content))
            assert (blobs / name_of(content)).read_bytes() == content
        assert_unharmed(mount)


# What must not be lost or appear


@pytest.mark.parametrize("is_forgotten", [False, True])
@pytest.mark.parametrize("moved", ["above", "above/layout"])
def test_an_index_waits_wherever_its_layout_goes(
    mount: Mount, forget: Callable[[Path], None], is_forgotten: bool, moved: str
) -> None:
    image = minimal_image("waiting")
    layout = mount.path / "above" / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "oci-layout").write_bytes(MARKER)
    (layout / "index.json").write_bytes(index_of(image))
    if is_forgotten:
        forget(mount.path)
    (mount.path / moved).rename(mount.path / "new")
    there = mount.path / "new" / layout.relative_to(mount.path / moved)
    assert (there / "index.json").read_bytes() == index_of(image)
    if is_forgotten:
        forget(mount.path)
    for content in image.blobs.values():
        blob_of(there, content).write_bytes(content)
    assert (there / "index.json").read_bytes() == index_of(image)
    assert (on_disk(mount, there) / "index.json").read_bytes() == index_of(image)
    assert not on_disk(mount, layout).exists()


def test_a_directory_with_staged_files_is_not_empty(mount: Mount, layout: Path) -> None:
    content = b"staged"
    another = mount.path / "another" / "blobs" / "sha256"
    another.mkdir(parents=True)
    temporary = layout / "blobs" / "sha256" / "temporary"
    temporary.write_bytes(content)
    for harm in (lambda: another.rename(temporary.parent), temporary.parent.rmdir):
        with pytest.raises(OSError, match="not empty") as caught:
            harm()
        assert caught.value.errno == errno.ENOTEMPTY
        assert os.listdir(temporary.parent) == ["temporary"]
    temporary.rename(blob_of(layout, content))
    assert blob_of(layout, content).read_bytes() == content


def test_a_directory_with_a_waiting_index_is_not_empty(mount: Mount) -> None:
    image = minimal_image("waiting")
    layout, another = mount.path / "layout", mount.path / "another"
    for path in (layout, another):
        path.mkdir()
    (layout / "index.json").write_bytes(index_of(image))
    for harm in (lambda: another.rename(layout), layout.rmdir):
        with pytest.raises(OSError, match="not empty") as caught:
            harm()
        assert caught.value.errno == errno.ENOTEMPTY
        assert (layout / "index.json").read_bytes() == index_of(image)


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_the_root_is_no_layout(mount: Mount, layout: Path, name: str) -> None:
    content = {"index.json": b'{"schemaVersion":2,"manifests":[]}', "oci-layout": MARKER}[name]
    (layout / "oci-layout").write_bytes(MARKER)
    (layout / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":[]}')
    ordinary = mount.path / "ordinary"
    ordinary.write_bytes(content)
    before = run(mount.store, "ls")
    assert before.returncode == 0, before.stderr
    root = mount.path / name
    harms: list[Callable[[], object]] = [
        lambda: root.write_bytes(content),
        lambda: ordinary.rename(root),
        lambda: root.hardlink_to(ordinary),
        lambda: (layout / name).rename(root),
    ]
    for harm in harms:
        with pytest.raises(PermissionError) as caught:
            harm()
        assert caught.value.errno == errno.EPERM
        assert not root.exists()
    assert ordinary.read_bytes() == content
    after = run(mount.store, "ls")
    assert (after.returncode, after.stdout) == (0, before.stdout)
    assert not (mount.layouts / name).exists()


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_blob_is_looked_up_while_the_disk_is_full(small: Path, tmp_path: Path) -> None:
    content = b"known"
    with Store.create(small / "store") as store:
        store.blobs.add([content])
    with mounted(small / "store", tmp_path / "mnt") as mount, watched(mount):
        blob = blob_of(mount.path / "layout", content)
        blob.parent.mkdir(parents=True)
        fill(small / "ballast")
        with suppress(FileNotFoundError):
            assert blob.stat().st_size == len(content)
        assert len(mount.log.wait_for("^WARNING ")) == 1
        (small / "ballast").unlink()
        wait_until(blob.exists, "it is there once there is room")
        assert blob.read_bytes() == content
        assert len(mount.warnings) == 1
        assert_unharmed(mount)


@pytest.mark.parametrize("below", ["mnt", "layouts", "layouts/below", "."])
def test_a_store_is_not_mounted_in_itself(fuse: None, tmp_path: Path, below: str) -> None:
    store = tmp_path / "store"
    with Store.create(store):
        pass
    point = store / below
    point.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(point)
    for path in (point, tmp_path / "link"):
        for arguments in ((str(path), "--", "true"), ("--background", str(path))):
            try:
                done = run(store, "mount", *arguments)
            finally:
                unmount(point)
            assert done.returncode == os.EX_DATAERR, done
            assert done.stderr.startswith("ocistow: ")
            assert done.stderr.count("\n") == 1
