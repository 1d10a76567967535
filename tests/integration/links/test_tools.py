"""Other people's tools read the layouts that are made for them."""

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.testing.images import GeneratedImage, image_layout, index_layout
from ocistow.testing.invariants import index_violations
from ocistow.testing.mounts import run

from ..conftest import program

pytestmark = pytest.mark.tools

ONE, TWO, MANY = "example.com/app:1", "example.com/app:2", "example.com/many:3"
WAYS = ["hardlink", "reflink", "symlink", "copy"]


@pytest.fixture
def path(file_system: Callable[[str], Path]) -> Path:
    return file_system("xfs")  # which knows all ways


@pytest.fixture
def image(path: Path) -> GeneratedImage:
    """Fill a store with three images, and return the first."""
    one = image_layout(path / "one", seed=1)
    for layout, name in (
        (one, ONE),
        (image_layout(path / "two", seed=2, base=one), TWO),
        (index_layout(path / "many"), MANY),
    ):
        if name == TWO:
            for digest in one.layers:
                (path / "two" / "blobs" / "sha256" / digest.encoded).write_bytes(
                    one.blob(digest).read_bytes()
                )
        added = run(path / "store", "add", f"oci:{layout.path}", name)
        assert added.returncode == 0, added.stderr
    return one


def link(path: Path, *arguments: str) -> Path:
    done = run(path / "store", "link", *arguments, str(path / "out"))
    assert done.returncode == 0, done.stderr
    return path / "out"


def tool(*command: str) -> str:
    done = subprocess.run(
        [program(command[0]), *command[1:]], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def go_reads(layout: Path) -> bool:
    """Tell whether go-containerregistry >= 0.21.7 takes a layout's blobs; pkg/v1/layout/blob.go.

    It compares what the name is with what was opened, and refuses what is no plain file.
    """

    def reads(digest: str) -> bool:
        path = layout / "blobs" / digest.replace(":", "/")
        named = path.lstat()
        with path.open("rb") as file:
            opened = os.fstat(file.fileno())
            return (
                stat.S_ISREG(named.st_mode)
                and os.path.samestat(named, opened)
                and hashlib.sha256(file.read()).hexdigest() == path.name
            )

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    blobs = [entry, manifest["config"], *manifest["layers"]]
    return all(reads(blob["digest"]) for blob in blobs)


@pytest.mark.parametrize("mode", WAYS)
def test_every_tool_reads_every_layout(path: Path, image: GeneratedImage, mode: str) -> None:
    out = link(path, ONE, TWO, MANY, "--mode", mode)
    layout = out / "example.com" / "app" / "1"
    for name in (f"oci:{layout}:1", f"oci:{layout}"):
        assert tool("skopeo", "inspect", "--format", "{{.Digest}}", name).strip() == str(
            image.manifest
        )
        tool("skopeo", "copy", name, f"dir:{path}/copied")
    many = out / "example.com" / "many" / "3"
    tool("skopeo", "copy", "--all", f"oci:{many}:3", f"oci:{path}/all:3")
    tool("umoci", "raw", "unpack", "--image", f"{layout}:1", str(path / "unpacked"))
    assert go_reads(layout) == (mode != "symlink")
    if mode != "symlink":
        run(path / "again", "add", f"oci:{layout}", ONE).check_returncode()


def test_pack_finds_a_directory_of_layouts_as_it_wants_it(
    path: Path, image: GeneratedImage
) -> None:
    out = link(path, ONE, TWO, MANY)
    (path / "tree").mkdir()
    (path / "tree" / "layouts").symlink_to(out)
    assert index_violations(path / "tree") == []
    found = {str(index.parent.relative_to(out)) for index in out.rglob("index.json")}
    assert found == {"example.com/app/1", "example.com/app/2", "example.com/many/3"}


def test_one_layout_has_all_images(path: Path, image: GeneratedImage) -> None:
    out = link(path, ONE, TWO, "--flat")
    assert tool("umoci", "ls", "--layout", str(out)).split() == ["1", "2"]
    for tag in ("1", "2"):
        tool("skopeo", "copy", f"oci:{out}:{tag}", f"dir:{path}/copied-{tag}")
    link(path, MANY, ONE, "--flat")
    tool("skopeo", "copy", "--all", f"oci:{out}:{MANY}", f"oci:{path}/all:3")
    tool("skopeo", "inspect", f"oci:{out}:1")


@pytest.mark.parametrize("mode", WAYS)
def test_skopeo_finds_blobs_that_layouts_share(
    path: Path, image: GeneratedImage, mode: str
) -> None:
    out = link(path, ONE, TWO, MANY, "--shared-blobs", "--mode", mode)
    shared = ["--src-shared-blob-dir", str(out / "blobs")]
    for name in ("app/1", "app/2:2"):
        tool("skopeo", "copy", *shared, f"oci:{out}/example.com/{name}", f"dir:{path}/copied")
    where = f"oci:{out}/example.com/many/3"
    tool("skopeo", "copy", "--all", *shared, where, f"oci:{path}/all:3")


def test_the_command_says_what_it_took(path: Path, image: GeneratedImage) -> None:
    done = run(path / "store", "link", ONE, str(path / "out"))
    assert f"linked {ONE} to {path}/out/example.com/app/1:1: 5 blobs" in done.stdout
    assert done.stdout.endswith(": 5 hard links\n")
    assert done.stderr == ""
    done = run(path / "store", "link", ONE, ONE, str(path / "out"), "--json")
    (linked,) = json.loads(done.stdout)["linked"]
    assert linked["ways"].keys() == {"present"}
    assert linked["blobs"] == linked["ways"]["present"]["blobs"] == 5
    assert linked["bytes"] == linked["ways"]["present"]["bytes"]
    assert linked["layout"] == f"{path}/out/example.com/app/1"
    done = run(path / "store", "link", ONE, str(path / "links"), "--mode", "symlink")
    assert "go-containerregistry >= 0.21.7 refuses symbolic links" in done.stderr
    done = run(path / "store", "link", ONE, "example.com/no:1", str(path / "none"))
    assert done.returncode == os.EX_NOINPUT
    assert not (path / "none").exists()
    done = run(path / "store", "link", ONE, str(path / "store" / "layouts"))
    assert (done.returncode, "lies in the store" in done.stderr) == (os.EX_DATAERR, True)


def test_a_hard_link_outlives_the_store_and_a_symbolic_link_does_not(
    path: Path, image: GeneratedImage
) -> None:
    for mode in ("hardlink", "symlink"):
        run(path / "store", "link", ONE, str(path / mode), "--mode", mode)
    run(path / "store", "rm", ONE, TWO)
    run(path / "store", "gc", "--grace", "0")
    tool("skopeo", "copy", f"oci:{path}/hardlink/example.com/app/1:1", f"dir:{path}/copied")
    broken = (path / "symlink").rglob("sha256/*")
    assert not any(blob.exists() for blob in broken)
