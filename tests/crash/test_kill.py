"""Real processes that are killed while they write, and others that write at the same time."""

import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.invariants import images, pool, violations
from ocistow.testing.minimal import minimal_image

IMPORT_ROOT = Path(__file__).parents[2] / "src"
KILLS = 20

WRITER = """
import sys
from contextlib import suppress
from pathlib import Path
from ocistow.oci.errors import NotFound
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

name, first, rounds = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
reference = Reference.parse(name)
with Store.create(Path(sys.argv[1])) as store:
    for number in range(first, first + rounds):
        image = minimal_image(str(number), [str(number), "shared"])
        image.add_to(store.blobs)
        if number % 3 == 2:
            with suppress(NotFound):
                store.layout(reference.path).remove()
        store.put(reference, image.root)
        print(number, flush=True)
"""


def writer(store: Path, name: str, first: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, store, name, str(first), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(IMPORT_ROOT)},
    )


def test_a_killed_writer_leaves_a_whole_store(tmp_path: Path) -> None:
    """The kill comes at no chosen moment: while the output is read, the writer goes on."""
    store = tmp_path / "store"
    chance = random.Random(0)
    first = 0
    for _ in range(KILLS):
        with writer(store, "a.io/b:c", first, 1_000_000) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 12)):
                first = int(process.stdout.readline())
            process.kill()
        assert violations(store) == []
        assert set(images(store)) <= {"a.io/b/c"}
    last = minimal_image("last")
    with Store.open(store) as opened:
        last.add_to(opened.blobs)
        opened.put(Reference.parse("a.io/b:c"), last.root)
    assert images(store) == {"a.io/b/c": str(last.root.digest)}
    assert violations(store) == []


def test_processes_that_write_at_once_leave_a_whole_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    rounds = 15
    with ExitStack() as stack:
        writers = [
            stack.enter_context(writer(store, "a.io/b:c", number, rounds))
            for number in (0, 100, 200)
        ]
        for process in writers:
            process.communicate(timeout=100)
            assert process.returncode == 0
    assert violations(store) == []
    last = {str(minimal_image(str(n), [str(n), "shared"]).root.digest) for n in (14, 114, 214)}
    assert set(images(store)) == {"a.io/b/c"}
    assert set(images(store).values()) < last
    assert len(pool(store)) == 3 * rounds * 3 + 1


RELIANT = """
import sys
from contextlib import suppress
from pathlib import Path
from ocistow.oci.errors import NotFound
from ocistow.oci.reference import Reference
from ocistow.store.store import Store
from ocistow.testing.minimal import minimal_image

store, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
reference = Reference.parse(name)
with Store.open(Path(store)) as store:
    for number in range(rounds):
        image = minimal_image(str(number % 3), [str(number % 3), "shared"])
        with store.leases.keeping(image.blobs):
            image.add_to(store.blobs)
            store.put(reference, image.root)
        if number % 4 == 3:
            store.layout(reference.path).remove()
    store.leases.owner().take(image.blobs)  # which ends with the process
    image.add_to(store.blobs)
    store.put(reference, image.root)
"""


def test_what_is_leased_or_named_survives_a_collector_without_mercy(tmp_path: Path) -> None:
    """Garbage of one moment is part of an image the next, in three processes at once."""
    store = tmp_path / "store"
    removed = 0
    garbage = minimal_image("garbage", ["nobody's"])
    with ExitStack() as stack, Store.create(store) as opened:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RELIANT, store, name, "40"],
                    env={"PYTHONPATH": str(IMPORT_ROOT)},
                )
            )
            for name in ("a.io/b:c", "a.io/b:d", "a.io/c:e")
        ]
        while any(process.poll() is None for process in writers):
            garbage.add_to(opened.blobs)  # the writers' own may all be needed when it looks
            removed += Collector(opened, grace=0).collect().blobs
        assert [process.wait() for process in writers] == [0, 0, 0]
    assert removed > 0
    assert violations(store) == []
    assert len(images(store)) == 3
