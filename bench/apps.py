"""Images as buildpacks export them: a run image and applications on it, of real files.

The shapes and sizes are those of Paketo's Java, Kotlin and Ruby images; the content comes
from Debian packages, since a daemon unpacks what it gets. Each application comes in two
builds that differ in one layer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from .processes import ENVIRONMENT
from .servers import Missing, require

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MB = 1_000_000
APPS = ("java", "kotlin", "ruby")
RUN_LEVEL, APP_LEVEL = 6, 1  # of gzip: most tools', and go-containerregistry's "best speed"

_TYPE = "application/vnd.oci.image"
_REF = "org.opencontainers.image.ref.name"
_PACKAGES = {
    "base": (
        "libperl5.36 perl-modules-5.36 coreutils systemd libpython3.11-stdlib "
        "python3.11-minimal util-linux locales tzdata"
    ),
    "pkgs": "libllvm14 libicu72 git",
    "jre": "openjdk-17-jre-headless",
    "jars": (
        "libicu4j-java libbcprov-java libtomcat9-java libhibernate3-java libguava-java "
        "libjackson2-databind-java libspring-core-java libspring-web-java libhsqldb-java"
    ),
    "kotlin": "kotlin liblucene4.10-java",
    "mri": "libruby3.1 libperl5.36",
    "gems": (
        "ruby-gettext puppet-agent rubocop ruby-rouge ruby-activerecord ruby-activesupport "
        "ruby-actionpack ruby-actionview ruby-aws-sdk-core ruby-mail ruby-kramdown jekyll "
        "ruby-rspec-core ruby-prawn ruby-nokogiri perl-modules-5.36"
    ),
}
_PARTS = {  # of each application: packages, bytes of their files, and whether these are small
    "java": (("jre", 130 * MB, False), ("jars", 37 * MB, False)),
    "kotlin": (("jre", 130 * MB, False), ("kotlin", 60 * MB, False)),
    "ruby": (("mri", 55 * MB, False), ("gems", 37 * MB, True)),
}
_LARGEST = {"kotlin": 12 * MB}  # a compiler in one jar is no application's dependency
Descriptor: TypeAlias = dict[str, object]
File: TypeAlias = tuple[str, Path | bytes]


@dataclass(frozen=True, slots=True)
class Apps:
    """A layout with the images `run`, and `APP` and `APP2` for each application.

    Attributes:
        tags: of all images.
    """

    path: Path
    tags: Sequence[str]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image in the making."""

    descriptor: Descriptor
    diff_id: str


def build(path: Path, apps: Iterable[str] = APPS, *, quick: bool) -> Apps:
    """Make the images; `quick` makes layers a tenth as large.

    Raises:
        Missing: the Debian packages cannot be had.
    """
    made = Builder(path, 10 if quick else 1)
    run = [
        *made.run_layers(),
        made.layer([("etc/passwd", b"cnb:x:1000:1000::/home/cnb:/bin/sh\n")], RUN_LEVEL),
        made.layer([("etc/os-release", b'NAME="run image"\n' * 9)], RUN_LEVEL),
    ]
    images = {"run": run}
    for app in apps:
        sbom: list[File] = [("sbom.json", made.text(3 * MB))]
        below = [*made.dependencies(app).values(), sbom]
        dependencies = [made.layer(files, APP_LEVEL) for files in below]
        slices = [made.layer([(f"{app}/{n}", made.text(9_000))], APP_LEVEL) for n in range(3)]
        above = [
            made.layer([(f"{app}/{name}", made.text(size))], APP_LEVEL)
            for name, size in (("launcher", 3 * MB), ("config", 900), ("process-types", 400))
        ]
        for build in ("", "2"):
            sources = made.layer([(f"workspace/{app}{build}", made.text(MB * 3 // 2))], APP_LEVEL)
            images[app + build] = [*run, *dependencies, *slices, sources, *above]
    made.write_index(images)
    return Apps(path, [*images])


def make_trees(path: Path, *, jre: Path, app: Path, quick: bool) -> None:
    """Fill two directories as a build does, with `path` to work in.

    Raises:
        Missing: the Debian packages cannot be had.
    """
    made = Builder(path, 10 if quick else 1)
    sources: list[File] = [(f"classes/{n}", made.text(MB // 100)) for n in range(500)]
    trees = {jre: made.files("jre", 130 * MB), app: [*made.files("jars", 35 * MB), *sources]}
    for tree, files in trees.items():
        for name, content in files:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (tree / name).write_bytes(content)
            else:
                shutil.copy(content, tree / name)
    made.clear()


def one_layer(path: Path, size: int) -> Path:
    """Make a layout with one image, `latest`, whose only layer is a file of `size` bytes."""
    made = Builder(path, 1)
    content = path / "content"
    block = made.text(MB)
    with content.open("wb") as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
        file.truncate(size)
    layer = made.layer([("content", content)], APP_LEVEL)
    content.unlink()
    made.write_index({"latest": [layer]})
    return path


def _downloaded(name: str) -> Path:
    """Return a directory with Debian packages, kept for the next time."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocistow" / "bench"
    directory = kept / name
    if not directory.exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as made:
            command = ["apt-get", "download", "-q", *_PACKAGES[name].split()]
            done = subprocess.run(
                command, cwd=made, env=ENVIRONMENT, capture_output=True, text=True
            )
            if done.returncode:
                raise Missing(f"Debian packages: {done.stderr.strip().splitlines()[-1]}")
            os.mkdir(f"{made}/packages")
            for package in Path(made).glob("*.deb"):
                package.rename(Path(made, "packages", package.name))
            with suppress(OSError):  # another one was quicker
                Path(made, "packages").rename(directory)
    return directory


class Builder:
    """Makes layers and images in one layout; layers with a `divisor` are so much smaller."""

    def __init__(self, path: Path, divisor: int) -> None:
        self._path = path
        self._blobs = path / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._packages = path.with_name(f"{path.name}.packages")
        self._divisor = divisor
        self._random = random.Random(1)  # the same images in every run

    def files(self, name: str, size: int, *, many: bool = False) -> list[File]:
        """Return files of some packages, about `size` bytes: `many` small ones, or large ones."""
        root = self._unpacked(name)
        left = size // self._divisor
        taken: list[File] = []
        for path in sorted(_regular(root), key=lambda p: (p.stat().st_size, p), reverse=not many):
            if path.stat().st_size <= left and _LARGEST.get(name, left) >= path.stat().st_size:
                left -= path.stat().st_size
                taken.append((str(path.relative_to(root)), path))
        return sorted(taken, key=lambda file: file[0])

    def run_layers(self) -> list[Layer]:
        """Write the large layers of a run image."""
        return [
            self.layer(self.files("base", 85 * MB, many=True), RUN_LEVEL),
            self.layer(self.files("pkgs", 134 * MB), RUN_LEVEL),
        ]

    def dependencies(self, app: str) -> dict[str, list[File]]:
        """Return the files that buildpacks put below an application, by layer."""
        parts = {name: self.files(name, size, many=many) for name, size, many in _PARTS[app]}
        return {"helper": [("helper", self.text(5 * MB))], **parts}

    def text(self, size: int) -> bytes:
        """Return words that compress about as class files do."""
        words = [self._random.randbytes(5).hex() for _ in range(4000)]
        count = max(1, size // self._divisor // 11)
        return " ".join(self._random.choices(words, k=count)).encode()

    def layer(self, files: Iterable[File], level: int) -> Layer:
        """Write a layer."""
        packed = self._blobs / ".layer"
        with (
            packed.open("wb") as file,
            gzip.GzipFile("", "wb", level, file, mtime=0) as compressor,
            tarfile.open(mode="w|", fileobj=(counted := _Counted(compressor))) as tar,
        ):
            for name, content in files:
                _add(tar, name, content)
        with packed.open("rb") as written:
            encoded = hashlib.file_digest(written, "sha256").hexdigest()
        descriptor = _descriptor("layer.v1.tar+gzip", encoded, packed.stat().st_size)
        packed.rename(self._blobs / encoded)
        return Layer(descriptor, f"sha256:{counted.hash.hexdigest()}")

    def write_index(self, images: Mapping[str, Sequence[Layer]]) -> None:
        """Write the images and what makes the directory a layout."""
        entries = [
            {**self._image(layers), "annotations": {_REF: tag}} for tag, layers in images.items()
        ]
        index = {"schemaVersion": 2, "manifests": entries}
        (self._path / "index.json").write_text(json.dumps(index))
        (self._path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.clear()

    def clear(self) -> None:
        """Remove the packages."""
        shutil.rmtree(self._packages, ignore_errors=True)

    def _unpacked(self, name: str) -> Path:
        root = self._packages / name
        if not root.exists():
            require("apt-get", "dpkg-deb")
            root.mkdir(parents=True)
            with ThreadPoolExecutor(os.cpu_count()) as threads:  # one of xz uses one core

                def unpack(package: Path) -> None:
                    command = ["dpkg-deb", "--extract", str(package), str(root)]
                    subprocess.run(command, check=True, env=ENVIRONMENT)

                list(threads.map(unpack, sorted(_downloaded(name).glob("*.deb"))))
        return root

    def _image(self, layers: Sequence[Layer]) -> Descriptor:
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine()),
            "os": "linux",
            "config": {"User": "1000:1000", "Entrypoint": ["/cnb/process/web"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created_by": "ocistow bench"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": self._document(config, "config.v1+json"),
            "layers": [layer.descriptor for layer in layers],
        }
        return self._document(manifest, "manifest.v1+json")

    def _document(self, document: object, media_type: str) -> Descriptor:
        raw = json.dumps(document).encode()
        encoded = hashlib.sha256(raw).hexdigest()
        (self._blobs / encoded).write_bytes(raw)
        return _descriptor(media_type, encoded, len(raw))


class _Counted(io.BufferedIOBase):
    """Hashes what goes into a compressor."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> int:
        self.hash.update(data)
        return self._file.write(data)


def _descriptor(media_type: str, encoded: str, size: int) -> Descriptor:
    return {"mediaType": f"{_TYPE}.{media_type}", "digest": f"sha256:{encoded}", "size": size}


def _regular(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.uid = info.gid = 1000
    if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        return
    info.size = content.stat().st_size
    info.mode = content.stat().st_mode & 0o777
    file: IO[bytes]
    with content.open("rb") as file:
        tar.addfile(info, file)
