import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import (
    DigestMismatch,
    InvalidContent,
    NotFound,
    RegistryError,
    RegistryUnavailable,
)
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout, index_layout

from ..conftest import program
from .conftest import Containerd

pytestmark = pytest.mark.containerd

BASE, APP = "example.org/base:1", "example.org/app:1"
FOREIGN = [("linux", "s390x"), ("linux", "riscv64")]


def publish(layout: Path, containerd: Containerd, name: str) -> Copied:
    with open_sink(f"containerd:{name}", access=containerd.access) as sink:
        return copy(LayoutSource(layout), sink)


def lacks(image: GeneratedImage, digests: tuple[Digest, ...]) -> None:
    for digest in digests:
        image.blob(digest).unlink()


class Watched(LayoutSource):
    """A source that does something before it opens a blob for the first time."""

    def __init__(self, path: Path, digest: Digest, then: Callable[[], object]) -> None:
        super().__init__(path)
        self._waiting = {digest: then}

    def open(self, descriptor: Descriptor) -> Blob:
        if then := self._waiting.pop(descriptor.digest, None):
            then()
        return super().open(descriptor)


@pytest.fixture
def base(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "base", seed=70, layers=2)


@pytest.fixture
def app(tmp_path: Path, base: GeneratedImage) -> GeneratedImage:
    """An app whose layout has no layer of the base."""
    app = image_layout(tmp_path / "app", seed=71, layers=1, base=base)
    lacks(app, base.layers)
    return app


@pytest.fixture
def whole_app(tmp_path: Path, base: GeneratedImage) -> GeneratedImage:
    return image_layout(tmp_path / "app", seed=71, layers=1, base=base)


def test_a_published_image_runs(tmp_path: Path, containerd: Containerd) -> None:
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", "hello"))
    copied = publish(image.path, containerd, "runs")
    assert (copied.sent, copied.losses) == (3, ())
    assert containerd.images() == {"docker.io/library/runs:latest": str(image.manifest)}
    assert containerd.ctr("run", "--rm", "docker.io/library/runs:latest", "c1") == "hello"


def test_what_containerd_exports_is_the_same_image(
    tmp_path: Path, containerd: Containerd, base: GeneratedImage
) -> None:
    publish(base.path, containerd, BASE)
    containerd.ctr("images", "export", str(tmp_path / "out.tar"), BASE)
    command = [program("skopeo"), "inspect", "--format", "{{.Digest}}"]
    done = subprocess.run(
        [*command, f"oci-archive:{tmp_path / 'out.tar'}"], check=True, capture_output=True
    )
    assert done.stdout.decode().strip() == str(base.manifest)


def test_blobs_of_other_images_are_neither_read_nor_sent(
    containerd: Containerd, base: GeneratedImage, app: GeneratedImage
) -> None:
    publish(base.path, containerd, BASE)
    copied = publish(app.path, containerd, APP)
    assert (copied.sent, copied.present) == (3, 2)
    assert containerd.is_ready(APP)
    containerd.ctr("images", "rm", "--sync", BASE)
    assert containerd.is_ready(APP)
    assert {str(digest) for digest in base.layers} <= containerd.content()


def test_an_image_that_is_there_is_not_sent(containerd: Containerd, base: GeneratedImage) -> None:
    publish(base.path, containerd, BASE)
    lacks(base, (base.config, *base.layers))
    for name in (BASE, "example.org/base:2", f"example.org/base@{base.manifest}"):
        assert publish(base.path, containerd, name).sent == 0
        assert containerd.is_ready(name)
        assert containerd.images()[name] == str(base.manifest)


def test_an_image_that_is_there_but_not_unpacked_is_unpacked(
    tmp_path: Path, containerd: Containerd, base: GeneratedImage
) -> None:
    archive = tmp_path / "a.tar"
    with open_sink(f"docker-archive:{archive}:{BASE}") as sink:
        copy(LayoutSource(base.path), sink)
    containerd.ctr("images", "import", "--no-unpack", str(archive))
    assert not containerd.is_ready(BASE)
    assert publish(base.path, containerd, BASE).sent == 0
    assert containerd.is_ready(BASE)


def test_a_name_moves(
    containerd: Containerd, base: GeneratedImage, whole_app: GeneratedImage
) -> None:
    publish(base.path, containerd, BASE)
    publish(whole_app.path, containerd, BASE)
    assert containerd.images() == {BASE: str(whole_app.manifest)}
    assert containerd.is_ready(BASE)


@pytest.mark.parametrize("platforms", [[("linux", "amd64"), *FOREIGN], FOREIGN])
def test_an_index_goes_whole(
    tmp_path: Path, containerd: Containerd, platforms: list[tuple[str, ...]]
) -> None:
    index = index_layout(tmp_path / "index", platforms=platforms)
    publish(index.path, containerd, APP)
    assert containerd.images() == {APP: str(index.index)}
    digests = {d for i in index.images for d in (i.manifest, i.config, *i.layers)}
    assert {str(digest) for digest in (index.index, *digests)} <= containerd.content()
    assert publish(index.path, containerd, APP).sent == 0


def test_an_image_for_another_machine_goes(tmp_path: Path, containerd: Containerd) -> None:
    image = image_layout(tmp_path / "layout", platform=("linux", "riscv64"))
    publish(image.path, containerd, APP)
    assert containerd.images() == {APP: str(image.manifest)}


def test_content_of_no_image_is_sent(containerd: Containerd, base: GeneratedImage) -> None:
    """The garbage collector may take such content at any moment."""
    layer = base.blob(base.layers[0])
    command = [program("ctr"), "-a", containerd.address, "-n", containerd.namespace, "content"]
    keep = [*command, "label", str(base.layers[0]), "containerd.io/gc.root=test"]
    for number in range(10):
        with layer.open("rb") as file:
            subprocess.run([*command, "ingest", f"test-{number}"], stdin=file, check=True)
        if subprocess.run(keep, check=False).returncode == 0:
            break  # else a collection that was under way took it at once
    assert containerd.content() == {str(base.layers[0])}
    assert publish(base.path, containerd, BASE).sent == 4


def test_a_base_that_vanishes_is_sent(
    containerd: Containerd, base: GeneratedImage, whole_app: GeneratedImage
) -> None:
    publish(base.path, containerd, BASE)
    source = Watched(
        whole_app.path,
        whole_app.layers[-1],
        lambda: containerd.ctr("images", "rm", "--sync", BASE),
    )
    with open_sink(f"containerd:{APP}", access=containerd.access) as sink:
        assert copy(source, sink).present == 2
    assert containerd.is_ready(APP)
    assert containerd.images() == {APP: str(whole_app.manifest)}


def test_an_import_that_calls_an_incomplete_image_imported_is_not_believed(
    tmp_path: Path, containerd: Containerd
) -> None:
    """What is not unpacked is not missed: `ctr images import --no-unpack` succeeds."""
    first = index_layout(tmp_path / "first", platforms=FOREIGN)
    publish(first.path, containerd, BASE)
    second = index_layout(tmp_path / "second", platforms=FOREIGN, layers=3)
    source = Watched(
        second.path,
        second.images[0].layers[-1],
        lambda: containerd.ctr("images", "rm", "--sync", BASE),
    )
    with open_sink(f"containerd:{APP}", access=containerd.access) as sink:
        assert copy(source, sink).present > 0
    digests = {d for i in second.images for d in (i.manifest, i.config, *i.layers)}
    assert {str(digest) for digest in (second.index, *digests)} <= containerd.content()


@pytest.mark.parametrize("named", [False, True])
def test_an_image_that_cannot_become_complete_leaves_no_record(
    tmp_path: Path, containerd: Containerd, base: GeneratedImage, app: GeneratedImage, named: bool
) -> None:
    publish(base.path, containerd, BASE)
    other = image_layout(tmp_path / "other", seed=72)
    if named:
        publish(other.path, containerd, APP)
    before = containerd.images()
    source = Watched(
        app.path, app.layers[-1], lambda: containerd.ctr("images", "rm", "--sync", BASE)
    )
    with (
        open_sink(f"containerd:{APP}", access=containerd.access) as sink,
        pytest.raises(NotFound, match="sha256:"),
    ):
        copy(source, sink)
    del before[BASE]
    assert containerd.images() == before
    assert containerd.is_ready(APP) is named


def test_what_a_killed_publisher_left_is_removed(
    containerd: Containerd, base: GeneratedImage, whole_app: GeneratedImage
) -> None:
    publish(base.path, containerd, BASE)
    containerd.ctr("images", "tag", BASE, f"unfinished.invalid/{APP}")
    publish(whole_app.path, containerd, APP)
    assert containerd.images() == {BASE: str(base.manifest), APP: str(whole_app.manifest)}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_record_that_cannot_be_removed_hides_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    containerd: Containerd,
    base: GeneratedImage,
    damaged: bool,
) -> None:
    wrapper = tmp_path / "bin" / "ctr"
    wrapper.parent.mkdir()
    refusal = "echo 'ctr: refused' >&2; exit 1"
    wrapper.write_text(
        f"#!/bin/sh\ncase $* in *' images rm '*) {refusal};; esac\nexec {program('ctr')} \"$@\"\n"
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    if damaged:
        blob = base.blob(base.layers[-1])
        blob.write_bytes(bytes(blob.stat().st_size))
        with pytest.raises(DigestMismatch):
            publish(base.path, containerd, BASE)
    else:
        publish(base.path, containerd, BASE)
        assert containerd.is_ready(BASE)
        assert f"unfinished.invalid/{BASE} stays behind: " in caplog.text


def test_a_damaged_blob_leaves_the_name(containerd: Containerd, base: GeneratedImage) -> None:
    layer = base.blob(base.layers[1])
    layer.write_bytes(bytes(layer.stat().st_size))
    with pytest.raises(DigestMismatch, match=base.layers[1].encoded):
        publish(base.path, containerd, BASE)
    assert containerd.images() == {}


def test_what_containerd_cannot_unpack_leaves_the_name(
    containerd: Containerd, base: GeneratedImage, whole_app: GeneratedImage
) -> None:
    """A layer that is what its digest says, but no archive."""
    publish(base.path, containerd, APP)
    raw = b"no archive"
    digest = Digest.of(raw)
    manifest = whole_app.blob(whole_app.manifest).read_bytes()
    old = whole_app.layers[-1]
    size = whole_app.blob(old).stat().st_size
    manifest = manifest.replace(str(old).encode(), str(digest).encode())
    manifest = manifest.replace(f'"size": {size}'.encode(), f'"size": {len(raw)}'.encode())
    for content in (raw, manifest):
        whole_app.blob(Digest.of(content)).write_bytes(content)
    index = (whole_app.path / "index.json").read_text()
    index = index.replace(str(whole_app.manifest), str(Digest.of(manifest)))
    before = whole_app.blob(whole_app.manifest).stat().st_size
    (whole_app.path / "index.json").write_text(index.replace(str(before), str(len(manifest))))
    with pytest.raises(RegistryError, match=f"^containerd at {containerd.address}: ") as raised:
        publish(whole_app.path, containerd, APP)
    assert "\n" not in str(raised.value)
    assert containerd.images() == {APP: str(base.manifest)}
    assert containerd.is_ready(APP)


def test_nobody_listens(tmp_path: Path) -> None:
    access = Access(containerd=str(tmp_path / "none"))
    with (
        pytest.raises(RegistryUnavailable, match=f"containerd at {tmp_path}/none: no such file"),
        open_sink("containerd:app", access=access),
    ):
        pass


def test_without_ctr_the_reason_is_told(
    containerd: Containerd, base: GeneratedImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RegistryError, match="the program 'ctr' is not on PATH"):
        publish(base.path, containerd, BASE)


def test_a_name_that_is_another_digest_is_refused(
    containerd: Containerd, base: GeneratedImage
) -> None:
    with pytest.raises(InvalidContent, match="cannot name"):
        publish(base.path, containerd, f"app@{base.config}")
