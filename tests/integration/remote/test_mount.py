"""Reading layers through a mount that fetches them, from a registry that counts requests."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ocistow.fusefs.engines.choice import NAMES
from ocistow.oci.digest import Digest
from ocistow.testing.faults import Fault, Flip, Stall, Status
from ocistow.testing.images import GeneratedImage
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, command_line, environment, mounted, run, wait_until
from ocistow.testing.registry import Registry

from ..conftest import program
from .conftest import LAYER_SIZE, everything, ok, pool

pytestmark = pytest.mark.fuse

NAME = "example.com/app:1"
LAYOUT = "example.com/app/1"


@pytest.fixture
def registry(image: GeneratedImage) -> Iterator[Registry]:
    with Registry() as registry:
        registry.repositories.load(image.path, "app")
        yield registry


@pytest.fixture
def store(fuse: None, tmp_path: Path, registry: Registry) -> Path:
    store = tmp_path / "store"
    ok(run(store, "add", "--lazy", f"docker://{registry.host}/app:latest", NAME))
    registry.requests.clear()
    return store


@pytest.fixture
def mount(store: Path, tmp_path: Path) -> Iterator[Mount]:
    with mounted(store, tmp_path / "mnt", "--fill") as mount:
        yield mount
    assert violations(store, sparse=True) == []


def blob(mount: Mount, digest: Digest) -> Path:
    return mount.path / LAYOUT / "blobs" / digest.algorithm / digest.encoded


def gets(registry: Registry, digest: Digest) -> int:
    return sum(r.method == "GET" and r.path.endswith(str(digest)) for r in registry.requests)


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@contextmanager
def cat(path: Path) -> Generator["subprocess.Popen[bytes]"]:
    """Read a file in another process: what waits for the mount must not be the test."""
    with subprocess.Popen(
        ["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_absent_layer_has_its_size_and_comes_when_it_is_read(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    first, second = image.layers[:2]
    assert blob(mount, first).stat().st_size == image.blob(first).stat().st_size
    assert registry.requests == []
    assert digest_of(blob(mount, first)) == str(first)
    assert gets(registry, first) == 1
    assert pool(mount.store) == {str(d) for d in (image.manifest, image.config, first)}
    assert (mount.layouts / LAYOUT / "blobs/sha256" / first.encoded).stat().st_nlink == 2
    assert digest_of(blob(mount, first)) == str(first)
    assert gets(registry, first) == 1
    assert blob(mount, first).stat().st_blocks > 0
    assert not blob(mount, Digest.of(b"nobody mentions this")).exists()
    assert os.listdir(blob(mount, second).parent) == sorted(
        d.encoded for d in (image.manifest, image.config, first)
    )


def test_readers_at_once_cost_one_request(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(layer), stall))
    with cat(blob(mount, layer)) as one, cat(blob(mount, layer)) as two:
        assert stall.reached.wait(60)
        stall.go_on.set()
        for process in (one, two):
            content, said = process.communicate(timeout=60)
            assert (hashlib.sha256(content).hexdigest(), said) == (layer.encoded, b"")
    assert gets(registry, layer) == 1


def test_others_are_served_while_a_layer_comes(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    slow, quick = image.layers[:2]
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(slow), stall))
    with cat(blob(mount, slow)) as waiting:
        assert stall.reached.wait(60)
        assert digest_of(blob(mount, quick)) == str(quick)
        assert digest_of(blob(mount, image.manifest)) == str(image.manifest)
        assert str(slow) not in pool(mount.store)
        stall.go_on.set()
        assert hashlib.sha256(waiting.communicate(timeout=60)[0]).hexdigest() == slow.encoded


def test_a_remote_that_hangs_is_no_bug_to_the_watchdog(
    store: Path, tmp_path: Path, registry: Registry, image: GeneratedImage
) -> None:
    layer, patience = image.layers[0], 0.2
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(layer), stall))
    with mounted(store, tmp_path / "mnt", "--fill", f"--patience={patience}") as mount:
        with cat(blob(mount, layer)) as waiting:
            assert stall.reached.wait(60)
            threading.Event().wait(6 * patience)  # in which a bug would have ended it, twice
            assert mount.log.matching("^(ERROR|WARNING)") == []
            os.kill(mount.pid, signal.SIGUSR1)
            [asked] = mount.log.wait_for("^(ERROR|WARNING)")
            assert "asked for the state" in asked
            stall.go_on.set()
            assert hashlib.sha256(waiting.communicate(timeout=60)[0]).hexdigest() == layer.encoded
        assert mount.stop() == 0
        assert len(mount.log.matching("^(ERROR|WARNING)")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", NAMES)
def test_who_waits_can_be_interrupted_and_the_layer_comes_all_the_same(
    store: Path,
    tmp_path: Path,
    registry: Registry,
    image: GeneratedImage,
    name: str,
    number: signal.Signals,
) -> None:
    if name == "kernel" and os.geteuid() != 0:
        pytest.skip("only root can mount without help")
    layer = image.layers[0]
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(layer), stall))
    with mounted(store, tmp_path / "mnt", "--fill", "--engine", name) as mount:
        with cat(blob(mount, layer)) as waiting:
            assert stall.reached.wait(60)
            waiting.send_signal(number)
            assert waiting.wait(60) == -number
        stall.go_on.set()
        wait_until(lambda: str(layer) in pool(mount.store), "the layer is there")
        assert digest_of(blob(mount, layer)) == str(layer)
    assert gets(registry, layer) == 1


def test_a_lying_remote_is_an_error_and_names_nothing(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    registry.faults.append(Fault("GET", str(layer), Flip(7)))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        blob(mount, layer).read_bytes()
    assert str(layer) not in pool(mount.store)
    [warning] = mount.log.wait_for(f"cannot fetch {layer}")
    assert f"{registry.host}/app has no good {layer}" in warning


def test_a_remote_that_refuses_is_said(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    registry.faults.append(Fault("GET", str(layer), Status(403)))
    with pytest.raises(OSError, match=os.strerror(errno.EREMOTEIO)):
        blob(mount, layer).read_bytes()
    mount.log.wait_for(f"cannot fetch {layer}.*403")


def test_a_remote_that_stopped_is_an_error_and_no_hang(
    tmp_path: Path, image: GeneratedImage
) -> None:
    store = tmp_path / "store"
    with Registry() as registry:
        registry.repositories.load(image.path, "app")
        ok(run(store, "add", "--lazy", f"docker://{registry.host}/app:latest", NAME))
    with mounted(store, tmp_path / "mnt", "--fill") as mount:
        for layer in image.layers:
            with pytest.raises(OSError, match=os.strerror(errno.EREMOTEIO)):
                blob(mount, layer).read_bytes()
        assert digest_of(blob(mount, image.config)) == str(image.config)


def test_without_the_option_an_absent_layer_is_absent(
    store: Path, tmp_path: Path, registry: Registry, image: GeneratedImage
) -> None:
    with mounted(store, tmp_path / "mnt") as mount:
        assert not blob(mount, image.layers[0]).exists()
        assert digest_of(blob(mount, image.manifest)) == str(image.manifest)
    assert registry.requests == []


def test_absent_layers_are_filled_without_virtual_presence_and_read_only(
    store: Path, tmp_path: Path, image: GeneratedImage
) -> None:
    options = ("--fill", "--read-only", "--no-virtual-presence")
    with mounted(store, tmp_path / "mnt", *options) as mount:
        for layer in image.layers:
            assert digest_of(blob(mount, layer)) == str(layer)
    assert violations(store) == []


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_archive_of_a_lazy_image_is_whole_when_it_is_opened(
    mount: Mount, registry: Registry, image: GeneratedImage, form: str
) -> None:
    archive = mount.path / ".archives" / f"{LAYOUT}.{form}.tar"
    size = archive.stat().st_size
    assert registry.requests == []
    raw = archive.read_bytes()
    assert len(raw) == size
    assert pool(mount.store) == everything(image)
    command = command_line(mount.store, "publish", NAME, f"{form}-archive:-")
    done = subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert raw == done.stdout


def test_why_an_archive_cannot_be_whole(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    archive, layer = mount.path / ".archives" / f"{LAYOUT}.oci.tar", image.layers[1]
    registry.faults.append(Fault("GET", str(layer), Status(403)))
    with pytest.raises(OSError, match=os.strerror(errno.EREMOTEIO)):
        archive.read_bytes()
    mount.log.wait_for(f"cannot fetch {layer}.*403")


def test_a_layer_can_be_written_instead_of_fetched(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    assert blob(mount, layer).exists()
    shutil.copyfile(image.blob(layer), blob(mount, layer))
    assert digest_of(blob(mount, layer)) == str(layer)
    assert registry.requests == []


def test_a_layer_that_was_removed_stays_away(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    assert blob(mount, layer).exists()
    blob(mount, layer).unlink()
    assert not blob(mount, layer).exists()
    assert registry.requests == []


def test_an_evicted_layer_comes_back(
    mount: Mount, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    ok(run(mount.store, "remote", "add", "tier", f"docker://{registry.host}/app"))
    held = os.open(blob(mount, layer), os.O_PATH)  # what the kernel forgets may get another number
    inode = os.fstat(held).st_ino
    with ExitStack() as closing:
        closing.callback(os.close, held)
        assert digest_of(blob(mount, layer)) == str(layer)
        with blob(mount, layer).open("rb") as reading:
            said = ok(run(mount.store, "gc", "--evict", "--grace=0"))
            assert "evicted 0 layers" in said
            assert "1 in use" in said  # the mount has promised it
            assert hashlib.sha256(reading.read()).hexdigest() == layer.encoded
        for file in (mount.store / "leases").iterdir():
            file.unlink()  # and with it the promise
        assert "evicted 1 layer" in ok(run(mount.store, "gc", "--evict", "--grace=0"))
        assert digest_of(blob(mount, layer)) == str(layer)
        assert blob(mount, layer).stat().st_ino == inode
    assert gets(registry, layer) == 2


@pytest.mark.tools
def test_skopeo_copies_a_lazy_image_out_of_the_mount(
    mount: Mount, registry: Registry, image: GeneratedImage, tmp_path: Path
) -> None:
    target = f"oci:{tmp_path / 'copy'}:1"
    source = f"oci:{mount.path / LAYOUT}:1"
    command = [program("skopeo"), "copy", source, target]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert {f"sha256:{f.name}" for f in (tmp_path / "copy/blobs/sha256").iterdir()} == everything(
        image
    )
    assert pool(mount.store) == everything(image)
    assert violations(mount.store) == []


def test_a_mount_that_is_killed_while_it_fetches_leaves_nothing(
    store: Path, tmp_path: Path, registry: Registry, image: GeneratedImage
) -> None:
    layer = image.layers[0]
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(layer), stall))
    with mounted(store, tmp_path / "mnt", "--fill") as mount, cat(blob(mount, layer)):
        assert stall.reached.wait(60)
        mount.kill()
    assert violations(store, sparse=True) == []
    assert str(layer) not in pool(store)
    with mounted(store, tmp_path / "mnt", "--fill") as mount:
        assert digest_of(blob(mount, layer)) == str(layer)


@pytest.mark.parametrize("read", ["layer", "archive"])
def test_a_mount_ends_although_a_fetch_does_not(
    store: Path, tmp_path: Path, registry: Registry, image: GeneratedImage, read: str
) -> None:
    layer = image.layers[0]
    stall = Stall(LAYER_SIZE // 2)
    registry.faults.append(Fault("GET", str(layer), stall))
    with mounted(store, tmp_path / "mnt", "--fill") as mount, ExitStack() as closing:
        archive = mount.path / ".archives" / f"{LAYOUT}.oci.tar"
        waiting = closing.enter_context(cat(archive if read == "archive" else blob(mount, layer)))
        assert stall.reached.wait(60)
        assert mount.stop() == 0
        assert waiting.wait(60) != 0
    assert str(layer) not in pool(store)
