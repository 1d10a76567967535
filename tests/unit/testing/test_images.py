import gzip
import hashlib
import json
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.testing.archives import docker_archive, oci_archive
from ocistow.testing.images import (
    REF_NAME,
    GeneratedImage,
    busybox_image,
    image_layout,
    index_layout,
    sparse_layout,
)
from ocistow.testing.tarballs import BUSYBOX, random_tar


def sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def names(layout: Path) -> dict[str, str]:
    index = json.loads((layout / "index.json").read_bytes())
    return {e["annotations"][REF_NAME]: e["digest"] for e in index["manifests"]}


def assert_complete(image: GeneratedImage) -> None:
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    config = json.loads(image.blob(image.config).read_bytes())
    assert manifest["config"]["digest"] == str(image.config)
    assert [layer["digest"] for layer in manifest["layers"]] == [str(d) for d in image.layers]
    for entry in [manifest["config"], *manifest["layers"]]:
        assert image.blob(Digest.parse(entry["digest"])).stat().st_size == entry["size"]
    assert config["rootfs"]["diff_ids"] == [str(diff_id) for diff_id in image.diff_ids]
    assert len(config["history"]) == len(image.layers)
    for file in (image.path / "blobs" / "sha256").iterdir():
        assert file.name == sha256(file.read_bytes()).encoded
    for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
        data = image.blob(layer).read_bytes()
        assert sha256(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data) == diff_id


@pytest.mark.parametrize("media", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_every_digest_and_size_is_true(tmp_path: Path, compression: str, media: str) -> None:
    if compression == "gzip":
        image = image_layout(tmp_path, media="oci" if media == "oci" else "docker")
    else:
        image = image_layout(tmp_path, compression="none")
        assert image.layers == image.diff_ids
    assert_complete(image)
    assert names(tmp_path) == {"latest": str(image.manifest)}


def test_docker_images_have_docker_types(tmp_path: Path) -> None:
    image = image_layout(tmp_path, layers=1, media="docker")
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["layers"][0]["mediaType"].startswith("application/vnd.docker.image.rootfs.")


def test_a_seed_makes_the_same_image_again_and_another_seed_another(tmp_path: Path) -> None:
    first = image_layout(tmp_path / "first", seed=7)
    again = image_layout(tmp_path / "again", seed=7)
    other = image_layout(tmp_path / "other", seed=8)
    assert (again.manifest, again.layers) == (first.manifest, first.layers)
    assert not {*first.layers} & {*other.layers}
    assert len({*first.layers}) == 3
    contents: set[bytes] = set()
    for image in (first, other):
        for layer in image.layers:
            data = image.blob(layer).read_bytes()
            assert data[4:8] == bytes(4)  # gzip's time
            with tarfile.open(fileobj=BytesIO(data)) as tar:
                contents |= {f.read() for m in tar if m.isfile() and (f := tar.extractfile(m))}
    assert len(contents) == 2 * 3 * 3  # images, layers, files: nothing to share


def test_layers_are_tars_with_the_asked_number_of_random_bytes(tmp_path: Path) -> None:
    image = image_layout(tmp_path, layers=1, layer_size=3_000_001)
    with tarfile.open(image.blob(image.layers[0])) as tar:
        members = tar.getmembers()
    assert sum(member.size for member in members) == 3_000_001
    assert any(member.issym() for member in members)
    assert image.blob(image.layers[0]).stat().st_size > 3_000_000  # incompressible


def test_a_large_tar_comes_in_pieces() -> None:
    assert max(len(data) for data in random_tar("large", 5_000_000)) == 1 << 20


def test_the_layers_of_a_base_come_first_and_are_shared(tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", seed=1)
    for path in (tmp_path / "app", tmp_path / "base"):
        image = image_layout(path, seed=2, layers=1, base=base, tag="app")
        assert image.layers[:3] == base.layers
        assert_complete(image)
    assert set(names(tmp_path / "base")) == {"latest", "app"}


def test_an_image_over_a_sparse_base_is_sparse_too(tmp_path: Path) -> None:
    base = sparse_layout(tmp_path / "base", layers=3, absent=2)
    assert [base.blob(layer).exists() for layer in base.layers] == [False, False, True]
    image = image_layout(tmp_path / "app", seed=2, layers=1, base=base)
    there = [image.blob(layer).exists() for layer in image.layers]
    assert there == [False, False, True, True]


def test_a_name_is_given_to_one_image_only(tmp_path: Path) -> None:
    image_layout(tmp_path, seed=1, tag="a")
    second = image_layout(tmp_path, seed=2, tag="a")
    assert names(tmp_path) == {"a": str(second.manifest)}
    assert len(json.loads((tmp_path / "index.json").read_bytes())["manifests"]) == 1


def test_an_index_has_an_image_for_each_platform(tmp_path: Path) -> None:
    index = index_layout(tmp_path, tag="multi")
    document = json.loads((tmp_path / "blobs" / "sha256" / index.index.encoded).read_bytes())
    assert names(tmp_path) == {"multi": str(index.index)}
    assert [entry["platform"] for entry in document["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    first, second = index.images
    assert first.layers[0] == second.layers[0]
    assert first.layers[1] != second.layers[1]
    assert_complete(first)
    assert_complete(second)


def test_an_oci_archive_is_the_layout(tmp_path: Path) -> None:
    image_layout(tmp_path / "layout")
    oci_archive(tmp_path / "layout", tmp_path / "file.tar")
    unpack(tmp_path / "file.tar", tmp_path / "out")
    left, right = (
        {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        for root in (tmp_path / "layout", tmp_path / "out")
    )
    assert left == right
    assert "oci-layout" in left


def test_a_docker_archive_has_plain_layers_once(tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", layers=2)
    app = image_layout(tmp_path / "app", seed=1, layers=1, base=base, compression="none")
    docker_archive(tmp_path / "file.tar", {"example.com/a:1": base, "example.com/b:2": app})
    with tarfile.open(tmp_path / "file.tar") as tar:
        content = {m.name: f.read() for m in tar if (f := tar.extractfile(m))}
        assert len(tar.getmembers()) == len(content) == 3 + 2 + 1
    assert list(content)[-1] == "manifest.json"
    for entry, image in zip(json.loads(content["manifest.json"]), (base, app), strict=True):
        assert tuple(sha256(content[name]) for name in entry["Layers"]) == image.diff_ids
        assert sha256(content[entry["Config"]]) == image.config


@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox")
def test_the_busybox_image_has_a_shell_that_runs(tmp_path: Path) -> None:
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", "hello"))
    assert_complete(image)
    config = json.loads(image.blob(image.config).read_bytes())
    assert config["config"]["Cmd"] == ["/bin/echo", "hello"]
    unpack(image.blob(image.layers[0]), tmp_path / "root")
    shell = tmp_path / "root" / "bin" / "sh"
    result = subprocess.run([shell, "-c", "echo $0"], capture_output=True, text=True, check=True)
    assert result.stdout == f"{shell}\n"


def unpack(archive: Path, target: Path) -> None:
    """Unpack with tar: the extractall of Debian 12's Python takes no filter, later ones need it."""
    target.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)
