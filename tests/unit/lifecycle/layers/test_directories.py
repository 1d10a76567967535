import os
from pathlib import Path

import pytest

from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.files.labels import LayerMetadata, StoreMetadata
from ocistow.lifecycle.layers.directories import (
    BuildpackDir,
    read_buildpack_dir,
    read_layer_metadata,
)
from ocistow.oci.document import Object
from ocistow.oci.errors import InvalidContent

BUILDPACK = GroupElement("samples/one", "0.0.1", "0.10")


def unheard(text: str) -> None: ...


def read(layers: Path, said: list[str] | None = None) -> BuildpackDir:
    return read_buildpack_dir(layers, BUILDPACK, unheard if said is None else said.append)


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_directories_and_files_about_them_are_layers(tmp_path: Path) -> None:
    there = tmp_path / "samples_one"
    write(there / "b" / "file")
    write(there / "b.toml", '[types]\nlaunch = true\n[metadata]\nkey = "value"\n')
    write(there / "a.toml", "[types]\ncache = true\nbuild = true\n")
    (there / "c.ignore").mkdir()
    for other in ("launch.toml", "build.toml", "b.sbom.cdx.json", "toml", "d.toml.bak"):
        write(there / other)
    said: list[str] = []
    found = read(tmp_path, said)
    assert [
        (layer.identifier, layer.name, layer.present, layer.metadata) for layer in found.layers
    ] == [
        ("samples/one:a", "a", False, LayerMetadata(build=True, cache=True)),
        ("samples/one:b", "b", True, LayerMetadata(data={"key": "value"}, launch=True)),
        ("samples/one:c.ignore", "c.ignore", True, LayerMetadata()),
    ]
    assert [layer.launch for layer in found.layers] == [False, True, False]
    assert [layer.cache for layer in found.layers] == [True, False, False]
    assert found.path == there
    assert found.store is None
    assert said[0] == f"Reading buildpack directory: {there}"
    assert said[1:3] == [
        "Reading buildpack directory item: a.toml",
        "Reading buildpack directory item: b",
    ]
    found.check()


def test_a_buildpack_without_a_directory_left_nothing(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.layers, found.store) == ((), None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", None),
        ("[other]\na = 1\n", None),
        ("[metadata]\n", {}),  # which the label tells from none
        ("[metadata]\n[metadata.a]\nb = 1\n", {"a": {"b": 1}}),
    ],
)
def test_a_store_is_read(tmp_path: Path, content: str, expected: Object | None) -> None:
    write(tmp_path / "samples_one" / "store.toml", content)
    assert read(tmp_path).store == StoreMetadata(expected)


def test_a_malformed_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "samples_one" / "store.toml", "[metadata")
    with pytest.raises(InvalidContent) as refused:
        read(tmp_path)
    expected = 'failed decoding store.toml for buildpack "samples/one": '
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    "content",
    [
        "[types",
        '[types]\nlaunch = "yes"\n',
        "types = 1\n",
        "launch = true\n",
        "build = false\n",
        "[cache]\n",
        "[metadata]\na = \xff",
    ],
)
def test_malformed_layers_are_named_together(tmp_path: Path, content: str) -> None:
    there = tmp_path / "samples_one"
    for name in ("y", "x"):
        (there / name).mkdir(parents=True)
        (there / f"{name}.toml").write_text(content, encoding="latin-1")
    write(there / "z.toml", "[types]\nlaunch = true\n")
    found = read(tmp_path)
    assert [layer.launch for layer in found.layers] == [False, False, True]
    with pytest.raises(InvalidContent) as refused:
        found.check()
    expected = "failed to parse metadata for layers '[samples/one:x samples/one:y]'"
    assert str(refused.value) == expected


def test_types_at_the_top_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "layer.toml"
    file.write_text("launch = true\n")
    with pytest.raises(InvalidContent) as refused:
        read_layer_metadata(file)
    assert str(refused.value) == (
        f"the launch, cache and build flags should be in the types table of {file}"
    )


def test_a_link_to_a_directory_is_no_layer_by_itself(tmp_path: Path) -> None:
    there = tmp_path / "samples_one"
    there.mkdir()
    (there / "link").symlink_to("/")
    assert read(tmp_path).layers == ()


def test_the_sha_of_old_is_read(tmp_path: Path) -> None:
    there = tmp_path / "samples_one"
    write(there / "a.toml", "[types]\nlaunch = true\n")
    write(there / "a.sha", "sha256:abc")
    assert read(tmp_path).layers[0].metadata == LayerMetadata(sha="sha256:abc", launch=True)


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_sha_is_read_from_a_file_alone(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "samples_one"
    write(there / "a.toml", "[types]\nlaunch = true\n")
    write(tmp_path / "secret", "secret")
    if kind == "fifo":
        os.mkfifo(there / "a.sha")
    else:
        (there / "a.sha").symlink_to(tmp_path / "secret")
    assert read(tmp_path).layers[0].metadata is None
