"""Eight writers and four readers at once, for a while: every image is whole, nothing stays.

OCISTOW_TRAFFIC is the number of seconds for each engine.
"""

import itertools
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.invariants import strays, violations
from ocistow.testing.layout_writer import image_of, write_image
from ocistow.testing.mounts import mounted, run

from .conftest import Run

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SECONDS = float(os.environ.get("OCISTOW_TRAFFIC", "8"))
TAGS = 3  # of each writer; each is written again and again
READERS = 4

Work = Callable[[Path, int], object]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sequence[GeneratedImage]:
    """Images that share a base."""
    top = tmp_path_factory.mktemp("sources")
    base = image_layout(top / "base", seed=1, layers=3, layer_size=60_000)
    return [
        image_layout(top / str(seed), seed=seed, layers=2, layer_size=30_000, base=base)
        for seed in range(2, 6)
    ]


def command(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=60)
    assert done.returncode == 0, (words, done.stderr.decode())


def by_skopeo(sources: Sequence[GeneratedImage], layout: Path, number: int) -> None:
    layout.parent.mkdir(exist_ok=True)
    source = sources[number % len(sources)]
    command("skopeo", "copy", "--quiet", f"oci:{source.path}:latest", f"oci:{layout}:latest")


def by_umoci(sources: Sequence[GeneratedImage], layout: Path, number: int) -> None:
    """Write an image once, and change it from then on."""
    if not layout.is_dir():
        by_replay(sources, layout, number)
    command("umoci", "config", "--image", f"{layout}:latest", f"--config.label=number={number}")


def by_replay(sources: Sequence[GeneratedImage], layout: Path, number: int) -> None:
    """Write as go-containerregistry does, which adds to an index that is there."""
    (layout / "index.json").unlink(missing_ok=True)
    write_image(layout, image_of(sources[number % len(sources)]))


def write(work: Work, names: Sequence[Path], end: float) -> int:
    for number in itertools.count():
        if time.monotonic() > end:
            return number
        work(names[number % len(names)], number)
    raise AssertionError


def read(root: Path, end: float) -> int:
    """Check every image through the mount, as far as it is not written anew meanwhile."""
    for number in itertools.count():
        for index in root.glob("*/*/index.json"):
            if time.monotonic() > end:
                return number
            before = contents(index)
            wrong = violations_of(index.parent) if before else []
            assert not wrong or contents(index) != before, wrong
    raise AssertionError


def contents(index: Path) -> bytes:
    try:
        return index.read_bytes()
    except FileNotFoundError:
        return b""


def violations_of(layout: Path) -> list[str]:
    """Return which blobs of an image are not what their names and descriptors say."""
    wrong: list[str] = []
    try:
        wanted = json.loads((layout / "index.json").read_bytes())["manifests"]
        while wanted:
            descriptor = wanted.pop()
            algorithm, _, encoded = descriptor["digest"].partition(":")
            content = (layout / "blobs" / algorithm / encoded).read_bytes()
            if len(content) != descriptor["size"]:
                wrong.append(f"{layout}: {encoded} has {len(content)} bytes")
            elif "manifest" in descriptor["mediaType"]:
                document = json.loads(content)
                wanted += [document["config"], *document["layers"]]
    except (OSError, ValueError) as error:
        wrong.append(f"{layout}: {error!r}")
    return wrong


def test_every_image_is_whole_whoever_writes_beside(
    engine: str, tmp_path: Path, sources: Sequence[GeneratedImage], run_tool: Run
) -> None:
    for program in ("skopeo", "umoci"):
        run_tool(program, "--version")
    works: list[Work] = [
        partial(how, sources) for how in (*[by_skopeo] * 3, *[by_umoci] * 2, *[by_replay] * 3)
    ]
    with mounted(tmp_path / "store", tmp_path / "mnt", f"--engine={engine}") as mount:
        root = mount.path / "a.io"
        root.mkdir()
        done = _work(root, works)
        mount.await_no_unnamed_files()
        assert mount.warnings == []
    assert min(done.values()) > 0, done
    store = mount.store
    assert violations(store) == []
    assert strays(store) == []
    verified = run(store, "verify")
    assert verified.returncode == 0, verified.stderr


def _work(root: Path, works: Sequence[Work]) -> Counter[str]:
    end = time.monotonic() + SECONDS
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(len(works) + READERS) as threads:
        running = {
            f"writer {number}": threads.submit(
                write, work, [root / f"writer{number}" / str(tag) for tag in range(TAGS)], end
            )
            for number, work in enumerate(works)
        }
        for number in range(READERS):
            running[f"reader {number}"] = threads.submit(read, root, end)
        for name, future in running.items():
            done[name] = future.result()
    return done
