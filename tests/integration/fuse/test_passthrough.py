"""Blobs that the kernel reads by itself, and who else opens them meanwhile."""

import errno
import fcntl
import json
import mmap
import os
import random
import signal
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.testing.invariants import violations
from ocistow.testing.layout_writer import Layer, Report, write_layer
from ocistow.testing.mounts import TIMEOUT, Mount, command_line, environment

from .conftest import Mounter

pytestmark = pytest.mark.fuse

CONTENT = random.Random(7).randbytes(300_000)
NAME = Digest.of(CONTENT).encoded


@pytest.fixture
def mount(mount_store: Mounter, engine: str) -> Generator[Mount]:
    with mount_store("--engine", engine) as mount:
        yield mount
        assert mount.is_alive
        assert violations(mount.store, sparse=True) == []


@pytest.fixture
def blob(mount: Mount) -> Path:
    path = mount.path / "layout" / "blobs" / "sha256"
    path.mkdir(parents=True)
    (path / NAME).write_bytes(CONTENT)
    return path / NAME


@contextmanager
def stopped(mount: Mount) -> Generator[None]:
    """Let the server answer nothing for the block."""
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(mount.pid, signal.SIGCONT)


def moved_bytes(mount: Mount) -> int:
    """Return how many bytes the server has read and written so far."""
    lines = Path(f"/proc/{mount.pid}/io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


def test_cp_of_a_layer_within_the_mount_moves_no_bytes(mount_store: Mounter) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    with mount_store("--engine", "kernel", "--no-virtual-presence") as mount:
        content = random.Random(8).randbytes(16 << 20)
        blob = mount.path / "base" / "blobs" / "sha256" / Digest.of(content).encoded
        blob.parent.mkdir(parents=True)
        blob.write_bytes(content)
        copy = mount.path / "app" / "blobs" / "sha256" / blob.name
        copy.parent.mkdir(parents=True)
        before = moved_bytes(mount)
        subprocess.run(["cp", "--", blob, copy], check=True)
        assert moved_bytes(mount) - before < len(content) // 16
        assert copy.samefile(blob)
        assert copy.read_bytes() == content
        assert violations(mount.store, sparse=True) == []


def test_go_containerregistrys_copy_of_a_layer_moves_no_bytes(mount_store: Mounter) -> None:
    """Its temporary file is called for the layer, so the kernel does not write that by itself."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    with mount_store("--engine", "kernel", "--no-virtual-presence") as mount:
        content = random.Random(8).randbytes(16 << 20)
        layer = Layer(Digest.of(content), content)
        write_layer(mount.path / "base", layer, Report())
        source = mount.path / "base" / "blobs" / "sha256" / layer.digest.encoded
        before = moved_bytes(mount)
        write_layer(mount.path / "app", Layer(layer.digest, source=source), Report())
        assert moved_bytes(mount) - before < len(content) // 16
        assert (mount.path / "app" / "blobs" / "sha256" / source.name).samefile(source)
        assert violations(mount.store, sparse=True) == []


def test_the_kernel_reads_without_us(mount_store: Mounter) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    with mount_store("--engine", "kernel") as mount, ExitStack() as closing:
        blob = mount.path / "layout" / "blobs" / "sha256" / NAME
        blob.parent.mkdir(parents=True)
        blob.write_bytes(CONTENT)
        file = closing.enter_context(blob.open("rb"))
        if "does not read files" in str(mount.warnings):
            pytest.skip("this kernel has no passthrough")
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, stopped(mount):
            assert os.pread(file.fileno(), len(CONTENT), 0) == CONTENT
            assert mapped[1000:2000] == CONTENT[1000:2000]


@pytest.mark.parametrize(
    ("user", "expected"), [([], "kernel"), (["unshare", "--user", "--map-root-user"], "pyfuse3")]
)
def test_the_engine_of_choice_is_the_one_that_passes_through(
    fuse: None, tmp_path: Path, user: list[str], expected: str
) -> None:
    """Whoever is root in a user namespace alone may mount, and pass nothing through."""
    if os.geteuid() != 0 or subprocess.run([*user, "true"], check=False).returncode != 0:
        pytest.skip("there are no users to choose from")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 9):
        pytest.skip("this kernel has no passthrough")
    (tmp_path / "mnt").mkdir()
    asking = command_line(tmp_path, "mount", "--status", "--json", str(tmp_path / "mnt"))
    mounting = command_line(tmp_path / "store", "mount", str(tmp_path / "mnt"), "--", *asking)
    done = subprocess.run(
        [*user, *mounting],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [status] = json.loads(done.stdout)["mounts"]
    assert status["engine"] == expected


def test_a_writer_beside_a_reader_cannot_reach_the_pools_file(mount: Mount, blob: Path) -> None:
    with blob.open("rb") as reader:
        writer = os.open(blob, os.O_RDWR)
        with pytest.raises(OSError, match="No such device"):
            mmap.mmap(writer, len(CONTENT), mmap.MAP_SHARED)
        os.pwrite(writer, b"EVIL", 0)
        assert reader.read() == CONTENT
        with pytest.raises(OSError, match="Input/output error"):
            os.close(writer)
    assert blob.read_bytes() == CONTENT


def test_a_reader_beside_a_writer(mount: Mount, blob: Path) -> None:
    with blob.open("r+b") as writer, blob.open("rb") as reader:
        with pytest.raises(OSError, match="No such device"):
            mmap.mmap(writer.fileno(), len(CONTENT), mmap.MAP_SHARED)
        writer.write(CONTENT)
        writer.truncate()
        assert reader.read() == CONTENT
    assert blob.read_bytes() == CONTENT


def test_readers_and_writers_take_turns(mount: Mount, blob: Path) -> None:
    for how in ("r+b", "wb", "rb") * 3:
        with ExitStack() as closing:
            readers = [closing.enter_context(blob.open("rb")) for _ in range(3)]
            if "r" not in how or "+" in how:
                with blob.open(how) as writer:
                    writer.write(CONTENT)
            assert {reader.read() for reader in readers} == {CONTENT}
    assert os.stat(blob).st_size == len(CONTENT)


def test_what_a_copier_streams_is_a_blob_whoever_wrote_it(mount: Mount, blob: Path) -> None:
    content = random.Random(8).randbytes(200_000)
    streamed = blob.parents[2] / "oci-put-blob17"
    with streamed.open("xb", buffering=0) as writer:
        writer.write(content[:70_000])
        with streamed.open("rb") as reader:
            assert reader.read() == content[:70_000]
        writer.write(content[70_000:])
        os.fsync(writer.fileno())
    assert streamed.stat().st_size == len(content)
    name = Digest.of(content).encoded
    streamed.rename(blob.parent / name)
    assert (blob.parent / name).read_bytes() == content
    assert (mount.store / "blobs" / "sha256" / name).read_bytes() == content


def test_a_copier_that_goes_on_after_the_rename_changes_no_blob(mount: Mount, blob: Path) -> None:
    content = random.Random(9).randbytes(200_000)
    streamed, target = blob.parents[2] / "oci-put-blob17", blob.parent / Digest.of(content).encoded
    with streamed.open("xb", buffering=0) as writer, ExitStack() as closing:
        writer.write(content)
        streamed.rename(target)
        closing.enter_context(target.open("rb"))
        with suppress(PermissionError):  # where we see it
            os.pwrite(writer.fileno(), b"EVIL", 0)
        assert target.read_bytes() == content


def test_a_mapping_that_outlives_its_file_changes_no_blob(mount: Mount, blob: Path) -> None:
    """The kernel tells of the close, while whoever has mapped the file can still write to it."""
    content = random.Random(11).randbytes(200_000)
    temporary, target = blob.parent / "temporary", blob.parent / Digest.of(content).encoded
    with ExitStack() as closing:
        mapped: mmap.mmap | None = None
        with temporary.open("x+b", buffering=0) as writer:
            writer.write(content)
            with suppress(OSError):  # where the kernel does not write by itself
                mapped = closing.enter_context(mmap.mmap(writer.fileno(), len(content)))
        temporary.rename(target)
        if mapped is not None:
            mapped[:4] = b"EVIL"
            mapped.flush()
        assert target.read_bytes() == content
    assert target.read_bytes() == content
    assert (mount.store / "blobs" / "sha256" / target.name).read_bytes() == content
    mount.await_no_unnamed_files()


def test_a_temporary_file_is_written_as_on_a_disk(mount: Mount, blob: Path) -> None:
    """Each writer and reader finds what the others did, and its size, at once."""
    temporary = blob.parent / "temporary"
    with temporary.open("x+b", buffering=0) as first:
        first.write(CONTENT[:100_000])
        assert temporary.stat().st_size == os.fstat(first.fileno()).st_size == 100_000
        with temporary.open("ab", buffering=0) as appending:
            appending.write(CONTENT[100_000:150_000])
            appending.write(CONTENT[150_000:200_000])
        assert temporary.stat().st_size == 200_000
        with temporary.open("r+b", buffering=0) as second:
            os.pwrite(second.fileno(), CONTENT[280_000:], 280_000)
            assert os.fstat(first.fileno()).st_size == len(CONTENT)
            assert os.pread(first.fileno(), 100, 250_000) == bytes(100)
            os.pwrite(second.fileno(), CONTENT[200_000:280_000], 200_000)
            os.pwrite(second.fileno(), b"too much", len(CONTENT))
        os.fsync(first.fileno())
        first.truncate(len(CONTENT))
        assert temporary.stat().st_size == len(CONTENT)
        assert os.pread(first.fileno(), 2 * len(CONTENT), 0) == CONTENT
    temporary.rename(blob)
    assert blob.read_bytes() == CONTENT
    assert violations(mount.store, sparse=True) == []


def test_a_temporary_file_that_was_refused_can_be_written_on(mount: Mount, blob: Path) -> None:
    content = random.Random(12).randbytes(200_000)
    temporary, target = blob.parent / "temporary", blob.parent / Digest.of(content).encoded
    temporary.write_bytes(content[:100_000])
    with pytest.raises(OSError, match="Input/output error"):
        temporary.rename(target)
    with temporary.open("ab") as file:
        file.write(content[100_000:])
    temporary.rename(target)
    assert target.read_bytes() == content
    mount.await_no_unnamed_files()


def test_a_server_that_is_killed_leaves_nothing_of_a_temporary_file(mount_store: Mounter) -> None:
    with mount_store() as mount, ExitStack() as closing:
        above = mount.path / "layout" / "blobs" / "sha256"
        above.mkdir(parents=True)
        writer = closing.enter_context((above / "temporary").open("xb", buffering=0))
        writer.write(CONTENT)
        mount.kill()
        with suppress(OSError):
            writer.write(CONTENT)
        with suppress(OSError):
            writer.close()
        assert [
            path for path in mount.store.rglob("*") if path.stat().st_size == len(CONTENT)
        ] == []
        assert violations(mount.store, sparse=True) == []


def test_a_blob_is_spliced_and_inherited(mount: Mount, blob: Path) -> None:
    with blob.open("rb") as file:
        reader, writer = os.pipe()
        try:
            assert os.splice(file.fileno(), writer, 4096, offset_src=4096) == 4096
            assert os.read(reader, 4096) == CONTENT[4096:8192]
        finally:
            os.close(reader)
            os.close(writer)
        pid = os.fork()
        if pid == 0:
            os._exit(os.pread(file.fileno(), 10, 0) != CONTENT[:10])
        assert os.waitpid(pid, 0) == (pid, 0)


def test_what_the_engine_does_not_know_is_not_supported(mount: Mount, blob: Path) -> None:
    beside = blob.parents[2] / "ordinary"
    with beside.open("w+b") as file, pytest.raises(OSError, match="Inappropriate ioctl"):
        fcntl.ioctl(file, 0x5401)
    with blob.open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == len(CONTENT)


def test_a_reader_survives_the_server(mount_store: Mounter) -> None:
    with mount_store("--engine", "kernel" if os.geteuid() == 0 else "auto") as mount:
        (mount.path / "file").write_bytes(b"kept")
        with (mount.path / "file").open("rb") as file:
            mount.kill()
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked
                os.stat(mount.path / "other")
            assert caught.value.errno == errno.ENOTCONN
            with suppress(OSError):
                file.read()
    with mount_store() as mount:
        assert (mount.path / "file").read_bytes() == b"kept"
