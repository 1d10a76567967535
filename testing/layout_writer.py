"""How go-containerregistry writes an image layout, system call by system call.

A replay of `pkg/v1/layout/write.go` and what its Go library functions do, so that tests need
no Go. Layers are written concurrently, everything else in the order of the original.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..oci.descriptor import OCI_INDEX
from ..oci.digest import Digest
from .images import GeneratedImage

WRITE = 32 * 1024  # bytes a write(2): io.Copy's buffer
COPY = 1 << 30  # bytes asked of one copy_file_range(2)
MARKER = b'{\n    "imageLayoutVersion": "1.0.0"\n}'

_CREATE = os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_NO_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EIO}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to write.

    Attributes:
        content: its bytes, of a layer that a build made.
        source: the blob to copy, of a layer of the base or the previous image. A layer with
            neither is left out, which makes the image sparse.
    """

    digest: Digest
    content: bytes | None = None
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """What to write. `tag` goes into the annotation of the index."""

    layers: Sequence[Layer]
    config: bytes
    manifest: bytes
    tag: str = "latest"


@dataclass(slots=True)
class Report:
    """What it took.

    Attributes:
        written: bytes handed to write(2) and copy_file_range(2) for layers, config and manifest.
        skipped: blobs that were there already.
    """

    written: int = 0
    skipped: list[Digest] = field(default_factory=list[Digest])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, size: int) -> None:
        """Add written bytes."""
        with self._lock:
            self.written += size


def image_of(image: GeneratedImage, *, base: Path | None = None, base_layers: int = 0) -> Image:
    """Return a generated image as a build would write it.

    Its lowest `base_layers` layers are copied from the layout `base`; without one they are
    left out.
    """
    below, above = image.layers[:base_layers], image.layers[base_layers:]
    return Image(
        [
            *(Layer(digest, source=_blob(base, digest) if base else None) for digest in below),
            *(Layer(digest, content=image.blob(digest).read_bytes()) for digest in above),
        ],
        image.blob(image.config).read_bytes(),
        image.blob(image.manifest).read_bytes(),
    )


def write_image(layout: Path, image: Image) -> Report:
    """Write an image into the layout at `layout`, made if absent.

    Raises:
        OSError: what the first failing system call reported.
    """
    report = Report()
    make_directories(layout)
    write_file(layout / "oci-layout", MARKER, 0o777)
    empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list[object]()}
    write_file(layout / "index.json", json.dumps(empty, separators=(",", ":")).encode(), 0o777)
    with ThreadPoolExecutor(max(1, len(image.layers))) as goroutines:
        done = [goroutines.submit(write_layer, layout, layer, report) for layer in image.layers]
        for layer in done:
            layer.result()
    for content in (image.config, image.manifest):
        write_document(layout, content, report)
    append_to_index(layout, image)
    return report


def write_layer(layout: Path, layer: Layer, report: Report) -> None:
    """Write a layer to a temporary file and rename it, unless it is there with its size."""
    if layer.content is None and layer.source is None:
        return
    final = _blob(layout, layer.digest)
    make_directories(final.parent)
    size = len(layer.content) if layer.content is not None else -1
    try:
        status = os.stat(final)
    except FileNotFoundError:
        pass
    else:
        if size in (-1, status.st_size):
            report.skipped.append(layer.digest)
            return
    file, temporary = create_temporary(final.parent, layer.digest.encoded)
    try:
        if layer.source is not None:
            copy_blob(layer.source, file, report)
        else:
            write_all(file, layer.content or b"", report)
    finally:
        os.close(file)
    rename(temporary, final)
    remove(temporary)


def write_document(layout: Path, content: bytes, report: Report) -> None:
    """Write a config or manifest at its final name, unless something is there."""
    final = _blob(layout, Digest.of(content))
    make_directories(final.parent)
    try:
        os.stat(final)
    except FileNotFoundError:
        pass
    else:
        report.skipped.append(Digest.of(content))
        return
    file = os.open(final, os.O_RDWR | _CREATE, 0o666)
    try:
        write_all(file, content, report)
    finally:
        os.close(file)


def append_to_index(layout: Path, image: Image) -> None:
    """Read the index, add the image's descriptor, and write it again in place."""
    document = json.loads(read_file(layout / "index.json"))
    manifest = json.loads(image.manifest)
    document["manifests"].append(
        {
            "mediaType": manifest["mediaType"],
            "size": len(image.manifest),
            "digest": str(Digest.of(image.manifest)),
            "annotations": {"org.opencontainers.image.ref.name": image.tag},
        }
    )
    write_file(layout / "index.json", json.dumps(document, indent=3).encode(), 0o777)


def open_blob(path: Path) -> int:
    """Open a blob as the reader since 0.21.7 does: no link, and the very file that lstat saw.

    Raises:
        AssertionError: lstat(2) and fstat(2) disagree.
    """
    before = os.lstat(path)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    assert os.path.samestat(before, os.fstat(file)), f"{path} is another file once it is open"
    return file


def copy_blob(source: Path, file: int, report: Report) -> None:
    """Copy a blob into an open file: in the kernel if it can, else through memory."""
    blob = open_blob(source)
    try:
        while True:
            try:
                count = os.copy_file_range(blob, file, COPY)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
                break
            if count == 0:
                return
            report.count(count)
        while data := os.read(blob, WRITE):
            write_all(file, data, report)
    finally:
        os.close(blob)


def make_directories(path: Path) -> None:
    """Do what os.MkdirAll(path, 0777) does."""
    try:
        os.stat(path)
    except FileNotFoundError:
        make_directories(path.parent)
        try:
            os.mkdir(path, 0o777)
        except OSError:
            if not os.path.isdir(path):
                raise


def create_temporary(directory: Path, prefix: str) -> tuple[int, Path]:
    """Do what os.CreateTemp does: the name is the prefix and decimal digits."""
    for _ in range(10_000):
        path = directory / f"{prefix}{random.randrange(1 << 32)}"
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return os.open(path, flags, 0o600), path
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, "10000 names are taken", str(directory))


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Do what os.WriteFile does."""
    file = os.open(path, os.O_WRONLY | _CREATE, mode)
    try:
        write_all(file, content)
    finally:
        os.close(file)


def read_file(path: Path) -> bytes:
    """Do what os.ReadFile does: it asks for the size first, and reads until there is no more."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = [os.read(file, os.fstat(file).st_size + 512)]
        while pieces[-1]:
            pieces.append(os.read(file, 512))
        return b"".join(pieces)
    finally:
        os.close(file)


def write_all(file: int, content: bytes, report: Report | None = None) -> None:
    """Write in the pieces of io.Copy."""
    left = memoryview(content)
    while left:
        count = os.write(file, left[:WRITE])
        left = left[count:]
        if report is not None:
            report.count(count)


def rename(path: Path, final: Path) -> None:
    """Do what os.Rename does: it looks first whether a directory is in the way."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(final)
    os.rename(path, final)


def remove(path: Path) -> None:
    """Do what os.Remove does with a name that was renamed away: both attempts fail.

    Raises:
        AssertionError: one succeeds, or fails otherwise.
    """
    for attempt in (os.unlink, os.rmdir):
        try:
            attempt(path)
        except FileNotFoundError:
            continue
        raise AssertionError(f"{path} was still there")


def _blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded
