"""Images of real files, since a Docker daemon unpacks what it gets: two builds on one run image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

MIB = 1 << 20
SOURCE = Path("/usr")
LARGEST = 16 * MIB  # bytes of one file; larger ones are rare in images
LEVEL = 6  # of gzip, as most tools have it

_TYPE = "application/vnd.oci.image"
_Descriptor: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: _Descriptor
    diff_id: str


class _Counted(io.BufferedIOBase):
    """Hashes what goes into a compressor."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # a tar writes only bytes
        self.hash.update(data)
        return self._file.write(data)


def builds(path: Path, *, quick: bool) -> Path:
    """Make a layout with the images `run`, `first` and `second`, two builds on it.

    As buildpacks export them: the run image, dependencies, the application, and above that
    small layers that never change. Only the application differs between the builds.
    """
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    files = _files(SOURCE)

    def layer(size: int) -> _Layer:
        return _layer(blobs, ((str(file), file.read_bytes()) for file in _take(files, size)))

    scale = MIB // 8 if quick else MIB
    run = [layer(90 * scale), layer(130 * scale), layer(10_000)]
    below = [layer(120 * scale), layer(40 * scale)]
    apps = [_layer(blobs, [("/app", os.urandom(MIB // 2))]) for _ in range(2)]
    above = [layer(3 * MIB), layer(10_000), layer(5_000)]
    images = {"run": run} | {
        tag: [*run, *below, app, *above] for tag, app in zip(("first", "second"), apps, strict=True)
    }
    index = {
        "schemaVersion": 2,
        "manifests": [_image(blobs, tag, layers) for tag, layers in images.items()],
    }
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def _files(directory: Path) -> Iterator[Path]:
    for root, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
                yield path


def _take(files: Iterator[Path], size: int) -> Iterator[Path]:
    while size > 0 and (path := next(files, None)) is not None:
        size -= path.stat().st_size
        yield path


def _layer(blobs: Path, files: Iterable[tuple[str, bytes]]) -> _Layer:
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", LEVEL, packed, mtime=0) as compressor:
        counted = _Counted(compressor)
        with tarfile.open(mode="w|", fileobj=counted) as tar:
            for name, content in files:
                info = tarfile.TarInfo(name.lstrip("/"))
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    descriptor = _blob(blobs, packed.getvalue(), "layer.v1.tar+gzip")
    return _Layer(descriptor, f"sha256:{counted.hash.hexdigest()}")


def _image(blobs: Path, tag: str, layers: Sequence[_Layer]) -> _Descriptor:
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine()),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": _blob(blobs, json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer.descriptor for layer in layers],
    }
    descriptor = _blob(blobs, json.dumps(manifest).encode(), "manifest.v1+json")
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}


def _blob(blobs: Path, content: bytes, media_type: str) -> _Descriptor:
    encoded = hashlib.sha256(content).hexdigest()
    (blobs / encoded).write_bytes(content)
    return {
        "mediaType": f"{_TYPE}.{media_type}",
        "digest": f"sha256:{encoded}",
        "size": len(content),
    }
