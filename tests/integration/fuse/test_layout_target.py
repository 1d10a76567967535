"""The exporter's layouts on a mount, which has every base layer already."""

import io
import os
import random
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.images.assembly import Assembly
from ocistow.lifecycle.images.config import moment
from ocistow.lifecycle.images.image import Image, Layer, Saved
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.rebase import rebase
from ocistow.lifecycle.targets.layout import LayoutTarget, open_layouts
from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.publish.packing import pack
from ocistow.store.store import Store
from ocistow.testing.apps import make_app, make_run_image
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import violations
from ocistow.testing.mounts import Mount, unmount

pytestmark = pytest.mark.fuse

LARGE = 4 << 20  # bytes of a layer; what is read of metadata is far less
APP = "index.docker.io/library/app/latest"


@pytest.fixture
def target(shared_mount: Mount, here: Path) -> Generator[LayoutTarget]:
    """A directory on the mount, of which nothing else can be seen, as in a container."""
    with open_layouts(here) as target:
        yield target


@pytest.fixture
def run_image(here: Path) -> GeneratedImage:
    """A run image on the mount, with large layers that no other test has."""
    seed = int.from_bytes(here.name.encode()) % 1_000_000
    path = here / "index.docker.io/cnb/run/bionic"
    return image_layout(path, seed=seed, layers=2, layer_size=LARGE, compression="none")


def there(target: LayoutTarget, reference: str) -> Image:
    with target.find(reference) as image:
        assert image is not None
        return image


def export(target: LayoutTarget, content: bytes, *names: str) -> tuple[Saved, Layer]:
    run = there(target, "cnb/run:bionic")
    with target.staging(names[0]) as staging, staging.blobs.ingest() as ingest:
        layer = pack(io.BytesIO(content), ingest, "sha256").layer
        assembly = Assembly(run)
        assembly.add(Layer(layer.diff_id, layer.blob), ingest, "new")
        saved = target.save(assembly.finish(moment(None), with_history=True), names)
        return saved, Layer(layer.diff_id, layer.blob)


@contextmanager
def moved() -> Generator[Callable[[], tuple[int, int]]]:
    """Yield what tells how many bytes this process has read and written since."""

    def count() -> tuple[int, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        facts = dict(line.split(": ") for line in lines)
        return int(facts["rchar"]), int(facts["wchar"])

    before = count()
    yield lambda: (count()[0] - before[0], count()[1] - before[1])


def test_layers_of_the_base_are_neither_read_nor_written(
    target: LayoutTarget, run_image: GeneratedImage, here: Path
) -> None:
    with moved() as bytes_moved:
        saved, layer = export(target, b"content", "app", "other/app:2")
        read, written = bytes_moved()
    assert saved.failed == ()
    assert read < LARGE // 4
    assert written < LARGE // 4
    for path in (APP, "index.docker.io/other/app/2"):
        image = there(target, str(here / path))
        assert image.root.digest == saved.digest
        assert image.layers[-1] == layer
        for digest in (*run_image.layers, layer.blob.digest):
            blob = here / path / "blobs/sha256" / digest.encoded
            assert Digest.of(blob.read_bytes()) == digest


def test_layouts_of_a_container_may_be_mounts_of_their_own(
    target: LayoutTarget, run_image: GeneratedImage, here: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a directory elsewhere")
    there_too = [tmp_path / "oci" / path for path in ("index.docker.io/cnb/run/bionic", APP)]
    (here / APP).mkdir(parents=True)
    with ExitStack() as mounts:
        for path in there_too:
            path.mkdir(parents=True)
            source = here / path.relative_to(tmp_path / "oci")
            subprocess.run(["mount", "--bind", source, path], check=True)
            mounts.callback(unmount, path)
        with open_layouts(tmp_path / "oci") as inside:
            with inside.staging("app"):
                pass
            with moved() as bytes_moved:
                saved, _ = export(inside, b"content", "app")
                read, written = bytes_moved()
    assert max(read, written) < LARGE // 4
    assert there(target, "app").root.digest == saved.digest


def test_a_new_layer_is_written_once(
    target: LayoutTarget, run_image: GeneratedImage, here: Path
) -> None:
    content = random.Random(here.name).randbytes(LARGE)
    with moved() as bytes_moved:
        export(target, content, "app", "app:2")
        _, written = bytes_moved()
    assert LARGE <= written < LARGE * 5 // 4
    assert not [n for n in os.listdir(here / APP / "blobs/sha256") if n.startswith(".")]


def test_what_was_not_saved_leaves_nothing(target: LayoutTarget, here: Path) -> None:
    with target.staging("app") as staging, staging.blobs.ingest() as ingest:
        ingest.write(b"content")
    assert os.listdir(here) == []


def test_an_image_takes_the_place_of_another(
    target: LayoutTarget, run_image: GeneratedImage, here: Path
) -> None:
    first, _ = export(target, b"one", "app")
    second, _ = export(target, b"two", "app")
    assert first.digest != second.digest
    again, _ = export(target, b"one", "app")
    assert again == first
    image = there(target, "app")
    assert image.root.digest == first.digest
    assert image.root.annotations == {REF_NAME: "latest"}


def test_a_rebase_moves_no_layer(target: LayoutTarget, here: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run_image(target, f"run:{seed}", tmp_path / f"{seed}", seed=seed, layers=seed)
    make_app(target, "app", "run:1")
    inputs = Inputs(
        Version(0, 12),
        image="app",
        run_image="run:2",
        force_rebase=True,
        report_path=tmp_path / "report.toml",
    )
    app = there(target, "app")
    saved = rebase(inputs, target, _silent())
    rebased = there(target, "app")
    assert rebased.root.digest == saved.digest
    assert rebased.layers == (*there(target, "run:2").layers, app.layers[-1])
    other = rebase(replace(inputs, image="other", previous_image="app"), target, _silent())
    assert there(target, "other").root.digest == other.digest


def test_the_store_is_whole_after_all(
    target: LayoutTarget, run_image: GeneratedImage, shared_mount: Mount
) -> None:
    export(target, b"content", "app")
    assert violations(shared_mount.store, sparse=True) == []
    with Store.open(shared_mount.store) as store:
        assert list(store.names())


def _silent() -> Console:
    return Console(io.BytesIO())
