from pathlib import Path

import pytest

from ocistow.oci.descriptor import REF_NAME, Descriptor
from ocistow.oci.errors import NotFound
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.containerd.source import ContainerdSource
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import image_layout, index_layout

from .conftest import Containerd

pytestmark = pytest.mark.containerd

NAME = Reference.parse("example.org/back:1")


def publish(layout: Path, containerd: Containerd, name: str) -> None:
    with open_sink(f"containerd:{name}", access=containerd.access) as sink:
        copy(LayoutSource(layout), sink)


def add(
    tmp_path: Path, containerd: Containerd, name: str, platform: Platform | None = None
) -> Copied:
    with (
        Store.create(tmp_path / "store") as store,
        open_source(
            f"containerd:{name}", store, platform=platform, access=containerd.access
        ) as source,
    ):
        return copy(source, StoreSink(store, NAME))


def test_an_image_comes_back_bit_for_bit(tmp_path: Path, containerd: Containerd) -> None:
    image = image_layout(tmp_path / "layout", layer_size=3 << 20)
    publish(image.path, containerd, "app")
    copied = add(tmp_path, containerd, "app")
    assert (copied.sent, copied.root.digest) == (5, image.manifest)
    assert copied.root.annotations == {REF_NAME: "docker.io/library/app:latest"}
    assert add(tmp_path, containerd, "docker.io/library/app:latest").sent == 0


def test_only_what_the_store_lacks_is_read(
    tmp_path: Path, containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image_layout(tmp_path / "layout", tag="base")
    app = image_layout(tmp_path / "layout", seed=1, layers=1, base=base, tag="app")
    for name, image in (("base", base), ("app", app)):
        with open_sink(f"containerd:{name}", access=containerd.access) as sink:
            copy(LayoutSource(image.path, name), sink)
    add(tmp_path, containerd, "base")
    opened: list[str] = []
    open_blob = ContainerdSource.open

    def watched(self: ContainerdSource, descriptor: Descriptor) -> Blob:
        opened.append(str(descriptor.digest))
        return open_blob(self, descriptor)

    monkeypatch.setattr(ContainerdSource, "open", watched)
    assert add(tmp_path, containerd, "app").sent == 3
    assert set(opened) == {str(d) for d in (app.manifest, app.config, app.layers[-1])}


def test_of_an_index_all_or_one_is_taken(tmp_path: Path, containerd: Containerd) -> None:
    index = index_layout(tmp_path / "index")
    publish(index.path, containerd, "app")
    assert add(tmp_path, containerd, "app").root.digest == index.index
    arm = add(tmp_path, containerd, "app", Platform("linux", "arm64"))
    assert arm.root.digest == index.images[1].manifest


def test_platforms_that_were_not_pulled_are_told(tmp_path: Path, containerd: Containerd) -> None:
    index = index_layout(tmp_path / "index")
    publish(index.path, containerd, "app")
    containerd.ctr("content", "rm", str(index.images[1].manifest))
    with pytest.raises(NotFound, match=r"there: linux/amd64; choose one with --platform"):
        add(tmp_path, containerd, "app")
    amd = add(tmp_path, containerd, "app", Platform("linux", "amd64"))
    assert amd.root.digest == index.images[0].manifest


@pytest.mark.parametrize("part", ["config", "layer", "manifest"])
def test_what_is_gone_is_named(tmp_path: Path, containerd: Containerd, part: str) -> None:
    image = image_layout(tmp_path / "layout")
    publish(image.path, containerd, "app")
    parts = {"config": image.config, "layer": image.layers[0], "manifest": image.manifest}
    containerd.ctr("content", "rm", str(parts[part]))
    with pytest.raises(NotFound) as raised:
        add(tmp_path, containerd, "app")
    assert raised.value.name == parts[part]


def test_no_such_image(tmp_path: Path, containerd: Containerd) -> None:
    with pytest.raises(NotFound, match="library/none:latest in containerd at"):
        add(tmp_path, containerd, "none")
