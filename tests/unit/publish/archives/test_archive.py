import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard

from ocistow.oci.descriptor import OCI_LAYER_GZIP, OCI_LAYER_ZSTD, REF_NAME
from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch, InvalidContent, NotFound
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.oci.reference import Reference
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import StoreSink, StoreSource
from ocistow.publish.source import read_document
from ocistow.publish.transports import open_source
from ocistow.store.store import Store
from ocistow.testing.archives import docker_archive, oci_archive
from ocistow.testing.images import GeneratedImage, image_layout

NAME = Reference.parse("example.org/app:1")
Content = Mapping[str, bytes | tarfile.TarInfo]


def add(store: Store, text: str) -> Copied:
    with open_source(text, store) as source:
        return copy(source, StoreSink(store, NAME))


def manifest_of(store: Store) -> Manifest:
    source = StoreSource(store.layout(NAME.path))
    root = source.resolve()
    manifest = parse_manifest(read_document(source, root), root)
    assert isinstance(manifest, Manifest)
    return manifest


def write(path: Path, content: Content) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def saved(*layers: bytes, diff_ids: list[str] | None = None, **others: bytes) -> dict[str, bytes]:
    """Return the files of an archive as `docker save` writes them."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    diff_ids = diff_ids or [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}
    ).encode()
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}
    return {
        **dict(zip(names, layers, strict=True)),
        "config.json": config,
        "manifest.json": json.dumps([entry]).encode(),
        **others,
    }


@pytest.fixture
def layout_files(image: GeneratedImage) -> dict[str, bytes]:
    files = (path for path in image.path.rglob("*") if path.is_file())
    return {str(path.relative_to(image.path)): path.read_bytes() for path in files}


def test_an_oci_archive_is_its_layout(tmp_path: Path, store: Store, image: GeneratedImage) -> None:
    archive = tmp_path / "a.tar"
    oci_archive(image.path, archive)
    copied = add(store, f"oci-archive:{archive}")
    assert (copied.sent, copied.root.digest) == (5, image.manifest)
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes(), mtime=0))
    assert add(store, f"oci-archive:{packed}:latest").sent == 0


def test_an_archive_may_have_colons_in_its_path(
    tmp_path: Path, store: Store, image: GeneratedImage
) -> None:
    archive = tmp_path / "a:b:c.tar"
    oci_archive(image.path, archive)
    assert add(store, f"oci-archive:{archive}").root.digest == image.manifest
    assert add(store, f"oci-archive:{archive}:latest").sent == 0


@pytest.mark.parametrize("change", ["flipped", "longer", "shorter", "absent"])
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_an_oci_archive_with_another_blob_is_refused(
    tmp_path: Path,
    store: Store,
    image: GeneratedImage,
    named: Digest,
    layout_files: dict[str, bytes],
    which: str,
    change: str,
) -> None:
    digest = {"layer": image.layers[0], "config": image.config, "manifest": image.manifest}[which]
    name = f"blobs/sha256/{digest.encoded}"
    good = layout_files.pop(name)
    if change != "absent":
        layout_files[name] = {
            "flipped": good[:-1] + bytes([good[-1] ^ 1]),
            "longer": good + b"\0",
            "shorter": good[:-1],
        }[change]
    write(tmp_path / "a.tar", layout_files)
    with pytest.raises(NotFound if change == "absent" else InvalidContent, match=str(digest)):
        add(store, f"oci-archive:{tmp_path / 'a.tar'}")


def test_an_archive_cut_off_in_a_blob_is_refused(
    tmp_path: Path, store: Store, layout_files: dict[str, bytes]
) -> None:
    """Also when what is missing behind the cut is in the store: that is no sparse archive."""
    archive = write(tmp_path / "a.tar", layout_files)
    add(store, f"oci-archive:{archive}")
    largest = max(layout_files.values(), key=len)
    with archive.open("r+b") as file:
        file.truncate(archive.read_bytes().index(largest) + 100)
    with pytest.raises(InvalidContent, match=f"it ends {len(largest) - 100} bytes before"):
        add(store, f"oci-archive:{archive}")


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_one_bad_member_spoils_the_archive(
    tmp_path: Path,
    store: Store,
    named: Digest,
    layout_files: dict[str, bytes],
    transport: str,
) -> None:
    bad = tarfile.TarInfo("../../etc/cron.d/x")
    content: Content = {**layout_files, **saved(b"layer"), "bad": bad}
    write(tmp_path / "a.tar", content)
    with pytest.raises(InvalidContent, match="leads out of the archive"):
        add(store, f"{transport}:{tmp_path / 'a.tar'}")


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4" * 300, gzip.compress(b"no tar" * 200, mtime=0)])
def test_what_is_no_archive_is_refused(
    tmp_path: Path, store: Store, transport: str, content: bytes
) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises((InvalidContent, NotFound), match=r"a\.tar"):
        add(store, f"{transport}:{tmp_path / 'a.tar'}")


def test_a_docker_archive_becomes_the_same_image_every_time(
    tmp_path: Path, store: Store, image: GeneratedImage
) -> None:
    archive = tmp_path / "a.tar"
    docker_archive(archive, {"app:1": image})
    first = add(store, f"docker-archive:{archive}")
    assert (first.sent, first.root.annotations[REF_NAME]) == (5, "app:1")
    pool = set(store.blobs)
    second = add(store, f"docker-archive:{archive}")
    assert (second.sent, second.root.digest) == (0, first.root.digest)
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes(), mtime=0))
    assert add(store, f"docker-archive:{packed}").root.digest == first.root.digest
    assert set(store.blobs) == pool

    manifest = manifest_of(store)
    assert manifest.config.digest == image.config
    for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
        assert layer.media_type == OCI_LAYER_GZIP
        with open(store.blobs.open(layer.digest), "rb") as file:
            assert Digest.of(gzip.decompress(file.read())) == diff_id


def test_nothing_compressed_stays_when_it_is_not_taken(
    tmp_path: Path, store: Store, image: GeneratedImage
) -> None:
    docker_archive(tmp_path / "a.tar", {"app:1": image})
    with open_source(f"docker-archive:{tmp_path / 'a.tar'}", store) as source:
        source.resolve()
        assert set(store.blobs) == set()
    assert set(store.blobs) == set()


def test_compressed_layers_are_kept_as_they_are(tmp_path: Path, store: Store) -> None:
    gz, zstd = gzip.compress(b"layer", mtime=0), zstandard.compress(b"another")
    diff_ids = [str(Digest.of(b"layer")), str(Digest.of(b"another"))]
    write(tmp_path / "a.tar", saved(gz, zstd, diff_ids=diff_ids))
    add(store, f"docker-archive:{tmp_path / 'a.tar'}")
    one, two = manifest_of(store).layers
    assert (one.media_type, one.digest, one.size) == (OCI_LAYER_GZIP, Digest.of(gz), len(gz))
    assert (two.media_type, two.digest) == (OCI_LAYER_ZSTD, Digest.of(zstd))


def test_a_layer_may_be_a_link_to_another(tmp_path: Path, store: Store) -> None:
    files: dict[str, bytes | tarfile.TarInfo] = dict(saved(b"layer", b"layer", b"other"))
    link = tarfile.TarInfo("1/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../0/layer.tar"
    files["1/layer.tar"] = link
    write(tmp_path / "a.tar", files)
    assert add(store, f"docker-archive:{tmp_path / 'a.tar'}").sent == 4
    one, two, three = manifest_of(store).layers
    assert one == two != three


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstandard.compress])
def test_a_layer_that_is_not_its_diff_id_is_refused(
    tmp_path: Path, store: Store, named: Digest, wrap: type[bytes]
) -> None:
    wrong = Digest.of(b"something else")
    write(tmp_path / "a.tar", saved(wrap(b"layer"), diff_ids=[str(wrong)]))
    with pytest.raises(DigestMismatch, match=str(wrong)):
        add(store, f"docker-archive:{tmp_path / 'a.tar'}")


def test_a_config_that_is_not_its_name_is_refused(
    tmp_path: Path, store: Store, named: Digest
) -> None:
    name = f"{Digest.of(b'another').encoded}.json"
    files = saved(b"layer")
    files[name] = files.pop("config.json")
    entry = [{"Config": name, "RepoTags": None, "Layers": ["0/layer.tar"]}]
    files["manifest.json"] = json.dumps(entry).encode()
    write(tmp_path / "a.tar", files)
    with pytest.raises(DigestMismatch):
        add(store, f"docker-archive:{tmp_path / 'a.tar'}")


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"{", "not JSON"),
        (b"{}", "not an array"),
        (b"[1]", "not an object"),
        (b"[" * 99999, "not JSON"),
        (b"[]", "there: nothing"),
        (b'[{"Config": "config.json", "Layers": [1]}]', "not a string"),
        (b'[{"Config": "config.json", "Layers": []}]', "1 diff_ids"),
        (b'[{"Config": "none", "Layers": []}]', "'none'"),
        (b'[{"Config": "../config.json", "Layers": []}]', "config.json'"),
        (b'[{"Config": "config.json", "Layers": ["/etc/passwd"]}]', "'/etc/passwd'"),
        (b" " * (5 << 20), "at most"),
    ],
)
def test_a_malformed_manifest_is_refused(
    tmp_path: Path, store: Store, named: Digest, manifest: bytes, why: str
) -> None:
    write(tmp_path / "a.tar", {**saved(b"layer"), "manifest.json": manifest})
    with pytest.raises((InvalidContent, NotFound), match=why):
        add(store, f"docker-archive:{tmp_path / 'a.tar'}")


def test_a_name_or_position_chooses(tmp_path: Path, store: Store, image: GeneratedImage) -> None:
    other = image_layout(tmp_path / "layout2", seed=5)
    archive = tmp_path / "a.tar"
    docker_archive(archive, {"app:1": image, "localhost:5000/app:2": other})
    for text, config in (
        ("app:1", image.config),
        ("docker.io/library/app:1", image.config),
        ("@0", image.config),
        ("localhost:5000/app:2", other.config),
        ("@1", other.config),
    ):
        add(store, f"docker-archive:{archive}:{text}")
        assert manifest_of(store).config.digest == config
    there = "@0 = app:1, @1 = localhost:5000/app:2"
    with pytest.raises(InvalidContent, match=f"choose one: {there}"):
        add(store, f"docker-archive:{archive}")
    with pytest.raises(NotFound, match=f"there: {there}"):
        add(store, f"docker-archive:{archive}:app:3")


def test_an_image_with_several_names_has_none_until_one_is_chosen(
    tmp_path: Path, store: Store
) -> None:
    entry = {"Config": "config.json", "RepoTags": ["a:1", "b:2"], "Layers": ["0/layer.tar"]}
    files = saved(b"layer")
    files["manifest.json"] = json.dumps([entry]).encode()
    archive = write(tmp_path / "a.tar", files)
    assert REF_NAME not in add(store, f"docker-archive:{archive}").root.annotations
    chosen = add(store, f"docker-archive:{archive}:b:2").root
    assert chosen.annotations[REF_NAME] == "b:2"
