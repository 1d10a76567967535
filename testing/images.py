"""Seeded random images: the same arguments make the same bytes, at any size.

Gzip layers have the same diffIDs everywhere, but their digests depend on the
version of zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, Protocol, TypedDict

import zstandard

from ..oci.digest import Digest
from .tarballs import busybox_tar, random_tar

Compression = Literal["gzip", "zstd", "none"]
Media = Literal["oci", "docker"]

REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "2023-11-14T22:13:20Z"

_TYPES: dict[Media, dict[str, str]] = {
    "oci": {
        "index": "application/vnd.oci.image.index.v1+json",
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
        "none": "application/vnd.oci.image.layer.v1.tar",
    },
    "docker": {
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "none": "application/vnd.docker.image.rootfs.diff.tar",
    },
}


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """The facts about an image that was made.

    Attributes:
        path: its image layout.
        layers: digests as in the manifest, the lowest layer first.
        diff_ids: digests of the uncompressed layers.
    """

    path: Path
    manifest: Digest
    config: Digest
    layers: tuple[Digest, ...]
    diff_ids: tuple[Digest, ...]

    def blob(self, digest: Digest) -> Path:
        """Return where the layout keeps a blob."""
        return _blob(self.path, digest)


@dataclass(frozen=True, slots=True)
class GeneratedIndex:
    """The facts about an image for several platforms."""

    path: Path
    index: Digest
    images: tuple[GeneratedImage, ...]


def image_layout(
    path: Path,
    *,
    seed: int = 0,
    layers: int = 3,
    layer_size: int = 4096,
    tag: str = "latest",
    platform: tuple[str, ...] = ("linux", "amd64"),
    compression: Compression = "gzip",
    base: GeneratedImage | None = None,
    media: Media = "oci",
) -> GeneratedImage:
    """Make a random image under a tag of the layout at `path`, which may exist already.

    Args:
        path: a directory, made if absent; its other images stay.
        seed: other seeds give other layers.
        layers: how many random layers the image has, above those of `base`.
        layer_size: bytes of random file content in each layer.
        tag: the name in `index.json`; an older image of that name loses it.
        platform: operating system, architecture and perhaps variant.
        compression: "none" makes about 200 MiB/s, "gzip" much less.
        base: an image whose layers come first; those its layout lacks stay absent.
        media: whose media types the manifest has.
    """
    types = _TYPES[media]
    own = [
        _layer(path, random_tar(f"{seed}-{number}", layer_size), types, compression)
        for number in range(layers)
    ]
    image, descriptor = _image(path, own, types, platform, base, ("/bin/sh",))
    _name(path, descriptor, tag)
    return image


def index_layout(
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    layer_size: int = 4096,
    tag: str = "latest",
    platforms: Sequence[tuple[str, ...]] = (("linux", "amd64"), ("linux", "arm64", "v8")),
    media: Media = "oci",
) -> GeneratedIndex:
    """Make an image index whose images share their lowest layer and differ in the others."""
    types = _TYPES[media]
    shared = _layer(path, random_tar(f"{seed}-shared", layer_size), types, "gzip")
    images: list[GeneratedImage] = []
    descriptors: list[_Descriptor] = []
    for platform in platforms:
        names = ["-".join((str(seed), *platform, str(number))) for number in range(1, layers)]
        own = [_layer(path, random_tar(name, layer_size), types, "gzip") for name in names]
        image, descriptor = _image(path, [shared, *own], types, platform, None, ("/bin/sh",))
        images.append(image)
        descriptors.append(descriptor)
    document = {"schemaVersion": 2, "mediaType": types["index"], "manifests": descriptors}
    index = _json_blob(path, document, types["index"])
    _name(path, index, tag)
    return GeneratedIndex(path, Digest.parse(index["digest"]), tuple(images))


def sparse_layout(
    path: Path, *, seed: int = 0, layers: int = 3, absent: int = 2, tag: str = "latest"
) -> GeneratedImage:
    """Make a random image whose `absent` lowest layers are named but have no file."""
    image = image_layout(path, seed=seed, layers=layers, tag=tag)
    for digest in image.layers[:absent]:
        image.blob(digest).unlink()
    return image


def artifact_layout(
    path: Path,
    blobs: Sequence[bytes],
    *,
    tag: str = "latest",
    kind: str = "application/x-test",
    subject: GeneratedImage | None = None,
) -> Digest:
    """Make an artifact of these blobs, which is no image, and return its manifest's digest.

    It refers to `subject`.
    """
    described = [_plain_blob(path, content, "application/octet-stream") for content in blobs]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": _TYPES["oci"]["manifest"],
        "artifactType": kind,
        "config": _plain_blob(path, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": described,
    }
    if subject is not None:
        document["subject"] = {
            "mediaType": _TYPES["oci"]["manifest"],
            "digest": str(subject.manifest),
            "size": subject.blob(subject.manifest).stat().st_size,
        }
    manifest = _json_blob(path, document, _TYPES["oci"]["manifest"])
    _name(path, manifest, tag)
    return Digest.parse(manifest["digest"])


def busybox_image(
    path: Path, *, tag: str = "latest", cmd: Sequence[str] = ("/bin/sh",)
) -> GeneratedImage:
    """Make an image of this machine's static busybox that a container runtime can run.

    Raises:
        FileNotFoundError: there is no /bin/busybox.
    """
    types = _TYPES["oci"]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    layer = _layer(path, busybox_tar(), types, "gzip")
    image, descriptor = _image(path, [layer], types, ("linux", machine), None, cmd)
    _name(path, descriptor, tag)
    return image


class _Platform(TypedDict):
    os: str
    architecture: str
    variant: NotRequired[str]


class _Descriptor(TypedDict):
    mediaType: str
    digest: str
    size: int
    platform: NotRequired[_Platform]
    annotations: NotRequired[dict[str, str]]


class _Manifest(TypedDict):
    schemaVersion: int
    mediaType: str
    config: _Descriptor
    layers: list[_Descriptor]


class _Index(TypedDict):
    schemaVersion: int
    manifests: list[_Descriptor]


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: _Descriptor
    diff_id: Digest


class _Writable(Protocol):
    """What takes bytes: a file, a gzip stream, a hash in front of one."""

    def write(self, data: bytes, /) -> int: ...


class _Blob:
    """A file to write whose name will be the digest of what was written."""

    def __init__(self, file: _Writable) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None: ...

    @property
    def digest(self) -> Digest:
        return Digest("sha256", self._hash.hexdigest())


@contextmanager
def _new_blob(path: Path) -> Generator[_Blob]:
    """Write a blob of the layout at `path`; it gets its name when the block ends well."""
    unnamed = path / "blobs" / "sha256" / "unnamed"
    unnamed.parent.mkdir(parents=True, exist_ok=True)
    try:
        with unnamed.open("wb", buffering=1 << 20) as file:
            blob = _Blob(file)
            yield blob
        unnamed.replace(_blob(path, blob.digest))
    finally:
        unnamed.unlink(missing_ok=True)


def _layer(
    path: Path, tar: Iterable[bytes], types: dict[str, str], compression: Compression
) -> _Layer:
    with _new_blob(path) as blob:
        if compression == "gzip":
            # no name and no time in the header, so that equal layers are equal bytes
            with gzip.GzipFile("", "wb", 1, blob, mtime=0) as packed:
                diff_id = _copy(tar, packed)
        elif compression == "zstd":
            content = b"".join(tar)
            diff_id = Digest.of(content)
            blob.write(zstandard.compress(content))
        else:
            diff_id = _copy(tar, blob)
    return _Layer(
        {"mediaType": types[compression], "digest": str(blob.digest), "size": blob.size}, diff_id
    )


def _copy(tar: Iterable[bytes], file: _Writable) -> Digest:
    """Write the tar and return its digest."""
    plain = hashlib.sha256()
    for data in tar:
        plain.update(data)
        file.write(data)
    return Digest("sha256", plain.hexdigest())


def _image(
    path: Path,
    own: Sequence[_Layer],
    types: dict[str, str],
    platform: tuple[str, ...],
    base: GeneratedImage | None,
    cmd: Sequence[str],
) -> tuple[GeneratedImage, _Descriptor]:
    """Write config and manifest over the layers of `base` and `own`."""
    layers = [*_layers_of(base, path), *own] if base else list(own)
    diff_ids = tuple(layer.diff_id for layer in layers)
    described = _platform(platform)
    config = _json_blob(
        path,
        {
            "created": CREATED,
            **described,
            "config": {"Env": ["PATH=/bin"], "Cmd": list(cmd)},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
            "history": [
                {"created": CREATED, "created_by": f"layer {number}"}
                for number in range(len(layers))
            ],
        },
        types["config"],
    )
    document: _Manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": config,
        "layers": [layer.descriptor for layer in layers],
    }
    manifest = _json_blob(path, document, types["manifest"])
    manifest["platform"] = described
    image = GeneratedImage(
        path,
        Digest.parse(manifest["digest"]),
        Digest.parse(config["digest"]),
        tuple(Digest.parse(layer.descriptor["digest"]) for layer in layers),
        diff_ids,
    )
    return image, manifest


def _layers_of(base: GeneratedImage, path: Path) -> Iterator[_Layer]:
    """Copy the layers of `base` into the layout at `path`, unless it is the same."""
    manifest: _Manifest = json.loads(base.blob(base.manifest).read_bytes())
    for descriptor, diff_id in zip(manifest["layers"], base.diff_ids, strict=True):
        digest = Digest.parse(descriptor["digest"])
        source, target = base.blob(digest), _blob(path, digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists() and not target.exists():
            shutil.copyfile(source, target)
        yield _Layer(descriptor, diff_id)


def _platform(parts: tuple[str, ...]) -> _Platform:
    described: _Platform = {"os": parts[0], "architecture": parts[1]}
    if len(parts) > 2:
        described["variant"] = parts[2]
    return described


def _plain_blob(path: Path, content: bytes, media_type: str) -> _Descriptor:
    with _new_blob(path) as blob:
        blob.write(content)
    return {"mediaType": media_type, "digest": str(blob.digest), "size": blob.size}


def _json_blob(path: Path, document: object, media_type: str) -> _Descriptor:
    return _plain_blob(path, json.dumps(document).encode(), media_type)


def _name(path: Path, descriptor: _Descriptor, tag: str) -> None:
    """Mention an image in the `index.json` of a layout, which is made if absent."""
    file = path / "index.json"
    index: _Index = {"schemaVersion": 2, "manifests": []}
    if file.exists():
        index = json.loads(file.read_bytes())
    others = [entry for entry in index["manifests"] if entry.get("annotations") != {REF_NAME: tag}]
    index["manifests"] = [*others, {**descriptor, "annotations": {REF_NAME: tag}}]
    file.write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _blob(path: Path, digest: Digest) -> Path:
    return path / "blobs" / digest.algorithm / digest.encoded
