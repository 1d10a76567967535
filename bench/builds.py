"""What a build leaves for the exporter, and the run images that it stands upon."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ..oci.digest import Digest
from ..oci.document import Object, as_object, parse_object, string
from ..oci.errors import InvalidContent
from ..publish.archives.entries import REGULAR, Entries, Entry, Forward
from ..publish.checked import CheckedSource
from ..publish.compression import inflated
from ..publish.sink import Image
from ..publish.source import Stream
from ..store.reading import READ_SIZE
from .apps import APPS, MB, RUN_LEVEL, Builder, File, Layer
from .servers import Missing

RUN, PATCHED = "run", "patched"  # the images in the layout of a build
_BUILDPACK = "bench_app"
_GROUP = '[[{}]]\nid = "bench/app"\nversion = "1"\napi = "0.10"\n'
_LAYER_TYPES = {  # Docker's media types in OCI's words
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "layer.v1.tar",
}
_OCI = "application/vnd.oci.image."
_WHITEOUT = ".wh."
_INFLATED = 3  # times as large as compressed, about
_TIMES = 3  # what lies on the disk at once: the build itself, and images that ways make of it
_UNPACKED_PACKAGES, _MADE = 1 << 30, 2 << 30  # bytes; of the packages, and of all else


@dataclass(frozen=True, slots=True)
class Build:
    """Layers of buildpacks and an application below `path`, as the builder leaves them.

    Attributes:
        about: what it was made of, for reading.
    """

    path: Path
    about: str

    @property
    def images(self) -> Path:
        """A layout with the run image, and the next version of that."""
        return self.path / "images"

    @property
    def layers(self) -> Path:
        """The directory of layers."""
        return self.path / "layers"

    @property
    def app(self) -> Path:
        """The application."""
        return self.path / "app"

    @property
    def launcher(self) -> Path:
        """What goes into the image as its launcher."""
        return self.path / "launcher"

    @property
    def size(self) -> int:
        """The bytes of all that is exported."""
        trees = (self.layers, self.app)
        return sum(file.lstat().st_size for tree in trees for file in tree.rglob("*"))

    @property
    def base_layers(self) -> int:
        """How many layers the run image has."""
        index = json.loads((self.images / "index.json").read_text())
        blob = self.images / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
        return len(json.loads(blob.read_text())["layers"])

    def begin(self) -> None:
        """Forget what exporters left: this is the first build."""
        for name in ("analyzed.toml", "report.toml"):
            (self.layers / name).unlink(missing_ok=True)
        self.change(1)

    def change(self, number: int) -> None:
        """Change one file, the same way for everybody who builds with that number."""
        content = hashlib.shake_128(str(number).encode()).digest(1000)
        (self.app / "changed").write_bytes(content)


def made_builds(path: Path, apps: Iterable[str] = APPS, *, quick: bool) -> dict[str, Build]:
    """Make builds of the shape and size of Paketo's, of the content of Debian packages.

    Raises:
        Missing: the Debian packages cannot be had, or the disk is too small.
    """
    divisor = 10 if quick else 1
    check_room(path.parent, _UNPACKED_PACKAGES + _MADE // divisor)
    made = Builder(path / "images", divisor)
    _write_run_images(made, made.run_layers())
    builds: dict[str, Build] = {}
    for app in apps:
        builds[app] = build = Build(path / app, f"{app}: Debian packages")
        shutil.copytree(path / "images", build.images, copy_function=os.link)
        for name, files in made.dependencies(app).items():
            _fill(_layer(build, name), files)
        _fill(build.app, [(f"classes/{number}", made.text(MB // 300)) for number in range(500)])
        _finish(build, made.text(3 * MB), made.text(3 * MB))
    made.clear()
    return builds


def build_of(path: Path, image: Image) -> Build:
    """Make a build of somebody's image: lower layers become the run image, upper ones trees.

    The label of an image that buildpacks made tells where the run image ends; others are cut in
    the middle. Of the trees only regular files are kept.

    Raises:
        InvalidContent: it is no image, or damaged, or has more than half of what the disk has.
        Missing: the disk is too small.
    """
    manifest, config = image.for_one_platform()
    is_packed = any(layer.media_type.endswith(("gzip", "zstd")) for layer in manifest.layers)
    size = sum(layer.size for layer in manifest.layers) * (_INFLATED if is_packed else 1)
    check_room(path.parent, _TIMES * size)
    cut = _cut(parse_object(config.raw, "image config"), config.diff_ids)
    pairs = list(zip(manifest.layers, config.diff_ids, strict=True))
    root = image.root.digest
    made_of = f"{root.algorithm}:{root.encoded[:12]}…, {cut} of {len(pairs)} layers as run image"
    build = Build(path, made_of)
    made = Builder(build.images, 1)
    source = CheckedSource(image.source)
    run: list[Layer] = []
    for descriptor, diff_id in pairs[:cut]:
        with source.open(descriptor) as blob:
            _copy(blob, build.images / "blobs" / "sha256" / descriptor.digest.encoded)
        kind = _LAYER_TYPES.get(descriptor.media_type)
        named: dict[str, object] = {
            "mediaType": f"{_OCI}{kind}" if kind else descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
        }
        run.append(Layer(named, str(diff_id)))
    _write_run_images(made, run)
    left = shutil.disk_usage(path).free // 2
    build.app.mkdir()
    for number, (descriptor, _) in enumerate(pairs[cut:]):
        is_last = number == len(pairs) - cut - 1
        tree = build.app if is_last else _layer(build, f"layer-{number}")
        with source.open(descriptor) as blob:
            left = unpack(inflated(blob), tree, left)
            while blob.read(READ_SIZE):
                pass  # an archive may end before its file does, and the digest is that of the file
    _finish(build, b"a launcher", b"{}")
    return build


def check_room(directory: Path, needed: int) -> None:
    """Return if so many bytes are free where a benchmark works.

    Raises:
        Missing: they are not.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise Missing(
            f"{directory} has {free >> 20} MiB free, and this needs about {needed >> 20} MiB"
        )


def unpack(tar: Stream, directory: Path, most: int) -> int:
    """Write the regular files of a layer below a directory in which nothing is.

    There are no links in it, so that no name leads out. Returns how many of `most` bytes are left.

    Raises:
        InvalidContent: it is no archive, or has more bytes.
    """
    entries = Entries(Forward(tar), "layer")
    for entry in entries:
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        is_file = entry.kind in REGULAR and parts and not entry.name.endswith("/")
        if not is_file or ".." in parts or parts[-1].startswith(_WHITEOUT):
            continue
        most -= entry.size
        if most < 0:
            raise entries.invalid("its files do not fit on the disk")
        try:
            _extract(entries, entry, directory.joinpath(*parts))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # another one has this name, or that of a directory above
    return most


def _extract(entries: Entries, entry: Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while data := entries.read(entry, READ_SIZE):
            file.write(data)
    path.chmod(0o600 | entry.mode & 0o777)


def _copy(stream: Stream, path: Path) -> None:
    with path.open("wb") as file:
        while data := stream.read(READ_SIZE):
            file.write(data)


def _cut(config: Object, diff_ids: Sequence[Digest]) -> int:
    """Return how many of the layers are the run image's; at least one is not."""
    try:
        labels = as_object(as_object(config.get("config"), "config").get("Labels"), "labels")
        metadata = LifecycleMetadata.parse(string(labels, LIFECYCLE_METADATA, "labels").encode())
        top = Digest.parse(metadata.run_image.top_layer)
        return min(diff_ids.index(top) + 1, len(diff_ids) - 1)
    except (InvalidContent, ValueError):
        return len(diff_ids) // 2


def _write_run_images(made: Builder, layers: Sequence[Layer]) -> None:
    """Add small layers, one of which the next version has otherwise."""
    images = {
        name: [
            *layers,
            made.layer([("etc/passwd", b"cnb:x:1000:1000::/home/cnb:/bin/sh\n")], RUN_LEVEL),
            made.layer([("etc/os-release", f'NAME="{name}"\n'.encode())], RUN_LEVEL),
        ]
        for name in (RUN, PATCHED)
    }
    made.write_index(images)


def _layer(build: Build, name: str) -> Path:
    """Return a directory for a layer, and say that it is one."""
    directory = build.layers / _BUILDPACK / name
    directory.mkdir(parents=True)
    directory.with_name(f"{name}.toml").write_text("[types]\nlaunch = true\n")
    return directory


def _finish(build: Build, launcher: bytes, sbom: bytes) -> None:
    build.launcher.write_bytes(launcher)
    files = {
        "group.toml": _GROUP.format("group").encode(),
        "config/metadata.toml": _GROUP.format("buildpacks").encode()
        + b'[[processes]]\ntype = "web"\ncommand = ["web"]\n',
        f"sbom/launch/{_BUILDPACK}/sbom.cdx.json": sbom,
    }
    _fill(build.layers, files.items())


def _fill(directory: Path, files: Iterable[File]) -> None:
    for name, content in files:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            os.link(content, path)  # packages are only removed
