"""Everything at once on one store, for a while: nothing is lost, and nothing stays for nothing.

OCISTOW_TRAFFIC is the number of seconds, OCISTOW_SEED makes the same choices again.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.oci.digest import Digest
from ocistow.store.store import Store
from ocistow.testing.invariants import garbage, images, strays, violations
from ocistow.testing.layout_writer import Image, Layer, write_image
from ocistow.testing.minimal import MinimalImage, minimal_image
from ocistow.testing.mounts import Mount, mounted
from ocistow.testing.warm import Warm

from .conftest import DockerRegistry

pytestmark = [pytest.mark.slow, pytest.mark.fuse, pytest.mark.registry]

SECONDS = float(os.environ.get("OCISTOW_TRAFFIC", "25"))
ADDERS = 8
REMOVED = "a.io/writer"  # begins the names that may be removed at any time
TAGS = 3  # of each adder and writer; each is replaced again and again
GONE = os.EX_NOINPUT  # the only status but 0, and only for a name that its writer may remove


class Traffic:
    """One store and those who use it, each in a thread with processes of its own."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.store = root, root / "store"
        self.images = [
            minimal_image(str(n), [f"{layer}" * 5000 for layer in {n % 5, n % 7 + 10, n % 3 + 20}])
            for n in range(24)
        ]
        for number, image in enumerate(self.images):
            image.write_to(root / "sources" / str(number))
        self.committed: dict[str, MinimalImage] = {}  # by the path of the layout
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._seed = seed
        self._end = threading.Event()
        self._stack = ExitStack()

    def begin(self, name: str, work: Callable[["Actor"], None]) -> None:
        """Let somebody do the same work over and over."""
        self._stack.enter_context(Actor(self, name, random.Random(f"{self._seed} {name}"), work))

    def run(self) -> None:
        """Wait for the end of the time, or the first failure, and then for everybody."""
        self.wait(SECONDS)
        self._end.set()
        self._stack.close()

    def wait(self, seconds: float) -> None:
        """Return after some seconds, or when all is over."""
        self._end.wait(seconds)

    def fail(self, words: str) -> None:
        self.wrong.append(words)
        self._end.set()

    @property
    def is_over(self) -> bool:
        return self._end.is_set()


class Actor:
    """A thread of the traffic, with a process that becomes a command each time."""

    def __init__(
        self, traffic: Traffic, name: str, chance: random.Random, work: Callable[["Actor"], None]
    ) -> None:
        self.traffic, self.name, self.chance = traffic, name, chance
        self._work = work
        self._thread = threading.Thread(target=self._act, name=name)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def command(self, *arguments: object, may: tuple[int, ...] = ()) -> int:
        """Run a command, which must succeed or end with one of these statuses."""
        output = self.traffic.root / f"{self.name}.output"
        status = self._warm.run([f"--store={self.traffic.store}", *map(str, arguments)], output)
        said = output.read_text()
        if status not in (0, *may) or "Traceback" in said:
            self.traffic.fail(f"{self.name}: {arguments} ended with {status}: {said}")
        self.traffic.done[f"{self.name} {status}"] += 1
        return status

    def pick(self) -> tuple[int, MinimalImage]:
        number = self.chance.randrange(len(self.traffic.images))
        return number, self.traffic.images[number]

    def somebody(self) -> str:
        """Return the name of somebody's image, once there is one."""
        while not (names := sorted(self.traffic.committed)) and not self.traffic.is_over:
            self.traffic.wait(0.1)
        return self.chance.choice(names or ["a.io/nobody/0"])

    def use(self, command: str, name: str, *arguments: object) -> int:
        """Run a command on somebody's image, which is there unless a writer has removed it."""
        may = (GONE,) if name.startswith(REMOVED) else ()
        return self.command(command, name, *arguments, may=may)

    def _act(self) -> None:
        with Warm() as self._warm:
            while not self.traffic.is_over:
                try:
                    self._work(self)
                except Exception as error:
                    self.traffic.fail(f"{self.name}: {error!r}")


def add(actor: Actor) -> None:
    number, image = actor.pick()
    tag = actor.chance.randrange(TAGS)
    source = actor.traffic.root / "sources" / str(number)
    if actor.command("add", f"oci:{source}", f"a.io/{actor.name}:{tag}") == 0:
        actor.traffic.committed[f"a.io/{actor.name}/{tag}"] = image


def collect(actor: Actor) -> None:
    actor.command("gc", f"--grace={actor.chance.randrange(2)}s")


def tag_and_remove(actor: Actor) -> None:
    new = f"a.io/tagged:{actor.chance.randrange(TAGS)}"
    if actor.use("tag", actor.somebody(), new) == 0:
        actor.command("rm", new)


def look(actor: Actor) -> None:
    """List and count, which nothing that goes on may disturb."""
    actor.command("ls", "--json")
    actor.command("du", "--json")


def verify(actor: Actor) -> None:
    """Read every blob; what is bad would be taken away, but nothing is."""
    actor.command("verify", "--restart")


def link(actor: Actor) -> None:
    """Make layouts elsewhere, whole whatever is collected meanwhile."""
    elsewhere = actor.traffic.root / "elsewhere"
    mode = actor.chance.choice(("hardlink", "copy"))
    if actor.use("link", actor.somebody(), elsewhere / "layouts", f"--mode={mode}") == 0:
        for wrong in violations(elsewhere):
            actor.traffic.fail(f"{mode}: {wrong}")


def publish_to(host: str) -> Callable[[Actor], None]:
    def publish(actor: Actor) -> None:
        name = f"published{actor.chance.randrange(10)}"
        if actor.use("publish", actor.somebody(), f"docker://{host}/{name}:1") == 0:
            check_published(actor, f"http://{host}/v2/{name}")

    return publish


def check_published(actor: Actor, url: str) -> None:
    known = {str(image.root.digest) for image in actor.traffic.images}
    kinds = {"Accept": actor.traffic.images[0].root.media_type}
    request = urllib.request.Request(f"{url}/manifests/1", headers=kinds)
    with urllib.request.urlopen(request) as answer:
        manifest = answer.read()
    if str(Digest.of(manifest)) not in known:
        actor.traffic.fail(f"{url} has {manifest!r}")
    for layer in json.loads(manifest)["layers"]:
        with urllib.request.urlopen(f"{url}/blobs/{layer['digest']}") as answer:
            if str(Digest.of(answer.read())) != layer["digest"]:
                actor.traffic.fail(f"{url} has another {layer['digest']}")


def archive(actor: Actor) -> None:
    file = actor.traffic.root / f"{actor.name}.tar"
    if actor.use("publish", actor.somebody(), f"oci-archive:{file}") == 0:
        members = subprocess.run(["tar", "-tf", file], check=True, capture_output=True, text=True)
        if len([name for name in members.stdout.split() if "blobs/sha256/" in name]) < 4:
            actor.traffic.fail(f"{file} has only {members.stdout}")


def write_to(mount: Mount) -> Callable[[Actor], None]:
    """Write as go-containerregistry does, and take some away again."""

    def write(actor: Actor) -> None:
        _, image = actor.pick()
        name = f"a.io/{actor.name}/{actor.chance.randrange(TAGS)}"
        if name in actor.traffic.committed and actor.chance.random() < 0.3:
            del actor.traffic.committed[name]
            (mount.path / name / "index.json").unlink()
            shutil.rmtree(mount.path / name)
            return
        write_image(mount.path / name, as_written(image))
        actor.traffic.committed[name] = image

    return write


def copy_to(mount: Mount) -> Callable[[Actor], None]:
    def copy(actor: Actor) -> None:
        number, image = actor.pick()
        name = f"a.io/{actor.name}/{actor.chance.randrange(TAGS)}"
        source = actor.traffic.root / "sources" / str(number)
        (mount.path / name / "blobs").mkdir(parents=True, exist_ok=True)
        for part in ("blobs", "oci-layout", "index.json"):
            target = mount.path / name / part
            subprocess.run(["cp", "-rT", source / part, target], check=True)
        actor.traffic.committed[name] = image

    return copy


def as_written(image: MinimalImage) -> Image:
    manifest = json.loads(image.load(image.root))
    layers = [Digest.parse(layer["digest"]) for layer in manifest["layers"]]
    return Image(
        [Layer(digest, content=image.blobs[digest]) for digest in layers],
        image.blobs[Digest.parse(manifest["config"]["digest"])],
        image.load(image.root),
    )


def watch(actor: Actor) -> None:
    """See that every image that is there is whole."""
    for wrong in wrong_now(actor.traffic.store):
        actor.traffic.fail(wrong)
    actor.traffic.wait(0.2)  # or it takes the time of all others


def wrong_now(store: Path) -> Iterator[str]:
    """Yield what the blobs of an index lacked, unless it was replaced meanwhile."""
    indexes = [Path(at, "index.json") for at, _, names in os.walk(store) if "index.json" in names]
    for index in indexes:
        try:
            before = index.read_bytes()
        except FileNotFoundError:
            continue
        wrong = list(wrong_below(index.parent, json.loads(before)))
        try:
            same = index.read_bytes() == before
        except FileNotFoundError:
            same = False
        if same:
            yield from wrong


def wrong_below(layout: Path, document: dict[str, list[dict[str, str]]]) -> Iterator[str]:
    for descriptor in document.get("manifests", []) + document.get("layers", []):
        file = layout / "blobs" / descriptor["digest"].replace(":", "/")
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            yield f"{file} is missing"
            continue
        if hashlib.sha256(content).hexdigest() != file.name:
            yield f"{file} holds {content[:40]!r}"
        elif "manifest" in descriptor["mediaType"]:
            yield from wrong_below(layout, json.loads(content))


def test_nothing_is_lost_and_nothing_stays(tmp_path: Path, docker_registry: DockerRegistry) -> None:
    seed = int(os.environ.get("OCISTOW_SEED", "0"))
    sys.stderr.write(f"OCISTOW_SEED={seed}\n")
    traffic = Traffic(tmp_path, seed)
    Store.create(traffic.store).close()
    with (
        mounted(traffic.store, tmp_path / "one") as one,
        mounted(traffic.store, tmp_path / "two") as two,
    ):
        for number in range(ADDERS):
            traffic.begin(f"adder{number}", add)
        traffic.begin("writer1", write_to(one))
        traffic.begin("writer2", write_to(two))
        traffic.begin("copier", copy_to(two))
        traffic.begin("publisher", publish_to(docker_registry.host))
        traffic.begin("archiver", archive)
        traffic.begin("collector", collect)
        traffic.begin("tagger", tag_and_remove)
        traffic.begin("looker", look)
        traffic.begin("verifier", verify)
        traffic.begin("linker", link)
        traffic.begin("watch", watch)
        traffic.run()
        warnings = one.warnings + two.warnings
    sys.stderr.write(f"{dict(traffic.done)}\n")
    assert traffic.wrong == []
    assert warnings == []
    assert violations(traffic.store) == []
    expected = {name: str(image.root.digest) for name, image in traffic.committed.items()}
    assert expected.items() <= images(traffic.store).items()
    with Warm() as warm:
        assert warm.run([f"--store={traffic.store}", "gc", "--grace=0"], tmp_path / "last") == 0
    assert violations(traffic.store) == []
    assert expected.items() <= images(traffic.store).items()
    assert garbage(traffic.store) == []
    assert strays(traffic.store) == []
    assert [*(traffic.store / "leases").iterdir()] == []
