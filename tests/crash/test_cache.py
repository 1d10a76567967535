"""What a cache is after its process was killed, or the disk refused, at any point."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.files.labels import BuildpackLayers, CacheMetadata, LayerMetadata
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.digest import Digest
from ocistow.oci.document import as_object
from ocistow.store.disk import Disk
from ocistow.testing.disk import FailingDisk, WatchedDisk

IMPORT_ROOT = Path(__file__).parents[2] / "src"
KILLS = 8
CALLS = 100  # more than a build needs

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cache import build
for number in range(int(sys.argv[2]), 1_000_000):
    build(Path(sys.argv[1]), number)
    print(number, flush=True)
"""


class Photographer(WatchedDisk):
    """A disk that keeps what a kill before each of its calls would leave."""

    def __init__(self, subject: Path, album: Path) -> None:
        self._subject, self._album = subject, album
        self.count = 0

    def about_to(self, call: str) -> None:
        shutil.copytree(self._subject, self._album / str(self.count), symlinks=True)
        self.count += 1


def layer(work: Path, name: str, number: int) -> LayerTar:
    directory = work / "layers" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "file").write_bytes(f"{number}".encode() * 50_000)
    return dir_layer(f"bp:{name}", directory, 0, 0)


def build(work: Path, number: int, disk: Disk | None = None) -> None:
    """Cache two layers, one of which never changes."""
    with DirectoryCache(work / "cache", disk) as cache:
        old = {b.key: dict(b.layers) for b in cache.metadata().buildpacks}.get("bp", {})
        layers: dict[str, LayerMetadata] = {}
        for name, content in (("same", 0), ("other", number)):
            likely = Digest.parse(old[name].sha) if name in old else None
            cached = cache.add(layer(work, name, content), likely)
            layers[name] = LayerMetadata(str(cached.diff_id), {"number": number}, cache=True)
        cache.commit(CacheMetadata("", (BuildpackLayers("bp", "1", layers),)))


def whole(path: Path) -> int:
    """Return the number of the build that a cache is of, and see that it has all of that."""
    with DirectoryCache(path) as cache:
        numbers: set[object] = set()
        for buildpack in cache.metadata().buildpacks:
            assert set(buildpack.layers) == {"same", "other"}
            for metadata in buildpack.layers.values():
                numbers.add(as_object(metadata.data, "metadata")["number"])
                with cache.open(Digest.parse(metadata.sha)):
                    pass
    (number,) = numbers
    assert isinstance(number, float)  # as Go reads numbers of JSON
    return int(number)


def test_a_kill_before_any_call_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    build(tmp_path, 1)
    disk = Photographer(tmp_path / "cache", tmp_path / "album")
    build(tmp_path, 2, disk)
    assert disk.count > 6
    found: list[int] = []
    for number in range(disk.count):
        shutil.move(tmp_path / "album" / str(number), tmp_path / "after" / "cache")
        found.append(whole(tmp_path / "after" / "cache"))
        build(tmp_path / "after", 3)
        assert whole(tmp_path / "after" / "cache") == 3
        assert [entry.name for entry in (tmp_path / "after" / "cache").iterdir()] == ["committed"]
        shutil.rmtree(tmp_path / "after")
    assert found == sorted(found)
    assert whole(tmp_path / "cache") == 2


def test_a_disk_that_refuses_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    build(tmp_path, 1)
    for at in range(CALLS):
        disk = FailingDisk(at)
        before = whole(tmp_path / "cache")
        if at == 0:
            with pytest.raises(OSError, match="No space"):
                build(tmp_path, at + 2, disk)
        else:
            try:
                build(tmp_path, at + 2, disk)
            except OSError:
                assert disk.failed
        assert whole(tmp_path / "cache") in {before, at + 2}
        if disk.failed is None:
            return
    pytest.fail("no build ended well")


def test_a_killed_process_leaves_a_whole_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    build(tmp_path, 0)
    chance = random.Random(0)
    last = 0
    for _ in range(KILLS):
        number, directory = str(last + 1), str(Path(__file__).parent)
        command = [sys.executable, "-c", WRITER, str(tmp_path), number, directory]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(IMPORT_ROOT)}
        ) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 8)):
                last = int(process.stdout.readline())
            process.kill()
        found = whole(tmp_path / "cache")
        assert found >= last  # it went on while its output was read
        last = found
