import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ocistow.oci.descriptor import REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch, InvalidContent, NotFound
from ocistow.oci.platform import Platform
from ocistow.oci.reference import Reference
from ocistow.publish.archives.forms import DockerForm
from ocistow.publish.archives.layout_tar import IMAGE_NAME
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink, StoreSource, contents
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout

from ..conftest import NAME

FORMS = ("oci-archive", "docker-archive")


def publish(layout: Path, destination: str, without: frozenset[Digest] = frozenset()) -> Copied:
    with open_sink(destination, without=without) as sink:
        return copy(LayoutSource(layout), sink)


def files(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive, "r:") as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        return {name: file.read() for name, file in found.items() if file is not None}


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_is_the_image_bit_for_bit(
    tmp_path: Path, store: Store, image: GeneratedImage, form: str
) -> None:
    file = tmp_path / "a.tar"
    copied = publish(image.path, f"{form}:{file}")
    assert (copied.sent, copied.present, copied.losses) == (5, 0, ())
    with open_source(f"oci-archive:{file}", store) as source:
        assert copy(source, StoreSink(store, NAME)).root.digest == image.manifest
    assert {Digest.of(c) for n, c in files(file).items() if n.startswith("blobs/")} == {
        image.manifest,
        image.config,
        *image.layers,
    }


def test_what_describes_comes_first(tmp_path: Path) -> None:
    index = index_layout(tmp_path / "index")
    publish(index.path, f"oci-archive:{tmp_path / 'a.tar'}")
    names = list(files(tmp_path / "a.tar"))
    documents = {index.index, *(image.manifest for image in index.images)}
    assert names[:3] == ["oci-layout", "index.json", f"blobs/sha256/{index.index.encoded}"]
    assert set(names[2:5]) == {f"blobs/sha256/{digest.encoded}" for digest in documents}


@pytest.mark.parametrize("form", FORMS)
def test_its_bytes_depend_on_image_and_name_only(tmp_path: Path, form: str) -> None:
    made: list[bytes] = []
    for number in range(2):
        with Store.create(tmp_path / f"store{number}") as store:
            image_layout(tmp_path / f"layout{number}", layers=3)
            copy(LayoutSource(tmp_path / f"layout{number}"), StoreSink(store, NAME))
            file = tmp_path / f"{number}.tar"
            with open_sink(f"{form}:{file}:app:2", store) as sink:
                copy(StoreSource(store.layout(NAME.path)), sink)
            os.utime(file, (number, number))
            made.append(file.read_bytes())
    assert made[0] == made[1]


def test_the_name_of_an_oci_archive(tmp_path: Path, image: GeneratedImage) -> None:
    for text in ("", ":v2", ":example.org/a/b:1"):
        file = tmp_path / "a.tar"
        publish(image.path, f"oci-archive:{file}{text}")
        [entry] = json.loads(files(file)["index.json"])["manifests"]
        assert entry["annotations"][REF_NAME] == (text[1:] or "latest")
    with pytest.raises(InvalidContent, match="'@0' is no name"):
        publish(image.path, f"oci-archive:{tmp_path / 'b.tar'}:@0")


def test_the_name_of_a_docker_archive(tmp_path: Path, image: GeneratedImage) -> None:
    file = tmp_path / "a.tar"
    publish(image.path, f"docker-archive:{file}")
    assert json.loads(files(file)["manifest.json"])[0]["RepoTags"] is None
    publish(image.path, f"docker-archive:{file}:localhost:5000/app:2")
    [entry] = json.loads(files(file)["manifest.json"])
    assert entry["RepoTags"] == ["localhost:5000/app:2"]
    assert [Digest.of(files(file)[name]) for name in entry["Layers"]] == list(image.layers)
    assert Digest.of(files(file)[entry["Config"]]) == image.config
    with pytest.raises(InvalidContent, match="by tag only"):
        publish(image.path, f"docker-archive:{file}:app@{image.manifest}")


def test_a_name_of_docker_hub_is_written_as_containerd_stores_it(
    tmp_path: Path, image: GeneratedImage
) -> None:
    publish(image.path, f"docker-archive:{tmp_path / 'a.tar'}:app:2")
    written = files(tmp_path / "a.tar")
    [entry] = json.loads(written["manifest.json"])
    [described] = json.loads(written["index.json"])["manifests"]
    name = "docker.io/library/app:2"
    assert entry["RepoTags"] == [name]
    assert described["annotations"] == {IMAGE_NAME: name, REF_NAME: "2"}


def test_a_docker_archive_is_for_one_platform(tmp_path: Path) -> None:
    index = index_layout(tmp_path / "index", platforms=[("linux", "amd64"), ("linux", "riscv64")])
    assert DockerForm().platform() == Platform.parse(f"linux/{os.uname().machine}")
    riscv = index.images[1].manifest
    with open_sink(f"docker-archive:{tmp_path / 'a.tar'}") as sink:
        copied = copy(LayoutSource(index.path, platform=Platform("linux", "riscv64")), sink)
    assert copied.root.digest == riscv


@pytest.mark.parametrize("form", FORMS)
def test_blobs_of_another_image_can_be_left_out(tmp_path: Path, store: Store, form: str) -> None:
    base = image_layout(tmp_path / "base", layers=2)
    app = image_layout(tmp_path / "app", seed=1, layers=1, base=base)
    copy(LayoutSource(base.path), StoreSink(store, NAME))
    copied = publish(
        app.path, f"{form}:{tmp_path / 'a.tar'}", without=contents(store.layout(NAME.path))
    )
    assert (copied.sent, copied.present) == (3, 2)
    names = files(tmp_path / "a.tar")
    assert not any(digest.encoded in name for name in names for digest in base.layers)
    with open_source(f"oci-archive:{tmp_path / 'a.tar'}", store) as source:
        taken = copy(source, StoreSink(store, Reference.parse("app:1")))
    assert (taken.root.digest, taken.present) == (app.manifest, 2)
    with Store.create(tmp_path / "empty") as empty:
        opened = open_source(f"oci-archive:{tmp_path / 'a.tar'}", empty)
        with opened as source, pytest.raises(NotFound, match="not found"):
            copy(source, StoreSink(empty, NAME))


def test_what_describes_an_image_is_never_left_out(tmp_path: Path, image: GeneratedImage) -> None:
    everything = frozenset({image.manifest, image.config, *image.layers})
    assert publish(image.path, f"oci-archive:{tmp_path / 'a.tar'}", without=everything).sent == 2
    assert len(files(tmp_path / "a.tar")) == 4


def test_only_archives_can_leave_blobs_out(tmp_path: Path, image: GeneratedImage) -> None:
    with pytest.raises(InvalidContent, match="only archives"):
        open_sink(f"oci:{tmp_path}", without=frozenset({image.config}))


def test_a_sparse_image_is_no_whole_archive(tmp_path: Path) -> None:
    image = sparse_layout(tmp_path / "sparse")
    with pytest.raises(NotFound, match="not found"):
        publish(image.path, f"oci-archive:{tmp_path / 'a.tar'}")
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_blob_leaves_what_was_there(
    tmp_path: Path, image: GeneratedImage, form: str
) -> None:
    file = tmp_path / "dir" / "a.tar"
    file.parent.mkdir()
    file.write_text("old")
    blob = image.blob(image.layers[2])
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(DigestMismatch, match=image.layers[2].encoded):
        publish(image.path, f"{form}:{file}")
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["a.tar"]


def test_a_file_is_replaced_and_a_link_stays(tmp_path: Path, image: GeneratedImage) -> None:
    file, link = tmp_path / "a.tar", tmp_path / "link.tar"
    file.write_text("old")
    link.symlink_to(file)
    opened = file.open()
    publish(image.path, f"oci-archive:{link}")
    assert opened.read() == "old"
    assert link.is_symlink()
    assert tarfile.is_tarfile(file)
    umask = os.umask(0o027)
    try:
        publish(image.path, f"oci-archive:{file}")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    opened.close()


def test_a_fifo_is_written_to(tmp_path: Path, image: GeneratedImage) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as cat:
        publish(image.path, f"oci-archive:{fifo}")
        written, _ = cat.communicate()
    assert fifo.is_fifo()
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        assert len(tar.getnames()) == 7


def test_no_directory_no_archive(tmp_path: Path, image: GeneratedImage) -> None:
    with pytest.raises(FileNotFoundError):
        publish(image.path, f"oci-archive:{tmp_path / 'none' / 'a.tar'}")
    with pytest.raises(IsADirectoryError):
        publish(image.path, f"oci-archive:{tmp_path}")


def test_a_killed_writer_leaves_nothing(tmp_path: Path, image: GeneratedImage) -> None:
    """The source stops in the middle of the last layer, and then the process is killed."""
    directory = tmp_path / "out"
    directory.mkdir()
    program = f"""
import sys, threading
from pathlib import Path
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
class Stopping:
    def begins(self, image): ...
    def ends(self, descriptor, action): ...
    def stage(self, what): ...
    def moves(self, descriptor, done):
        if str(descriptor.digest) == {str(image.layers[2])!r} and written:
            print("stopped", flush=True)
            threading.Event().wait()
written = []
with open_sink("oci-archive:{directory / "a.tar"}") as sink:
    tag = sink.tag
    sink.tag = lambda root: (written.append(1), tag(root))
    copy(LayoutSource(Path({str(image.path)!r})), sink, progress=Stopping())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stopped\n"
        process.send_signal(signal.SIGKILL)
    assert os.listdir(directory) == []
