"""Many processes, one index database, and somebody who keeps destroying it."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import ocistow
from ocistow.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ocistow.oci.digest import Digest
from ocistow.store.blobs import BlobStore
from ocistow.store.index.checksums import Checksum, Checksums
from ocistow.store.index.database import IndexDatabase
from ocistow.store.index.layers import Layer, Layers
from ocistow.store.index.locations import Locations
from ocistow.store.index.uploads import Uploads
from ocistow.store.reindex import reindex

PROCESSES = 16
SECONDS = 4.0
LOG = 16 << 20  # bytes


def layer(number: int) -> Layer:
    packed = Descriptor(OCI_LAYER_GZIP, Digest.of(b"packed %d" % number), number)
    return Layer(Digest.of(b"plain %d" % number), number, packed)


def checksum(number: int) -> Checksum:
    return Checksum(layer(number).blob.digest, number, f"{number:064x}", number, number, 1.5)


def check(error: OSError) -> None:
    """Let only errors pass that name the database."""
    if "index." not in str(error.filename):
        raise error


class Work:
    """What one process does for a while: use every table, and believe nothing wrong."""

    def __init__(self, path: Path) -> None:
        database = IndexDatabase(path)
        self.uses = self.errors = 0
        self._layers, self._checksums = Layers(database), Checksums(database)
        self._locations, self._uploads = Locations(database), Uploads(database)

    def run(self, source: random.Random, until: float) -> None:
        steps = (self._layer, self._checksum, self._location, self._upload)
        while time.monotonic() < until:
            self.uses += 1
            try:
                source.choice(steps)(source.randrange(500))
            except OSError as error:  # what every user of the database goes on after
                check(error)
                self.errors += 1

    def _layer(self, number: int) -> None:
        right = layer(number)
        self._layers.add([right])
        assert set(self._layers.find([right.diff_id])[right.diff_id]) <= {right}
        self._layers.knows_size(number)

    def _checksum(self, number: int) -> None:
        right = checksum(number)
        self._checksums.add([right])
        assert self._checksums.find([right.digest]).get(right.digest, right) == right

    def _location(self, number: int) -> None:
        blob = layer(number).blob.digest
        self._locations.add("e.x", f"app{number % 9}", {blob: [blob]})
        self._locations.find("e.x", "app", [blob])
        self._locations.forget("e.x", f"app{number % 9}", [blob])

    def _upload(self, number: int) -> None:
        blob = layer(number).blob.digest
        self._uploads.note("e.x", "app", blob, f"https://e.x/{number}")
        self._uploads.leave("e.x", "app", blob)
        assert self._uploads.take("e.x", "app", blob) in {f"https://e.x/{number}", None}


def start(path: Path, seed: int, seconds: float) -> "subprocess.Popen[str]":
    sources = Path(ocistow.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, __file__, path, str(seed), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(sources)},
    )


def ended(processes: "list[subprocess.Popen[str]]") -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    for process in processes:
        said, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        found.append(json.loads(said.splitlines()[-1]))
    return found


def begun(path: Path, seconds: float) -> "list[subprocess.Popen[str]]":
    processes = [start(path, seed, seconds) for seed in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def size_of_log(path: Path) -> int:
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def test_sixteen_processes_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    processes = begun(path, SECONDS)
    largest = 0
    while any(process.poll() is None for process in processes[:1]):
        largest = max(largest, size_of_log(path))
        time.sleep(0.01)
    results = ended(processes)
    assert sum(result["errors"] for result in results) == 0
    assert min(result["uses"] for result in results) > 0
    assert largest < LOG
    assert size_of_log(path) == 0


def spoil(path: Path, source: random.Random) -> None:
    """Do to the files what people and disks do."""
    file = path.with_name(path.name + source.choice(["", "", "-wal", "-shm"]))
    kind = source.choice(["remove", "remove", "overwrite", "overwrite", "cut", "replace", "lock"])
    try:
        if kind == "remove":
            file.unlink()
        elif kind == "overwrite":
            with file.open("r+b") as opened:
                opened.seek(source.randrange(max(1, file.stat().st_size)))
                opened.write(source.randbytes(source.choice([1, 100, 5000])))
        elif kind == "cut" and not file.name.endswith("-shm"):  # which is mapped: no program of
            os.truncate(file, file.stat().st_size // 2)  # anybody's survives that
        elif kind == "replace":
            other = file.with_name("other")
            other.write_bytes(file.read_bytes()[: source.randrange(1 << 20)])
            other.rename(file)
        elif kind == "lock":
            path.with_suffix(".lock").unlink()
    except FileNotFoundError:
        pass


def test_sixteen_processes_survive_whoever_destroys_it(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    (tmp_path / "blobs").mkdir()
    source = random.Random(1)
    processes = begun(path, SECONDS)
    with BlobStore(tmp_path / "blobs") as pool:
        while any(process.poll() is None for process in processes):
            spoil(path, source)
            if source.random() < 0.1:
                try:
                    reindex(IndexDatabase(path), pool)
                except OSError as error:
                    check(error)
            time.sleep(0.02)
        results = ended(processes)
        uses = sum(result["uses"] for result in results)
        assert uses > sum(result["errors"] for result in results)
        reindex(IndexDatabase(path), pool)
    work = Work(path)
    work.run(random.Random(2), time.monotonic() + 0.2)
    assert work.errors == 0


def main() -> None:
    path, seed, seconds = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    work = Work(Path(path))
    work.run(random.Random(int(seed)), time.monotonic() + float(seconds))
    facts = {"uses": work.uses, "errors": work.errors}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
