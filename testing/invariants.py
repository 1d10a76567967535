"""The promises of docs/format.md, checked on the files with nothing of our own.

Whatever the code under test believes, this reads what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def violations(store: Path, *, sparse: bool = False) -> list[str]:
    """Return what is wrong with a store, which need not be complete; `sparse` allows no layers."""
    return [
        *_store_violations(store),
        *_blob_violations(store),
        *index_violations(store, sparse=sparse),
    ]


def index_violations(store: Path, *, sparse: bool = False) -> list[str]:
    """Return what is wrong with the layouts' indexes and what they mention."""
    return [
        wrong for index in _indexes(store) for wrong in _layout_violations(index, sparse=sparse)
    ]


def _indexes(store: Path) -> Iterator[Path]:
    """Walk by os.walk: a link that is longer than a path may be stops Path.rglob."""
    for above, _, names in os.walk(store / "layouts"):
        if "index.json" in names:
            yield Path(above, "index.json")


def pool(store: Path) -> set[str]:
    """Return the digests of the blobs in the pool."""
    return {f"{file.parent.name}:{file.name}" for file in store.glob("blobs/*/*")}


def images(store: Path) -> dict[str, str]:
    """Return the digest of the manifest that each layout's index names, by the layout's path."""
    layouts = store / "layouts"
    return {
        str(index.parent.relative_to(layouts)): json.loads(index.read_bytes())["manifests"][0][
            "digest"
        ]
        for index in _indexes(store)
    }


def garbage(store: Path) -> list[str]:
    """Return the blobs that no index mentions, of the pool, and of each layout by its own."""
    needed: set[str] = set()
    found: list[str] = []
    for index in _indexes(store):
        own = {*_mentioned(index.parent, json.loads(index.read_bytes()))}
        needed |= own
        found += _unwanted(index.parent, own)
    return [*found, *_unwanted(store, needed)]


def strays(store: Path) -> list[str]:
    """Return the names of what was left half done; there must be none unless a process died."""
    return [str(Path(above, name)) for above, _, names in os.walk(store) for name in _hidden(names)]


def _unwanted(above: Path, needed: set[str]) -> list[str]:
    files = above.glob("blobs/*/*")
    return [str(file) for file in files if f"{file.parent.name}:{file.name}" not in needed]


def _mentioned(layout: Path, document: dict[str, Any]) -> Iterator[str]:
    config = [document["config"]] if "config" in document else []
    for child in [*document.get("manifests", []), *document.get("layers", []), *config]:
        yield child["digest"]
        if child["mediaType"] in (_INDEX, _MANIFEST):
            file = layout / "blobs" / child["digest"].replace(":", "/")
            yield from _mentioned(layout, json.loads(file.read_bytes()))


def _hidden(names: list[str]) -> Iterator[str]:
    return (name for name in names if name.startswith("."))


def _store_violations(store: Path) -> Iterator[str]:
    version = store / "ocistow.json"
    if version.exists():
        if json.loads(version.read_bytes() or "null") != {"version": 1}:
            yield "ocistow.json is not what it must be"
        for name in ("blobs", "layouts"):
            if not (store / name).is_dir():
                yield f"there is ocistow.json but no {name}"


def _blob_violations(store: Path) -> Iterator[str]:
    for above, _, names in os.walk(store):
        algorithm, blobs = Path(above).name, Path(above).parent.name
        if blobs != "blobs" or algorithm not in ("sha256", "sha512"):
            continue
        for name in names:
            content = Path(above, name).read_bytes()
            if hashlib.new(algorithm, content).hexdigest() != name:
                yield f"{above}/{name} holds {content[:40]!r}"


def _layout_violations(index: Path, *, sparse: bool) -> Iterator[str]:
    layout = index.parent
    try:
        document = json.loads(index.read_bytes())
        marker = json.loads((layout / "oci-layout").read_bytes())
    except (OSError, ValueError) as error:
        yield f"{layout}: {error}"
        return
    if marker != {"imageLayoutVersion": "1.0.0"}:
        yield f"{layout}/oci-layout holds {marker}"
    for descriptor in document["manifests"]:
        yield from _absent(layout, descriptor, sparse=sparse)


def _absent(layout: Path, descriptor: dict[str, Any], *, sparse: bool) -> Iterator[str]:
    file = layout / "blobs" / descriptor["digest"].replace(":", "/")
    kind = descriptor["mediaType"]
    try:
        content = file.read_bytes()
    except OSError as error:
        if not sparse or not kind.startswith("application/vnd.oci.image.layer."):
            yield f"{layout}: {kind}: {error}"
        return
    if len(content) != descriptor["size"]:
        yield f"{file} has {len(content)} bytes, {descriptor['size']} were announced"
    if kind in (_INDEX, _MANIFEST):
        document = json.loads(content or "{}")
        children = [*document.get("manifests", []), *document.get("layers", [])]
        for child in [*children, *([document["config"]] if "config" in document else [])]:
            yield from _absent(layout, child, sparse=sparse)
