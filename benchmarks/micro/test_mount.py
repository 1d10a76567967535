"""How many small operations a second does a mount answer, next to the file system below?"""

import hashlib
import itertools
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import trio
from pytest_benchmark.fixture import BenchmarkFixture

from ocistow.fusefs.requests import Requests
from ocistow.store.store import Store
from ocistow.testing.mounts import mounted

BLOBS = 200
WAYS = ("ocistow", "native")


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 1024


def name(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mapping[str, Path]]:
    """Return where a layout's blobs are, through the mount and on disk."""
    store = tmp_path_factory.mktemp("mount") / "store"
    Store.create(store).close()
    with mounted(store, store.with_name("mountpoint")) as mount:
        blobs = Path("bench.example", "app", "latest", "blobs", "sha256")
        through, native = mount.path / blobs, store / "layouts" / blobs
        through.mkdir(parents=True)
        for number in range(BLOBS):
            (through / name(number)).write_bytes(content(number))
        plain = tmp_path_factory.mktemp("plain")
        yield {"ocistow": through, "native": native, "plain": plain}


@pytest.mark.benchmark(group="stat a blob")
@pytest.mark.parametrize("way", WAYS)
def test_stat(benchmark: BenchmarkFixture, directories: Mapping[str, Path], way: str) -> None:
    benchmark((directories[way] / name(0)).stat)


@pytest.mark.benchmark(group="stat what is not there")
@pytest.mark.parametrize("way", WAYS)
def test_absent(benchmark: BenchmarkFixture, directories: Mapping[str, Path], way: str) -> None:
    benchmark((directories[way] / name(BLOBS)).exists)


@pytest.mark.benchmark(group="open, read 4 KiB, close")
@pytest.mark.parametrize("way", WAYS)
def test_open(benchmark: BenchmarkFixture, directories: Mapping[str, Path], way: str) -> None:
    benchmark((directories[way] / name(0)).read_bytes)


@pytest.mark.benchmark(group=f"list {BLOBS} blobs")
@pytest.mark.parametrize("way", WAYS)
def test_list(benchmark: BenchmarkFixture, directories: Mapping[str, Path], way: str) -> None:
    benchmark(lambda: list(directories[way].iterdir()))


@pytest.mark.benchmark(group="create, write 4 KiB, rename")
@pytest.mark.parametrize("way", WAYS)
def test_write(benchmark: BenchmarkFixture, directories: Mapping[str, Path], way: str) -> None:
    numbers = itertools.count(BLOBS + 1)
    directory = directories["ocistow" if way == "ocistow" else "plain"]

    def write() -> None:
        number = next(numbers)
        temporary = directory / "temporary"
        temporary.write_bytes(content(number))
        temporary.rename(directory / name(number))

    benchmark(write)


@pytest.mark.benchmark(group="count a request")
@pytest.mark.parametrize("way", ["ocistow", "nothing"])
def test_counting(benchmark: BenchmarkFixture, way: str) -> None:
    requests = Requests()

    def count() -> None:
        with requests.answering("lookup", 1, b"name"):
            pass

    def do_nothing() -> None:
        with nullcontext():
            pass

    async def main() -> None:
        benchmark(count if way == "ocistow" else do_nothing)

    trio.run(main)
