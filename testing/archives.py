"""Archives of generated images, as `skopeo copy oci-archive:` and `docker save` write them."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from .images import GeneratedImage
from .tarballs import CREATED

_GZIP_MAGIC = b"\x1f\x8b"


def oci_archive(layout: Path, file: Path) -> None:
    """Write a tar of every file of an image layout, directories first, in the order of names."""
    with tarfile.open(file, "w") as tar:
        for path in sorted(layout.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(layout)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = CREATED, 0, 0, "", ""
            if path.is_dir():
                tar.addfile(info)
            else:
                with path.open("rb") as content:
                    tar.addfile(info, content)


def docker_archive(file: Path, images: Mapping[str, GeneratedImage]) -> None:
    """Write images with their references as the classic `docker save` does.

    Layers are uncompressed and appear once each; `manifest.json` comes last,
    so that a reader cannot know beforehand what a layer is for.
    """
    written: set[str] = set()
    entries: list[dict[str, object]] = []
    with tarfile.open(file, "w") as tar:
        for reference, image in images.items():
            names = [f"{diff_id.encoded}/layer.tar" for diff_id in image.diff_ids]
            for name, digest in zip(names, image.layers, strict=True):
                if name not in written:
                    written.add(name)
                    _add_layer(tar, name, image.blob(digest))
            config = f"{image.config.encoded}.json"
            if config not in written:
                written.add(config)
                _add(tar, config, BytesIO(image.blob(image.config).read_bytes()))
            entries.append({"Config": config, "RepoTags": [reference], "Layers": names})
        _add(tar, "manifest.json", BytesIO(json.dumps(entries).encode()))


def _add_layer(tar: tarfile.TarFile, name: str, blob: Path) -> None:
    with blob.open("rb") as packed, TemporaryFile() as plain:
        compressed = packed.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        packed.seek(0)
        if not compressed:
            _add(tar, name, packed)
            return
        with gzip.open(packed, "rb") as unpacked:
            shutil.copyfileobj(unpacked, plain)
        _add(tar, name, plain)


def _add(tar: tarfile.TarFile, name: str, content: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size = content.seek(0, 2)
    info.mtime = CREATED
    content.seek(0)
    tar.addfile(info, content)
