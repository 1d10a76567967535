"""What of the time of packing a layer goes to which of its steps, next to others' tar writers?"""

import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
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

SHAPES = ["one file of 16 MiB", "4,096 files of 4 KiB"]


@pytest.fixture(scope="module", params=SHAPES)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    chosen = random.Random(1)
    words = [chosen.randbytes(5).hex() for _ in range(4000)]
    content = " ".join(chosen.choices(words, k=(16 << 20) // 10)).encode()[: 16 << 20]
    if request.param == SHAPES[0]:
        (tree / "file").write_bytes(content)
    else:
        for number in range(4096):
            path = tree / f"{number % 64}" / f"{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content[number << 12 : (number + 1) << 12])
    return tree


@pytest.fixture
def tar(tree: Path) -> LayerTar:
    return dir_layer("layer", tree, 1000, 1000)


@pytest.fixture(autouse=True)
def group(tree: Path, benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"pack {SHAPES[(tree / 'file').exists() is False]}"


def blocks(tar: LayerTar) -> Iterator[bytes]:
    with closing(tar.open()) as stream:
        while data := stream.read(READ_SIZE):
            yield data


def digest(content: Iterator[bytes]) -> Digest:
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


def test_all(benchmark: BenchmarkFixture, tar: LayerTar, tmp_path: Path) -> None:
    def pack() -> None:
        with BlobStore(tmp_path) as blobs, LayerPacker(blobs, GZIP) as packer:
            layer = packer.pack(tar).result()
            assert layer.ingest is not None
            layer.ingest.commit()
            blobs.delete(layer.ingest.digest())

    benchmark(pack)


def test_unchanged(benchmark: BenchmarkFixture, tar: LayerTar, tmp_path: Path) -> None:
    expected = [digest(blocks(tar))]

    def pack() -> None:
        with BlobStore(tmp_path) as blobs, LayerPacker(blobs, GZIP) as packer:
            assert packer.pack(tar, expected).result().reused

    benchmark(pack)


def test_tar(benchmark: BenchmarkFixture, tar: LayerTar) -> None:
    benchmark(lambda: sum(map(len, blocks(tar))))


def test_tar_by_tarfile(benchmark: BenchmarkFixture, tree: Path) -> None:
    def write() -> None:
        with tarfile.open(os.devnull, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(tree)

    benchmark(write)


def test_tar_by_gnu(benchmark: BenchmarkFixture, tree: Path) -> None:
    command = "tar --create --directory $0 . | cat > /dev/null"  # it reads nothing for /dev/null
    benchmark(lambda: subprocess.run(["sh", "-c", command, tree], check=True))


def test_diff_id(benchmark: BenchmarkFixture, tar: LayerTar) -> None:
    content = list(blocks(tar))
    benchmark(lambda: digest(iter(content)))


def test_compression(benchmark: BenchmarkFixture, tar: LayerTar) -> None:
    content = b"".join(blocks(tar))
    benchmark(lambda: list(GZIP.compressed(BytesIO(content))))


def test_digest(benchmark: BenchmarkFixture, tar: LayerTar) -> None:
    content = packed(tar)
    benchmark(lambda: digest(iter(content)))


def test_write(benchmark: BenchmarkFixture, tar: LayerTar, tmp_path: Path) -> None:
    content = packed(tar)
    benchmark(lambda: write(content, tmp_path / "blob"))
