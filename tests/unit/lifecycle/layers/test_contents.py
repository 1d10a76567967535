from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.files.labels import (
    BuildpackLayers,
    LayerMetadata,
    LifecycleMetadata,
    StoreMetadata,
)
from ocistow.lifecycle.files.metadata import BuildMetadata, Process
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.layers.contents import Part, Role, metadata, parts
from ocistow.lifecycle.layers.directories import BuildpackDir, read_buildpack_dir
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.testing.builds import Build, build

BUILD = BuildMetadata(
    processes=(Process("web"), Process("worker")), slices=(("static", "*.html"), ("nothing",))
)
GROUP = (GroupElement("samples/one", "0.0.1"), GroupElement("two", "2.1"))
NOTHING = LifecycleMetadata()
OLD = Digest.of(b"old")


@pytest.fixture
def made(tmp_path: Path) -> Build:
    return build(tmp_path / "build")


def dirs(made: Build) -> list[BuildpackDir]:
    def unheard(text: str) -> None: ...

    return [read_buildpack_dir(made.layers, element, unheard) for element in GROUP]


def all_parts(made: Build, previous: LifecycleMetadata = NOTHING, api: str = "0.12") -> list[Part]:
    return list(parts(inputs(made, api), dirs(made), BUILD, previous))


def inputs(made: Build, api: str = "0.12") -> Inputs:
    return made.inputs("app", api)


def test_layers_come_in_the_order_of_the_lifecycle(made: Build) -> None:
    assert [(part.role, part.identifier, part.created_by) for part in all_parts(made)] == [
        (
            Role.BUILDPACK,
            "samples/one:all-types",
            "Layer: 'all-types', Created by buildpack: samples/one@0.0.1",
        ),
        (
            Role.BUILDPACK,
            "samples/one:launched",
            "Layer: 'launched', Created by buildpack: samples/one@0.0.1",
        ),
        (Role.BUILDPACK, "two:only", "Layer: 'only', Created by buildpack: two@2.1"),
        (Role.SBOM, "buildpacksio/lifecycle:launch.sbom", "Software Bill-of-Materials"),
        (Role.APP, "slice-1", "Application Slice: 1"),
        (Role.APP, "slice-2", "Application Slice: 2"),
        (Role.APP, "slice-3", "Application Slice: 3"),
        (Role.LAUNCHER, "buildpacksio/lifecycle:launcher", "Buildpacks Application Launcher"),
        (Role.CONFIG, "buildpacksio/lifecycle:config", "Buildpacks Launcher Config"),
        (Role.PROCESS_TYPES, "buildpacksio/lifecycle:process-types", "Buildpacks Process Types"),
    ]


def test_a_build_of_little_has_few_layers(made: Build) -> None:
    found = list(parts(inputs(made, "0.7"), [], BuildMetadata(), NOTHING))
    assert [(part.role, part.created_by) for part in found] == [
        (Role.APP, "Application Layer"),
        (Role.LAUNCHER, "Buildpacks Application Launcher"),
        (Role.CONFIG, "Buildpacks Launcher Config"),
    ]


def test_the_previous_image_says_what_layers_are_likely(made: Build) -> None:
    digests = {name: Digest.of(name.encode()) for name in "abcdefg"}
    previous = LifecycleMetadata(
        app=(str(digests["a"]), "not a digest", str(digests["b"])),
        sbom=str(digests["c"]),
        buildpacks=(
            BuildpackLayers("two", "1", {"only": LayerMetadata(str(digests["d"]))}),
            BuildpackLayers("three", "1", {"launched": LayerMetadata(str(OLD))}),
        ),
        config=str(digests["e"]),
        launcher=str(digests["f"]),
        process_types=str(digests["g"]),
    )
    likely = {part.identifier: part.likely for part in all_parts(made, previous)}
    app = (digests["a"], digests["b"])
    assert likely == {
        "samples/one:all-types": (),
        "samples/one:launched": (),
        "two:only": (digests["d"],),
        "buildpacksio/lifecycle:launch.sbom": (digests["c"],),
        "slice-1": app,
        "slice-2": app,
        "slice-3": app,
        "buildpacksio/lifecycle:launcher": (digests["f"],),
        "buildpacksio/lifecycle:config": (digests["e"],),
        "buildpacksio/lifecycle:process-types": (digests["g"],),
    }


def test_a_layer_without_content_is_that_of_the_previous_image(made: Build) -> None:
    (made.layers / "two" / "gone.toml").write_text("[types]\nlaunch = true\n")
    layers = {"gone": LayerMetadata(str(OLD), launch=True)}
    previous = LifecycleMetadata(buildpacks=(BuildpackLayers("two", "1", layers),))
    (part,) = (part for part in all_parts(made, previous) if part.identifier == "two:gone")
    assert (part.tar, part.likely) == (None, (OLD,))


@pytest.mark.parametrize(
    ("types", "previous", "expected"),
    [
        ("cache = true", NOTHING, "layer 'two:x' is cache=true but has no contents"),
        (
            "",
            NOTHING,
            "cannot reuse 'two:x', previous image has no metadata for layer 'two:x'",
        ),
        (
            "",
            LifecycleMetadata(buildpacks=(BuildpackLayers("two", "1", {"x": LayerMetadata("y")}),)),
            "reusing layer: 'two:x': failed to get layer hash",
        ),
    ],
)
def test_a_layer_without_content_that_cannot_be_had_is_refused(
    made: Build, types: str, previous: LifecycleMetadata, expected: str
) -> None:
    (made.layers / "two" / "x.toml").write_text(f"[types]\nlaunch = true\n{types}\n")
    with pytest.raises(InvalidContent) as refused:
        all_parts(made, previous)
    assert str(refused.value).startswith(expected)


def test_malformed_layers_are_refused(made: Build) -> None:
    (made.layers / "samples_one" / "built.toml").write_text("launch = true\n")
    with pytest.raises(InvalidContent) as refused:
        all_parts(made)
    expected = "failed to parse metadata for layers '[samples/one:built]'"
    assert str(refused.value) == expected


def test_the_image_remembers_its_layers(made: Build) -> None:
    found = all_parts(made)
    of = {part.identifier: Digest.of(part.identifier.encode()) for part in found}
    remembered = metadata([(part, of[part.identifier]) for part in found], dirs(made))
    sha = {identifier: str(digest) for identifier, digest in of.items()}
    one, two = remembered.buildpacks
    assert (one.key, one.version, one.store) == (
        "samples/one",
        "0.0.1",
        StoreMetadata({"key": "<value>"}),
    )
    assert one.layers["all-types"] == LayerMetadata(
        sha["samples/one:all-types"], {"nested": {"x": "<&>"}}, build=True, launch=True, cache=True
    )
    assert set(one.layers) == {"all-types", "launched"}
    assert two == BuildpackLayers(
        "two", "2.1", {"only": LayerMetadata(sha["two:only"], launch=True)}
    )
    assert replace(remembered, buildpacks=()) == LifecycleMetadata(
        app=tuple(sha[f"slice-{number}"] for number in (1, 2, 3)),
        sbom=sha["buildpacksio/lifecycle:launch.sbom"],
        config=sha["buildpacksio/lifecycle:config"],
        launcher=sha["buildpacksio/lifecycle:launcher"],
        process_types=sha["buildpacksio/lifecycle:process-types"],
    )
