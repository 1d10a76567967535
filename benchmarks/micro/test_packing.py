"""What of the time of packing a layer goes to which of its steps, next to others' tar writers?"""

import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.lifecycle.layers.packer import LayerPacker
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.digest import Digest, new_hash
from ocistow.publish.compression import GZIP
from ocistow.store.blobs import BlobStore
from ocistow.store.reading import READ_SIZE

FILES = 1024
STEPS = (
    "only the tar",
    "only its sha256",
    "only compression",
    "only sha256 of the blob",
    "only write, fsync",
)
SHAPES = ["one file of 16 MiB", f"{FILES:,} files of 4 KiB"]


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tree(shape: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    chosen = random.Random(1)
    words = [chosen.randbytes(5).hex() for _ in range(4000)]
    content = " ".join(chosen.choices(words, k=(16 << 20) // 10)).encode()[: 16 << 20]
    if shape == SHAPES[0]:
        (tree / "file").write_bytes(content)
    else:
        for number in range(FILES):
            path = tree / f"{number % 64}" / f"{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content[number << 12 : (number + 1) << 12])
    return tree


@pytest.fixture
def tar(tree: Path) -> LayerTar:
    return dir_layer("layer", tree, 1000, 1000)


def blocks(tar: LayerTar) -> Iterator[bytes]:
    with closing(tar.open()) as stream:
        while data := stream.read(READ_SIZE):
            yield data


def digest(content: Iterable[bytes]) -> Digest:
    running = new_hash("sha256")
    for data in content:
        running.update(data)
    return Digest("sha256", running.hexdigest())


def packed(tar: LayerTar) -> list[bytes]:
    with closing(tar.open()) as stream:
        return list(GZIP.compressed(stream))


def write(content: list[bytes], path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for data in content:
            file.write(data)
        os.fsync(file.fileno())
    path.unlink()


@pytest.mark.parametrize("way", ["ocistow", *STEPS])
def test_pack(
    benchmark: BenchmarkFixture, tar: LayerTar, shape: str, tmp_path: Path, way: str
) -> None:
    """Next to each of its steps, which two threads share."""
    benchmark.group = f"pack {shape}"
    plain, compressed = list(blocks(tar)), packed(tar)

    def pack() -> None:
        with BlobStore(tmp_path) as blobs, LayerPacker(blobs, GZIP) as packer:
            layer = packer.pack(tar).result()
            assert layer.ingest is not None
            layer.ingest.commit()
            blobs.delete(layer.ingest.digest())

    ways: Mapping[str, Callable[[], object]] = {
        "ocistow": pack,
        "only the tar": lambda: sum(map(len, blocks(tar))),
        "only its sha256": lambda: digest(plain),
        "only compression": lambda: list(GZIP.compressed(BytesIO(b"".join(plain)))),
        "only sha256 of the blob": lambda: digest(compressed),
        "only write, fsync": lambda: write(compressed, tmp_path / "blob"),
    }
    benchmark(ways[way])


@pytest.mark.parametrize("way", ["ocistow", "tar | sha256sum"])
def test_pack_again(
    benchmark: BenchmarkFixture, tar: LayerTar, shape: str, tree: Path, tmp_path: Path, way: str
) -> None:
    benchmark.group = f"pack {shape}, unchanged"
    expected = [digest(blocks(tar))]

    def pack() -> None:
        with BlobStore(tmp_path) as blobs, LayerPacker(blobs, GZIP) as packer:
            assert packer.pack(tar, expected).result().reused

    benchmark(pack if way == "ocistow" else lambda: gnu_tar(tree, "sha256sum"))


@pytest.mark.parametrize("way", ["ocistow", "tarfile", "tar"])
def test_tar(benchmark: BenchmarkFixture, tar: LayerTar, shape: str, tree: Path, way: str) -> None:
    benchmark.group = f"write a tar of {shape}"

    def by_tarfile() -> None:
        with tarfile.open(os.devnull, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(tree)

    ways: Mapping[str, Callable[[], object]] = {
        "ocistow": lambda: sum(map(len, blocks(tar))),
        "tarfile": by_tarfile,
        "tar": lambda: gnu_tar(tree, "cat"),  # it reads nothing for /dev/null itself
    }
    benchmark(ways[way])


def gnu_tar(tree: Path, into: str) -> None:
    command = f"tar --create --directory $0 . | {into} > /dev/null"
    subprocess.run(["sh", "-c", command, tree], check=True)
