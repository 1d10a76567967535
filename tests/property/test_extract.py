from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.layers.extract import extract
from ocistow.lifecycle.layers.trees import dir_layer
from ocistow.oci.errors import InvalidContent

Node: TypeAlias = "tuple[str, int, bytes | str | dict[str, Node]]"

MODES = st.integers(0, 0o7777).map(lambda mode: mode | 0o700)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=120
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 250)
FILES = st.tuples(st.just("file"), MODES, st.binary(max_size=1500))
LINKS = st.tuples(st.just("link"), MODES, NAMES)
TREES: st.SearchStrategy[dict[str, Node]] = st.dictionaries(
    NAMES,
    st.recursive(
        FILES | LINKS,
        lambda inner: st.tuples(
            st.just("directory"), MODES, st.dictionaries(NAMES, inner, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=5,
)


def build(directory: Path, tree: dict[str, Node]) -> None:
    for name, (_, mode, content) in tree.items():
        path = directory / name
        if isinstance(content, str):
            os.symlink(content, path)
            continue
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.mkdir()
            build(path, content)
        path.chmod(mode)


def tar_of(path: Path) -> bytes:
    stream = dir_layer("layer", path, 0, 0).open()
    try:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))
    finally:
        stream.close()


@settings(max_examples=40)
@given(TREES)
def test_a_layer_comes_back_as_it_was(tree: dict[str, Node]) -> None:
    with tempfile.TemporaryDirectory() as work:
        layers = Path(work, "layers")
        layer = layers / "bp" / "layer"
        layer.mkdir(parents=True)
        build(layer, tree)
        before = tar_of(layer)
        shutil.rmtree(layer.parent)
        extract(io.BytesIO(before), layers)
        assert tar_of(layer) == before


PARTS = st.sampled_from(["a", "a", "a", "b", "secret", ".."])
TARGETS = st.sampled_from(["OUTSIDE", "OUTSIDE", "OUTSIDE/secret", "OUTSIDE/secret", "a", ".."])
ENTRIES = st.tuples(
    st.sampled_from(["LAYERS", "LAYERS", "LAYERS", "LAYERS", "OUTSIDE", ""]),
    st.lists(PARTS, min_size=1, max_size=2),
    st.sampled_from([b"0", b"0", b"2", b"2", b"2", b"5", b"1", b"3", b"6", b"L", b"g"]),
    TARGETS,
    MODES,
)


@settings(max_examples=150)
@given(st.lists(ENTRIES, max_size=8))
def test_nothing_outside_ever_changes(
    entries: list[tuple[str, list[str], bytes, str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as work:
        layers, outside = Path(work, "layers"), Path(work, "outside")
        layers.mkdir()
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        outside.chmod(0o711)
        for count in range(len(entries)):  # what is refused shall not hide what comes after it
            with suppress(InvalidContent, OSError):
                extract(io.BytesIO(_tar(entries[count : count + 1], layers, outside)), layers)
        assert {path.name for path in Path(work).iterdir()} == {"layers", "outside"}
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"
        assert (outside / "secret").stat().st_nlink == 1
        assert outside.stat().st_mode & 0o7777 == 0o711


@settings(max_examples=100)
@given(st.lists(ENTRIES, max_size=4), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_damage_is_a_known_error(
    entries: list[tuple[str, list[str], bytes, str, int]], damage: list[tuple[float, int]]
) -> None:
    with tempfile.TemporaryDirectory() as work:
        layers = Path(work, "layers")
        layers.mkdir()
        raw = bytearray(_tar(entries, layers, layers))
        for place, value in damage:
            raw[int(place * (len(raw) - 1))] = value
        with suppress(InvalidContent, OSError):
            extract(io.BytesIO(bytes(raw)), layers)


def _tar(
    entries: list[tuple[str, list[str], bytes, str, int]], layers: Path, outside: Path
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for start, parts, kind, target, mode in entries:
            above = {"LAYERS": str(layers), "OUTSIDE": str(outside)}.get(start, start)
            info = tarfile.TarInfo("/".join([above, *parts]) or "/")
            info.type, info.mode = kind, mode
            info.linkname = target.replace("OUTSIDE", str(outside))
            content = b"x" if kind in {b"0", b"7"} else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
