"""What lifecycle phases do: go-containerregistry's writer, replayed call by call."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.layout_writer import image_of, open_blob, write_image

from .conftest import Mounter

pytestmark = pytest.mark.fuse

NOBODY = 65534

# Python 3.12 warns of threads, here of a mount's log; the child takes none of their locks.
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> GeneratedImage:
    path = tmp_path_factory.mktemp("base") / "layout"
    return image_layout(path, seed=11, layers=2, layer_size=300_000, compression="none")


@pytest.fixture(scope="module")
def app(base: GeneratedImage, tmp_path_factory: pytest.TempPathFactory) -> GeneratedImage:
    """An image of two layers of its own over those of `base`."""
    path = tmp_path_factory.mktemp("app") / "layout"
    return image_layout(path, seed=12, layers=2, layer_size=70_000, compression="none", base=base)


def size_of(image: GeneratedImage, *numbers: int) -> int:
    return sum(image.blob(image.layers[number]).stat().st_size for number in numbers)


def documents_of(image: GeneratedImage) -> int:
    return sum(image.blob(d).stat().st_size for d in (image.config, image.manifest))


def assert_equal(layout: Path, image: GeneratedImage, *, absent: int = 0) -> None:
    for digest in (*image.layers[absent:], image.config, image.manifest):
        file = open_blob(layout / "blobs" / "sha256" / digest.encoded)
        with open(file, "rb") as stream:
            assert stream.read() == image.blob(digest).read_bytes()


def as_user(user: int, call: Callable[[], object]) -> None:
    """Make a call in a child process of another user, which must not raise."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            call()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_layers_of_the_base_are_not_written(
    mount_store: Mounter, base: GeneratedImage, app: GeneratedImage
) -> None:
    with mount_store() as mount:
        shutil.copytree(base.path, mount.path / "base")
        image = image_of(app, base=mount.path / "base", base_layers=2)
        report = write_image(mount.path / "registry.example" / "app" / "latest", image)
        assert report.written == size_of(app, 2, 3) + documents_of(app)
        assert sorted(report.skipped) == sorted(app.layers[:2])
        layout = mount.layouts / "registry.example" / "app" / "latest"
        assert_equal(mount.path / "registry.example" / "app" / "latest", app)
        assert_equal(layout, app)  # the commit has linked what was not written
        again = write_image(mount.path / "registry.example" / "app" / "latest", image)
        assert again.written == 0
        elsewhere = write_image(mount.path / "registry.example" / "copy" / "latest", image)
        assert elsewhere.written == 0
        assert mount.warnings == []
    assert violations(mount.store) == []


def test_without_virtual_presence_they_are_written_and_kept_once(
    mount_store: Mounter, base: GeneratedImage, app: GeneratedImage
) -> None:
    with mount_store("--no-virtual-presence") as mount:
        shutil.copytree(base.path, mount.path / "base")
        image = image_of(app, base=mount.path / "base", base_layers=2)
        report = write_image(mount.path / "app", image)
        assert report.written == size_of(app, 0, 1, 2, 3) + documents_of(app)
        assert report.skipped == []
        assert_equal(mount.path / "app", app)
        for digest in app.layers[:2]:
            blob = mount.layouts / "app" / "blobs" / "sha256" / digest.encoded
            assert blob.samefile(mount.store / "blobs" / "sha256" / digest.encoded)
        assert mount.warnings == []
        mount.await_no_unnamed_files()
    assert violations(mount.store) == []


def test_a_copy_in_the_kernel_falls_back(
    mount_store: Mounter, base: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, "as an old kernel says")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with mount_store("--no-virtual-presence") as mount:
        image = image_of(base, base=base.path, base_layers=2)
        write_image(mount.path / "copy", image)
        assert_equal(mount.path / "copy", base)


def test_a_sparse_image_stays_sparse(mount_store: Mounter, app: GeneratedImage) -> None:
    with mount_store() as mount:
        report = write_image(mount.path / "app", image_of(app, base_layers=2))
        assert report.written == size_of(app, 2, 3) + documents_of(app)
        assert_equal(mount.path / "app", app, absent=2)
        names = os.listdir(mount.path / "app" / "blobs" / "sha256")
        assert not {digest.encoded for digest in app.layers[:2]} & set(names)
    assert violations(mount.store, sparse=True) == []
    assert violations(mount.store) != []


def test_without_virtual_presence_it_stays_sparse_beside_a_full_pool(
    mount_store: Mounter, app: GeneratedImage
) -> None:
    with mount_store("--no-virtual-presence") as mount:
        shutil.copytree(app.path, mount.path / "full")
        write_image(mount.path / "app", image_of(app, base_layers=2))
        assert_equal(mount.path / "app", app, absent=2)
        for digest in app.layers[:2]:
            assert not (mount.path / "app" / "blobs" / "sha256" / digest.encoded).exists()
        assert_equal(mount.path / "full", app)
    with mount_store():  # which shows it complete again, since the pool has all
        assert_equal(mount.path / "app", app)


@FORKS
def test_another_user_writes_when_others_are_let_in(
    mount_store: Mounter, base: GeneratedImage, app: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with mount_store("--allow-other", "--umask", "000") as mount:
        shutil.copytree(base.path, mount.path / "base")
        monkeypatch.chdir(mount.path)  # from here on no directory above is looked at
        image = image_of(app, base=Path("base"), base_layers=2)

        as_user(NOBODY, lambda: write_image(Path("app/latest"), image))
        assert_equal(Path("app/latest"), app)
        as_user(1234, lambda: shutil.rmtree("app/latest"))
        assert os.listdir("app") == []
        monkeypatch.chdir("/")
        assert mount.warnings == []


@FORKS
def test_others_are_kept_out_unless_let_in(
    mount_store: Mounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")

    def look() -> None:
        with pytest.raises(PermissionError):
            os.listdir("mnt")

    with mount_store("--no-allow-other") as mount:
        monkeypatch.chdir(mount.path.parent)
        os.chmod(mount.path.parent, 0o755)
        as_user(NOBODY, look)
        monkeypatch.chdir("/")


def test_a_build_that_is_killed_leaves_the_last_image(
    mount_store: Mounter, base: GeneratedImage, app: GeneratedImage
) -> None:
    with mount_store() as mount:
        write_image(mount.path / "app", image_of(base, base=base.path, base_layers=2))
        before = (mount.path / "app" / "index.json").read_bytes()
        index = os.open(mount.path / "app" / "index.json", os.O_WRONLY | os.O_TRUNC)
        os.write(index, b'{"schemaVersion":2,"manif')
        layer = mount.path / "app" / "blobs" / "sha256" / (app.layers[2].encoded + "1234")
        layer.write_bytes(app.blob(app.layers[2]).read_bytes()[:1000])
        mount.kill()
        assert (mount.layouts / "app" / "index.json").read_bytes() == before
    os_close_quietly(index)
    assert violations(mount.store) == []


def os_close_quietly(file: int) -> None:
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.close(file)
