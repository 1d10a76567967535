"""An image's way through the store, seen by other tools and by the schemas."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import jsonschema
import pytest

import ocistow
from ocistow.testing.filesystems import Unavailable, mounted
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout
from ocistow.testing.registry import Registry

from ..conftest import program

ROOT = Path(__file__).parents[3]
SOURCES = Path(ocistow.__file__).parents[1]
SCHEMAS = json.loads((ROOT / "tests" / "schemas" / "image-spec.json").read_text())
KINDS = {
    "application/vnd.oci.image.index.v1+json": "index",
    "application/vnd.oci.image.manifest.v1+json": "manifest",
    "application/vnd.oci.image.config.v1+json": "config",
}
Done = subprocess.CompletedProcess[str]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ocistow.cli", *arguments]


def environment(store: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCISTOW_")}
    own = {"OCISTOW_STORE": str(store), "OCISTOW_CONFIG": os.devnull, "PYTHONPATH": str(SOURCES)}
    return {**kept, **own}


def run(store: Path, *arguments: str) -> Done:
    return subprocess.run(
        command(*arguments), env=environment(store), capture_output=True, text=True, timeout=60
    )


def ok(store: Path, *arguments: str) -> str:
    done = run(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tool(*arguments: str) -> str:
    done = subprocess.run([program(arguments[0]), *arguments[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def validate(kind: str, raw: bytes) -> object:
    document: object = json.loads(raw)
    schema = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMAS["$defs"]}
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    return document


def assert_valid_layout(layout: Path) -> None:
    """Check marker, index and every document below it against the schemas."""
    validate("layout", (layout / "oci-layout").read_bytes())
    index = json.loads((layout / "index.json").read_bytes())
    validate("index", (layout / "index.json").read_bytes())
    todo = list(index["manifests"])
    assert todo
    while todo:
        descriptor = todo.pop()
        raw = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert len(raw) == descriptor["size"]
        validate(KINDS[descriptor["mediaType"]], raw)
        document = json.loads(raw)
        todo += document.get("manifests", [])
        if isinstance(config := document.get("config"), dict) and "digest" in config:
            todo.append(config)


def inodes(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, mtime and size of every file below a directory."""
    status = {str(p.relative_to(directory)): p.stat() for p in directory.rglob("*") if p.is_file()}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in status.items()}


def test_the_schemas_refuse_what_the_specification_does() -> None:
    digest = "sha256:" + "0" * 64
    good = {"mediaType": "a/b", "digest": digest, "size": 1}
    validate("descriptor", json.dumps(good).encode())
    for bad in (
        {"size": -1},
        {"size": "1"},
        {"digest": "sha256:0"},
        {"digest": digest.upper()},
        {"mediaType": "plain"},
        {"annotations": {"a": 1}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate("descriptor", json.dumps({**good, **bad}).encode())
    with pytest.raises(jsonschema.ValidationError):
        validate("layout", b'{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(jsonschema.ValidationError):
        validate("index", b'{"schemaVersion": 2, "manifests": [], "layers": []}')


@pytest.mark.tools
def test_an_image_lives_and_dies(tmp_path: Path) -> None:
    store = tmp_path / "store"
    base = image_layout(tmp_path / "base", seed=1, layer_size=100_000)
    image_layout(tmp_path / "app", seed=2, layers=1, base=base, layer_size=100_000)
    ok(store, "add", f"oci:{tmp_path}/base", "e.x/base:1")
    assert ": 3 blobs new" in ok(store, "add", f"oci:{tmp_path}/app", "e.x/team/app:1")
    names = [line.split()[0] for line in ok(store, "ls").splitlines()[1:]]
    assert names == ["e.x/base:1", "e.x/team/app:1"]

    ok(store, "tag", "e.x/base:1", "e.x/base:stable")
    by_digest = f"e.x/base@{base.manifest}"
    ok(store, "tag", "e.x/base:1", by_digest)
    layouts = {
        "e.x/base/1": "1",
        "e.x/base/stable": "stable",
        "e.x/team/app/1": "1",
        f"e.x/base/sha256/{base.manifest.encoded}": "",
    }
    for path, tag in layouts.items():
        layout = store / "layouts" / path
        assert_valid_layout(layout)
        if not tag:
            continue  # without a name; what follows asks for one
        found = json.loads(tool("skopeo", "inspect", f"oci:{layout}:{tag}"))
        assert re.fullmatch("sha256:[0-9a-f]{64}", found["Digest"])
        tool("umoci", "stat", "--image", f"{layout}:{tag}")
    shared = ("--src-shared-blob-dir", str(store / "blobs"))
    tool("skopeo", "copy", *shared, f"oci:{store}/layouts/e.x/base/1:1", f"dir:{tmp_path}/out")

    total = json.loads(ok(store, "du", "--json"))["total"]
    assert total["separate"] > 3 * total["onDisk"]
    ok(store, "rm", "e.x/base:1", "e.x/base:stable", by_digest)
    assert [line.split()[0] for line in ok(store, "ls").splitlines()[1:]] == ["e.x/team/app:1"]
    assert sorted(p.name for p in (store / "layouts" / "e.x").iterdir()) == ["team"]
    assert_valid_layout(store / "layouts" / "e.x" / "team" / "app" / "1")


def test_indexes_and_sparse_images_are_valid_layouts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    index_layout(tmp_path / "multi")
    sparse_layout(tmp_path / "sparse")
    ok(store, "add", f"oci:{tmp_path}/multi", "e.x/multi:1")
    ok(store, "add", f"oci:{tmp_path}/sparse", "e.x/sparse:1")
    for name in ("multi", "sparse"):
        assert_valid_layout(store / "layouts" / "e.x" / name / "1")


def test_a_second_add_reads_no_layer_and_writes_no_blob(tmp_path: Path) -> None:
    store = tmp_path / "store"
    image = image_layout(tmp_path / "layout", layer_size=100_000)
    ok(store, "add", f"oci:{tmp_path}/layout", "e.x/app:1")
    before = inodes(store / "blobs")
    for layer in image.layers:
        image.blob(layer).unlink()  # whoever wants to read them fails
        image.blob(layer).mkdir()
    text = ok(store, "add", f"oci:{tmp_path}/layout", "e.x/app:1")
    assert "0 blobs new (0 B), 5 present" in text
    ok(store, "add", f"oci:{tmp_path}/layout", "e.x/other:1")
    assert inodes(store / "blobs") == before
    linked = inodes(store / "layouts" / "e.x" / "other" / "1" / "blobs")
    assert {ino for ino, _, _ in linked.values()} == {ino for ino, _, _ in before.values()}
    fresh = run(tmp_path / "fresh", "add", f"oci:{tmp_path}/layout", "e.x/app:1")
    assert fresh.returncode == 65, "an add that must read them has to notice"


def test_two_processes_may_add_at_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    base = image_layout(tmp_path / "base", seed=0, layer_size=2_000_000, compression="none")
    for number in range(4):
        image_layout(tmp_path / f"app{number}", seed=number + 1, layers=1, base=base)
    started = [
        subprocess.Popen(
            command("add", f"oci:{tmp_path}/app{number % 4}", f"e.x/{name}:1"),
            env=environment(store),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(["a", "b", "c", "d", "same", "same"])
    ]
    for process in started:
        _, error = process.communicate(timeout=100)
        assert process.returncode == 0, error
    names = [line.split()[0] for line in ok(store, "ls").splitlines()[1:]]
    assert names == [f"e.x/{name}:1" for name in ["a", "b", "c", "d", "same"]]
    for name in ["a", "b", "c", "d", "same"]:
        assert_valid_layout(store / "layouts" / "e.x" / name / "1")
    assert json.loads(ok(store, "du", "--json"))["total"]["unreferencedBlobs"] == 0


@pytest.fixture
def small(tmp_path: Path) -> Generator[Path]:
    """Mount a file system of 6 MB, and give a place for a store in it."""
    try:
        with mounted("tmpfs", tmp_path / "small", size=6 << 20, options="nr_inodes=500") as path:
            yield path / "store"
    except Unavailable as reason:
        pytest.skip(str(reason))


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_bsize


def fill(directory: Path) -> Path:
    """Write a file until there is no byte left, and no inode."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)):
                pass
        except OSError:
            pass
    return ballast


def assert_full(done: Done, *names: Path) -> None:
    assert done.returncode == 74, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(": No space left on device\n")
    assert any(str(name) in done.stderr for name in names), done.stderr


def images(store: Path) -> Iterator[str]:
    for line in ok(store, "ls").splitlines()[1:]:
        yield line.split()[0]


def test_an_add_that_fills_the_disk_leaves_what_was_there(tmp_path: Path, small: Path) -> None:
    image_layout(tmp_path / "first", seed=1, layer_size=100_000)
    large = image_layout(tmp_path / "large", seed=2, layer_size=3_000_000, compression="none")
    ok(small, "add", f"oci:{tmp_path}/first", "e.x/first:1")
    before, blobs = free(small), set(inodes(small / "blobs"))
    assert_full(run(small, "add", f"oci:{tmp_path}/large", "e.x/large:1"), small)
    assert list(images(small)) == ["e.x/first:1"]
    assert_valid_layout(small / "layouts" / "e.x" / "first" / "1")
    whole = set(inodes(small / "blobs")) - blobs
    kept = sum((small / "blobs" / name).stat().st_size for name in whole)
    assert before - free(small) <= kept + 65536, "what was staged is still there"
    for name in whole:  # blobs that were finished may stay, and are what they say
        expected = large.path / "blobs" / name
        assert (small / "blobs" / name).read_bytes() == expected.read_bytes()


def test_commands_on_a_full_disk(tmp_path: Path, small: Path) -> None:
    image = image_layout(tmp_path / "layout", layer_size=100_000)
    image_layout(tmp_path / "other", seed=7)
    ok(small, "add", f"oci:{tmp_path}/layout", "e.x/app:1")
    before = snapshot(small)
    ballast = fill(small.parent)
    assert_full(run(small, "add", f"oci:{tmp_path}/other", "e.x/other:1"), small)
    assert_full(run(small, "tag", "e.x/app:1", "e.x/team/deep/down:2"), small)
    assert list(images(small)) == ["e.x/app:1"]
    assert snapshot(small) == before
    for arguments in (["inspect", "e.x/app:1"], ["du"], ["ls", "--json"]):
        ok(small, *arguments)
    with Registry() as registry:
        ok(small, "publish", "e.x/app:1", f"docker://{registry.host}/app:1")
    assert_full(run(small.parent / "new", "add", f"oci:{tmp_path}/layout", "a"), small.parent)
    done = run(small, "rm", "e.x/app:1")
    assert done.returncode == 0, f"space can only be freed by removing: {done.stderr}"
    ballast.unlink()
    ok(small, "add", f"oci:{tmp_path}/layout", "e.x/app:1")
    assert_valid_layout(small / "layouts" / "e.x" / "app" / "1")
    assert ok(small, "inspect", "e.x/app:1", "--raw").encode() == raw(image)


def raw(image: GeneratedImage) -> bytes:
    return image.blob(image.manifest).read_bytes()


def snapshot(store: Path) -> dict[str, bytes]:
    """Return every file of pool and layouts with its content."""
    files = [p for name in ("blobs", "layouts") for p in (store / name).rglob("*") if p.is_file()]
    return {str(file): file.read_bytes() for file in files}
