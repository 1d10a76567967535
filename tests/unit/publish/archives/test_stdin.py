"""Archives on standard input, as a pipe and as a file."""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zstandard

from ocistow.oci.descriptor import OCI_LAYER_GZIP
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.reference import Reference
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.transports import open_source
from ocistow.store.store import Store
from ocistow.testing.archives import docker_archive, oci_archive
from ocistow.testing.descriptors import open_files
from ocistow.testing.images import GeneratedImage, image_layout

NAME = Reference.parse("example.org/app:1")
LARGE = 300_000  # bytes of a layer; smaller ones share a file


@contextmanager
def stdin(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Make a pipe that somebody writes `content` to the standard input of the block."""
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
            pipe.write(content)

    writer = threading.Thread(target=feed)
    writer.start()
    with open(read) as end:
        monkeypatch.setattr(sys, "stdin", end)
        yield
    writer.join()


def add(store: Store, text: str) -> Copied:
    with open_source(text, store) as source:
        return copy(source, StoreSink(store, NAME))


WRAPPERS = [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "layout", layers=3, layer_size=LARGE)


@pytest.fixture
def saved(tmp_path: Path, image: GeneratedImage) -> bytes:
    docker_archive(tmp_path / "saved.tar", {"app:1": image})
    return (tmp_path / "saved.tar").read_bytes()


@pytest.fixture
def packed(tmp_path: Path, image: GeneratedImage) -> bytes:
    oci_archive(image.path, tmp_path / "layout.tar")
    return (tmp_path / "layout.tar").read_bytes()


@pytest.mark.parametrize("text", ["-", "oci-archive:-", "oci-archive:-:latest"])
@pytest.mark.parametrize("pack", WRAPPERS)
def test_a_layout_stays_what_it_is(
    store: Store,
    image: GeneratedImage,
    packed: bytes,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    pack: Callable[[bytes], bytes],
) -> None:
    with stdin(pack(packed), monkeypatch):
        copied = add(store, text)
    assert (copied.sent, copied.root.digest) == (5, image.manifest)
    assert set(store.blobs) == {image.manifest, image.config, *image.layers}


@pytest.mark.parametrize("text", ["-", "docker-archive:-", "docker-archive:-:app:1"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_saved_image_is_the_same_as_from_a_file(
    tmp_path: Path,
    store: Store,
    saved: bytes,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    pack: Callable[[bytes], bytes],
) -> None:
    with stdin(pack(saved), monkeypatch):
        copied = add(store, text)
    with Store.create(tmp_path / "other") as other:
        expected = add(other, f"docker-archive:{tmp_path / 'saved.tar'}")
        assert copied.root.digest == expected.root.digest
        assert set(store.blobs) == set(other.blobs)
    assert copied.sent == 5


def test_a_file_on_standard_input_is_read_in_place(
    tmp_path: Path,
    store: Store,
    image: GeneratedImage,
    packed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (tmp_path / "layout.tar").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert add(store, "-").root.digest == image.manifest


def test_a_terminal_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    try:
        with open(terminal) as file:
            monkeypatch.setattr(sys, "stdin", file)
            for text in ("-", "docker-archive:-", "oci-archive:-"):
                with pytest.raises(InvalidContent, match="is a terminal: pipe an archive in"):
                    add(store, text)
    finally:
        os.close(master)


def test_a_standard_input_that_is_closed_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of it
    with pytest.raises(InvalidContent, match="standard input is closed"):
        add(store, "-")


@pytest.mark.parametrize(
    "content", [b"", bytes(10240), b"PK\3\4" * 300, gzip.compress(b"no tar", mtime=0)]
)
def test_what_is_no_archive_is_refused(
    store: Store, named: Digest, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    with stdin(content, monkeypatch), pytest.raises(InvalidContent, match="standard input"):
        add(store, "-")


def test_a_tar_that_is_no_image_is_refused(
    store: Store, named: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("README"))
    with (
        stdin(raw.getvalue(), monkeypatch),
        pytest.raises(InvalidContent, match=r"has neither index\.json nor manifest\.json"),
    ):
        add(store, "-")


@pytest.mark.parametrize("text", ["-", "docker-archive:-", "oci-archive:-"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_what_is_cut_off_is_refused_and_leaves_nothing(
    store: Store,
    named: Digest,
    saved: bytes,
    packed: bytes,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    pack: Callable[[bytes], bytes],
    part: float,
) -> None:
    before, files = set(store.blobs), open_files()
    content = pack(packed if text.startswith("oci") else saved)
    with (
        stdin(content[: int(len(content) * part)], monkeypatch),
        pytest.raises(InvalidContent, match=r"standard input: it ends \d+ bytes before|ends early"),
    ):
        add(store, text)
    assert set(store.blobs) == before
    assert open_files() <= files


def test_what_is_cut_off_between_files_lacks_something(
    store: Store, named: Digest, saved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        last = tar.getmember("manifest.json").offset
    with stdin(saved[:last], monkeypatch), pytest.raises(NotFound, match=r"manifest\.json"):
        add(store, "docker-archive:-")


def both(image: GeneratedImage, layers: list[bytes], media_type: str) -> bytes:
    """Return an archive that is a layout and can be loaded, as Docker 25 and BuildKit write it."""

    def blob(content: bytes) -> str:
        digest = Digest.of(content)
        files[f"blobs/sha256/{digest.encoded}"] = content
        return str(digest)

    def descriptor(content: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": kind, "digest": blob(content), "size": len(content)}

    files: dict[str, bytes] = {}
    config = image.blob(image.config).read_bytes()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, media_type) for layer in layers],
    }
    root = descriptor(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [root]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    saved = {
        "Config": f"blobs/sha256/{image.config.encoded}",
        "RepoTags": ["app:1"],
        "Layers": [f"blobs/sha256/{Digest.of(layer).encoded}" for layer in layers],
    }
    files["manifest.json"] = json.dumps([saved]).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@pytest.mark.parametrize("text", ["-", "docker-archive:-", "docker-archive:-:app:1"])
def test_of_both_kinds_the_manifest_is_that_of_the_archive(
    store: Store, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    layers = [image.blob(digest).read_bytes() for digest in image.layers]
    with stdin(both(image, layers, OCI_LAYER_GZIP), monkeypatch):
        first = add(store, text)
    assert first.root.digest == root_of(both(image, layers, OCI_LAYER_GZIP))


def root_of(content: bytes) -> Digest:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        [root] = json.loads(index.read())["manifests"]
    return Digest.parse(root["digest"])


def test_of_both_kinds_plain_layers_are_compressed(
    tmp_path: Path,
    store: Store,
    image: GeneratedImage,
    saved: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = [gzip.decompress(image.blob(digest).read_bytes()) for digest in image.layers]
    content = both(image, layers, "application/vnd.oci.image.layer.v1.tar")
    for text in ("-", "docker-archive:-"):
        with Store.create(tmp_path / text) as other, stdin(content, monkeypatch):
            digest = add(other, text).root.digest
        assert digest == add(store, f"docker-archive:{tmp_path / 'saved.tar'}").root.digest
    with Store.create(tmp_path / "as it is") as other, stdin(content, monkeypatch):
        assert add(other, "oci-archive:-").root.digest != digest


def test_blobs_on_their_way_are_taken_over_without_another_copy(
    store: Store, image: GeneratedImage, packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unnamed file becomes the blob: its inode is the one that was written first."""
    with stdin(packed, monkeypatch), open_source("-", store) as source:
        source.resolve()
        unnamed = {
            os.fstat(int(number)).st_ino for number, target in open_files() if "(deleted)" in target
        }
        copy(source, StoreSink(store, NAME))
        for layer in image.layers:
            assert store.blobs.stat(layer).st_ino in unnamed


def test_what_the_store_has_need_not_be_in_a_layout(
    tmp_path: Path, store: Store, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = image_layout(tmp_path / "app", seed=7, layers=1, layer_size=LARGE, base=image)
    for digest in image.layers:
        app.blob(digest).unlink()
    oci_archive(app.path, tmp_path / "sparse.tar")
    content = (tmp_path / "sparse.tar").read_bytes()
    missing = ", ".join(map(str, image.layers))
    for text in ("-", f"oci-archive:{tmp_path / 'sparse.tar'}"):
        with stdin(content, monkeypatch), pytest.raises(NotFound, match=missing):
            add(store, text)
    copy(LayoutSource(image.path), StoreSink(store, Reference.parse("example.org/base:1")))
    with stdin(content, monkeypatch):
        copied = add(store, "-")
    assert (copied.root.digest, copied.sent, copied.present) == (app.manifest, 3, 3)


def test_how_much_was_read_is_told(
    store: Store, saved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    with stdin(saved, monkeypatch), open_source("-", store, watch=heard.append):
        assert heard == sorted(heard)
        assert heard[-1] == len(saved)


def test_reading_ends_when_whoever_hears_of_it_says_so(
    store: Store, saved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int) -> None:
        if done > LARGE:
            raise KeyboardInterrupt

    with stdin(saved, monkeypatch):
        with pytest.raises(KeyboardInterrupt), open_source("-", store, watch=stop):
            pytest.fail("it was read to its end")
        sys.stdin.close()
