"""The layers of Go's exporter and ours have the same diffIDs."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.slices import slice_layers
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import dir_layer, launcher_layer, process_types_layer
from ocistow.oci.digest import Digest
from ocistow.testing.images import image_layout

SLICES = [["*.txt"], ["lib/*.jar", "lib/[^a-y]*"], ["none"], ["lib"]]
NAMES = ["a.txt", "é.txt", "b/" + "n" * 99, "b/" + "n" * 120, "b/" + "m" * 250, "lib/x.jar"]
METADATA = f"""\
buildpack-default-process-type = "web"
[[buildpacks]]
id = "samples/all"
version = "1"
api = "0.10"
[[processes]]
type = "web"
command = ["run"]
[[processes]]
type = "{"w" * 120}"
command = ["run"]
"""


def fill(tree: Path) -> None:
    """Make a tree of what needs care."""
    for number, name in enumerate([*NAMES, "lib/yy/file", "lib/zz/" + "d" * 99 + "/" + "f" * 99]):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(os.urandom(number * 300))
    (tree / "a").mkdir()
    (tree / "a" / "below").write_text("after a.txt in slices, before it elsewhere")
    (tree / "setuid").write_text("")
    (tree / "setuid").chmod(0o4755)
    (tree / "b").chmod(0o1777)
    (tree / "link").symlink_to("../" * 50 + "away")
    (tree / os.fsdecode(b"\xff")).symlink_to("é")
    os.link(tree / "a.txt", tree / "again")
    os.mkfifo(tree / "fifo")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that every user can reach."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def diff_id(tar: LayerTar) -> str:
    stream = tar.open()
    content = stream.read(tar.size + 1)
    stream.close()
    assert len(content) == tar.size
    return str(Digest.of(content))


def test_layers_are_those_of_gos_exporter(place: Path, real: Callable[[str], Path]) -> None:
    oci, layers, app = (place / name for name in ("oci", "layers", "app"))
    run = image_layout(oci / "example.com" / "run" / "latest", layers=1)
    fill(app)
    fill(layers / "samples_all" / "l")
    (layers / "samples_all" / "l.toml").write_text("[types]\nlaunch = true\n")
    (layers / "config").mkdir()
    slices = "".join(f"[[slices]]\npaths = {json.dumps(paths)}\n" for paths in SLICES)
    (layers / "config" / "metadata.toml").write_text(METADATA + slices)
    (layers / "group.toml").write_text(
        '[[group]]\nid = "samples/all"\nversion = "1"\napi = "0.10"\n'
    )
    reference = f"{run.path}@{run.manifest}"
    (layers / "analyzed.toml").write_text(
        f'[run-image]\nreference = "{reference}"\nimage = "example.com/run"\n'
    )
    (place / "launcher").write_text("launches")
    uid, gid = (1234, 4321) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    for path in (layers, *oci.rglob("*")):
        os.chown(path, uid, gid)
    subprocess.run(
        [
            real("exporter"),
            "-layout",
            *("-layout-dir", oci, "-layers", layers, "-app", app, "-uid", str(uid)),
            *("-gid", str(gid), "-launcher", place / "launcher", "example.com/app"),
        ],
        check=True,
        env={"CNB_PLATFORM_API": "0.13", "CNB_EXPERIMENTAL_MODE": "quiet", "PATH": os.defpath},
        timeout=100,
    )
    blobs = oci / "example.com" / "app" / "latest" / "blobs" / "sha256"
    index = json.loads((blobs.parent.parent / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
    assert config["rootfs"]["diff_ids"][len(run.layers) :] == [
        diff_id(tar)
        for tar in (
            dir_layer("layer", layers / "samples_all" / "l", uid, gid),
            *slice_layers(app, SLICES, uid, gid),
            launcher_layer(place / "launcher"),
            dir_layer("config", layers / "config", uid, gid),
            process_types_layer(["web", "w" * 120]),
        )
    ]
