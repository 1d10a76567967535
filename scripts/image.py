"""Make an image with ocistow, and its phases as /cnb/lifecycle/*, in a store: no registry is asked.

The base is the root of a file system that has a Python of the version that runs this, such as
debootstrap makes; needs root, for owners. The image has three layers: base, libraries and ocistow.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

import ocistow
from ocistow.cli.components import bill, components
from ocistow.cli.main import PROGRAMS
from ocistow.lifecycle.golang.tar import Entry
from ocistow.lifecycle.labels import image_labels
from ocistow.lifecycle.layers.packer import LayerPacker
from ocistow.lifecycle.layers.tarball import LayerTar
from ocistow.lifecycle.layers.trees import Tree, absolute, walk
from ocistow.oci.descriptor import OCI_CONFIG, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.manifest import Index
from ocistow.oci.reference import Reference
from ocistow.publish.compression import GZIP
from ocistow.publish.sink import host_platform
from ocistow.store.store import Store

HOME = "opt/ocistow"
ID = 1000  # whom the phases build as; a mount needs `--user 0`
USER, USER_HOME = "cnb", "home/cnb"
CREATED = "1980-01-01T00:00:01Z"  # as of all that is to be reproducible
STORE, MOUNTPOINT = "var/lib/ocistow", "oci"
MOUNTERS = ("mount.ocistow", "mount.fuse.ocistow")

_PROGRAM = f"""\
#!{{python}} -I
import sys
sys.path.insert(0, "/{HOME}/lib")
from ocistow.cli.main import main
main()
"""


def main() -> None:
    """Make the image that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="the root of a file system")
    parser.add_argument("name", type=Reference.parse, help="of the image in the store")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--python", default="/usr/bin/python3", help="in the base")
    given = parser.parse_args()
    check_python(given.base, given.python)
    with tempfile.TemporaryDirectory() as work, Store.create(given.store) as store:
        libraries, programs = Path(work, "libraries"), Path(work, "programs")
        copy_libraries(libraries / HOME / "lib")
        write_programs(programs, given.python)
        add_user(programs, given.base)
        trees = (given.base, libraries, programs)
        digest = save(store, given.name, [*map(layer_of, trees)])
    print(f"made {given.name}: digest {digest}")


def check_python(base: Path, python: str) -> None:
    """Refuse a base whose Python cannot load the libraries that are compiled for this one.

    Raises:
        InvalidContent: it is another version.
    """
    version = "python{}.{}".format(*sys.version_info)
    path = base / python.lstrip("/")
    if path.resolve().name != version and not (path.parent / version).exists():
        raise InvalidContent(f"{base} has no {version} beside {python}, which runs this")


def copy_libraries(place: Path) -> None:
    """Copy the distributions that ocistow needs, with their licences, and nothing else."""
    for part in components()[1:]:
        distribution = metadata.distribution(part.name)
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = place / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), target)


def write_programs(root: Path, python: str) -> None:
    """Write ocistow itself, one script, and a link to it for each program."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ocistow.__file__).parent, root / HOME / "lib" / "ocistow", ignore=ignored)
    bom = json.dumps(bill(components()), indent=2)
    described = root / HOME / "lib" / f"ocistow-{metadata.version('ocistow')}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: ocistow\nVersion: {metadata.version('ocistow')}\n"
    )
    script = root / HOME / "bin" / "ocistow"
    script.parent.mkdir()
    script.write_text(_PROGRAM.format(python=python))
    script.chmod(0o755)
    for directory, names in {
        "usr/local/bin": ("ocistow", *MOUNTERS),
        "usr/sbin": MOUNTERS,  # where mount(8) looks
        "cnb/lifecycle": PROGRAMS,
    }.items():
        (root / directory).mkdir(parents=True)
        for name in names:
            (root / directory / name).symlink_to(f"/{HOME}/bin/ocistow")
    (root / "cnb/lifecycle/lifecycle.sbom.cdx.json").write_text(bom)


def add_user(root: Path, base: Path) -> None:
    """Write the accounts of the base, and the one of whom the phases run as, who has a home."""
    for name, line in {
        "etc/passwd": f"{USER}:x:{ID}:{ID}::/{USER_HOME}:/bin/sh\n",
        "etc/group": f"{USER}:x:{ID}:\n",
    }.items():
        known = (base / name).read_text() if (base / name).exists() else ""
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(known + line)
    for directory in (STORE, MOUNTPOINT, USER_HOME):
        (root / directory).mkdir(parents=True)
        os.chown(root / directory, ID, ID)


def layer_of(tree: Path) -> LayerTar:
    """Return the layer that has what lies below a directory, and as much of it as root may see."""
    root = absolute(tree)
    entries: list[Entry] = []
    for entry in walk(root, 0, 0):
        if name := entry.name.removeprefix(root):
            status = os.lstat(entry.name)  # the base has other owners than root
            ours = entry._replace(name=name, uid=status.st_uid, gid=status.st_gid)
            entries.append(ours)
    return LayerTar.of(str(tree), entries, partial(_Below, root))


class _Below:
    """The contents of a tree whose root is called `/` in the archive."""

    def __init__(self, root: bytes) -> None:
        self._root, self._tree = root, Tree(root)

    def open(self, name: bytes) -> int:
        return self._tree.open(self._root + name)

    def close(self) -> None:
        self._tree.close()


def save(store: Store, name: Reference, layers: Sequence[LayerTar]) -> Digest:
    """Pack the layers into the pool, and give the image of them its name there."""
    with LayerPacker(store.blobs, GZIP) as packer:
        packed = [made.result() for made in [packer.pack(layer) for layer in layers]]
        for one in packed:
            assert one.ingest is not None
            assert one.blob is not None
            one.ingest.commit(one.blob.digest)
    config = _stored(
        store,
        OCI_CONFIG,
        {
            "created": CREATED,
            **host_platform().to_document(),
            "config": {
                "User": f"{ID}:{ID}",
                "Env": [
                    "PATH=/cnb/lifecycle:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    f"CNB_USER_ID={ID}",
                    f"CNB_GROUP_ID={ID}",
                    f"OCISTOW_STORE=/{STORE}",
                ],
                "Entrypoint": ["/usr/local/bin/ocistow"],
                "Labels": image_labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in packed]},
        },
    )
    manifest = _stored(
        store,
        OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_document(),
            "layers": [one.blob.to_document() for one in packed if one.blob is not None],
        },
    )
    store.layout(name.path).commit(Index.of([manifest]))
    return manifest.digest


def _stored(store: Store, media_type: str, document: object) -> Descriptor:
    content = json.dumps(document, indent=2).encode()
    digest = Digest.of(content)
    store.blobs.add([content], digest)
    return Descriptor(media_type, digest, len(content))


if __name__ == "__main__":
    main()
