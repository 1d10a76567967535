from __future__ import annotations

import io
import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.analyzed import (
    Analyzed,
    AnalyzedRunImage,
    read_analyzed,
    write_analyzed,
)
from ocistow.lifecycle.files.group import Group, GroupElement, write_group
from ocistow.lifecycle.files.labels import (
    BuildpackLayers,
    CacheMetadata,
    LayerMetadata,
    LifecycleMetadata,
    StoreMetadata,
)
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Code, Version
from ocistow.lifecycle.restore import restore
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.errors import InvalidContent, PhaseFailed
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry

from .saving_images import layer_of

BUILDPACK = GroupElement("samples/bp", "1.0", "0.10")
LAUNCH = LayerMetadata("sha256:" + "a" * 64, {"k": 1.0}, launch=True)


class Place:
    """A layers directory after detection, and a cache."""

    def __init__(self, tmp_path: Path) -> None:
        self.layers = tmp_path / "layers"
        self.cache = tmp_path / "cache"
        self.layers.mkdir()
        self.cache.mkdir()
        self.out = io.BytesIO()
        self.target = RegistryTarget({"HOME": str(tmp_path)})
        self.console = Console(self.out, level=Level.INFO)
        self.console.color = False
        self.inputs = Inputs(
            Version(0, 15),
            analyzed_path=self.layers / "analyzed.toml",
            group_path=self.layers / "group.toml",
            layers_dir=self.layers,
            cache_dir=self.cache,
            run_path=tmp_path / "run.toml",
            environ={"HOME": str(tmp_path)},
        )
        self.group()
        self.analyzed()

    def group(self, *buildpacks: GroupElement, extensions: tuple[GroupElement, ...] = ()) -> None:
        write_group(self.layers / "group.toml", Group(buildpacks or (BUILDPACK,), extensions))

    def analyzed(self, run_image: AnalyzedRunImage | None = None, **layers: LayerMetadata) -> None:
        """Let the analyzer have found these layers."""
        known = BuildpackLayers(BUILDPACK.id, "0.9", layers, StoreMetadata({"kept": "<value>"}))
        analyzed = Analyzed("", "", run_image, LifecycleMetadata(buildpacks=(known,)))
        write_analyzed(self.layers / "analyzed.toml", analyzed, Console(io.BytesIO()))

    def cached(self, sbom: dict[str, bytes] | None = None, **layers: LayerMetadata) -> None:
        """Let the last build have cached these layers, each with a file that says its name."""
        kept: dict[str, LayerMetadata] = {}
        with DirectoryCache(self.cache) as cache:
            for name, layer in layers.items():
                tar = layer_of(self.layers / "samples_bp" / name, {"bin/file": name.encode()})
                kept[name] = replace(layer, sha=str(cache.add(tar).diff_id))
            sha = ""
            if sbom:
                tar = layer_of(self.layers / "sbom" / "cache", sbom)
                sha = str(cache.add(tar).diff_id)
            known = BuildpackLayers(BUILDPACK.id, "0.9", kept)
            cache.commit(CacheMetadata(sha, (known,)))
        shutil.rmtree(self.layers / "samples_bp", ignore_errors=True)
        shutil.rmtree(self.layers / "sbom", ignore_errors=True)

    def sha(self, name: str) -> str:
        with DirectoryCache(self.cache) as cache:
            return cache.metadata().buildpacks[0].layers[name].sha

    def restore(self, **more: object) -> list[str]:
        inputs = replace(self.inputs, **more)  # type: ignore[arg-type] # as the test says
        restore(inputs, self.target, self.console)
        return self.restored

    @property
    def restored(self) -> list[str]:
        directory = self.layers / "samples_bp"
        files = (path for path in directory.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(directory)) for path in files)

    @property
    def said(self) -> str:
        return self.out.getvalue().decode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def types(text: str) -> LayerMetadata:
    return LayerMetadata("", {"of": text}, build="b" in text, launch="l" in text, cache="c" in text)


@pytest.mark.parametrize(
    ("image", "cache", "old", "new"),
    [
        ("l", "", "toml", "toml"),
        ("lb", "", "", ""),
        ("lc", "lc", "both", "both"),
        ("lc", "", "", ""),
        ("lbc", "lbc", "both", "both"),
        ("lc", "l", "", ""),
        ("", "c", "both", "both"),
        ("", "bc", "both", "both"),
        ("", "b", "", ""),
        ("", "lc", "", "both"),
        ("b", "", "", ""),
        ("l", "c", "both", "both"),
    ],
)
@pytest.mark.parametrize("api", [Version(0, 13), Version(0, 14)])
def test_what_is_restored_depends_on_the_types(
    place: Place, api: Version, image: str, cache: str, old: str, new: str
) -> None:
    if cache:
        place.cached(x=types(cache))
    if image:
        sha = place.sha("x") if cache else "sha256:" + "a" * 64
        place.analyzed(x=replace(types(image), sha=sha))
    wanted = new if api >= Version(0, 14) else old
    expected = {"": [], "toml": ["x.toml"], "both": ["x.toml", "x/bin/file"]}[wanted]
    assert place.restore(platform_api=api) == ["store.toml", *expected][: 1 + len(expected)]
    if wanted:
        text = (place.layers / "samples_bp" / "x.toml").read_text()
        assert tomllib.loads(text) == {"metadata": {"of": cache or image}}


def test_the_store_comes_back(place: Place) -> None:
    place.restore(skip_layers=True)
    text = (place.layers / "samples_bp" / "store.toml").read_text()
    assert tomllib.loads(text) == {"metadata": {"kept": "<value>"}}
    assert "Skipping buildpack layer analysis" in place.said


def test_a_store_that_says_nothing_comes_back(place: Place) -> None:
    for store, expected in ((StoreMetadata(), ""), (StoreMetadata({}), "[metadata]\n")):
        known = BuildpackLayers(BUILDPACK.id, "0.9", {}, store)
        analyzed = Analyzed("", "", None, LifecycleMetadata(buildpacks=(known,)))
        write_analyzed(place.layers / "analyzed.toml", analyzed, place.console)
        place.restore()
        assert (place.layers / "samples_bp" / "store.toml").read_text() == expected


@pytest.mark.parametrize("image", ["", '[image]\n  reference = ""\n'])
def test_a_previous_image_is_named_where_the_analyzer_named_it(place: Place, image: str) -> None:
    file = place.layers / "analyzed.toml"
    file.write_text(image)
    place.restore()
    assert file.read_text().partition("[metadata]")[0].strip() == image.strip()


def test_a_layer_that_is_another_in_the_cache_is_removed(place: Place) -> None:
    place.cached(x=types("lc"))
    place.analyzed(x=replace(types("lc"), sha="sha256:" + "a" * 64))
    assert place.restore() == ["store.toml"]
    assert 'Removing "samples/bp:x", wrong sha' in place.said


@pytest.mark.parametrize("damage", ["lost", "damaged", "elsewhere"])
def test_a_layer_that_cannot_be_had_leaves_nothing(
    place: Place, tmp_path: Path, damage: str
) -> None:
    place.cached(x=types("c"), y=types("c"))
    sha = place.sha("x")
    file = place.cache / "committed" / f"{sha}.tar"
    layers = place.layers
    if damage == "lost":
        file.unlink()
        words = f"failed to find cache layer with SHA '{sha}'"
    elif damage == "damaged":
        file.write_bytes(b"x")
        words = f"expected layer contents to have SHA '{sha}'; found '"
    else:
        layers = tmp_path / "others"
        shutil.copytree(place.layers, layers)
        words = "lies outside of"
    restore(replace(place.inputs, layers_dir=layers, jobs=1), place.target, place.console)
    assert f"Warning: Skipping restore for layer samples/bp:x: {words}" in place.said or (
        damage == "elsewhere" and words in place.said
    )
    assert not (layers / "samples_bp" / "x.toml").exists()
    assert not (layers / "samples_bp" / "x").exists()
    assert (layers / "samples_bp" / "y.toml").exists() is (damage != "elsewhere")


def test_sboms_come_beside_their_layers(place: Place) -> None:
    place.cached(
        {
            "samples_bp/x/sbom.cdx.json": b"of x",
            "samples_bp/x/other.json": b"no SBOM",
            "samples_bp/sbom.cdx.json": b"of the buildpack",
            "unknown/x/sbom.cdx.json": b"of another",
        },
        x=types("c"),
    )
    launch = place.layers / "sbom" / "launch" / "samples_bp" / "z"
    launch.mkdir(parents=True)
    (launch / "sbom.spdx.json").write_bytes(b"of z")
    (launch / "sbom.link.json").symlink_to("/etc/passwd")
    (place.layers / "unknown").mkdir()
    assert place.restore() == [
        "store.toml",
        "x.sbom.cdx.json",
        "x.toml",
        "x/bin/file",
        "z.sbom.spdx.json",
    ]
    assert (place.layers / "samples_bp" / "x.sbom.cdx.json").read_bytes() == b"of x"
    assert not list((place.layers / "unknown").iterdir())
    assert not (place.layers / "sbom").exists()


@pytest.mark.parametrize("more", [{"skip_layers": True}, {"platform_api": Version(0, 7)}])
def test_sboms_may_stay_where_they_are(place: Place, more: dict[str, object]) -> None:
    place.cached({"samples_bp/x/sbom.cdx.json": b"of x"}, x=types("c"))
    (place.layers / "sbom").mkdir()
    assert "x.sbom.cdx.json" not in place.restore(**more)
    assert (place.layers / "sbom").exists()


def test_without_a_cache_the_image_alone_is_known(place: Place) -> None:
    place.analyzed(x=LAUNCH)
    assert place.restore(cache_dir=None) == ["store.toml", "x.toml"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b"])
def test_no_name_leaves_the_directory(place: Place, name: str) -> None:
    place.analyzed(None, **{name: LAUNCH})
    with pytest.raises(InvalidContent, match="names no layer"):
        place.restore()
    assert sorted(path.name for path in place.layers.iterdir()) == [
        "analyzed.toml",
        "group.toml",
        "samples_bp",
    ]


def test_a_cache_directory_must_be_there(place: Place) -> None:
    with pytest.raises(PhaseFailed) as raised:
        place.restore(cache_dir=Path("/nowhere"))
    assert raised.value.code == Code.FAILED
    assert raised.value.message == (
        "failed to create volume cache: stat /nowhere: no such file or directory"
    )


def test_a_group_must_be_there(place: Place) -> None:
    (place.layers / "group.toml").unlink()
    with pytest.raises(PhaseFailed, match=r"^failed to read group file: ") as raised:
        place.restore()
    assert raised.value.code == Code.FAILED


def test_a_buildpack_of_another_api_is_refused(place: Place) -> None:
    place.group(replace(BUILDPACK, api="0.6"))
    with pytest.raises(PhaseFailed) as raised:
        place.restore()
    assert raised.value.code == Code.BUILDPACK_API
    assert raised.value.message == (
        "failed to set API for Buildpack 'samples/bp@1.0': "
        "buildpack API version '0.6' is incompatible with the lifecycle"
    )


def test_extensions_are_refused(place: Place) -> None:
    place.group(BUILDPACK, extensions=(GroupElement("ext", "2", "0.10"),))
    with pytest.raises(PhaseFailed, match="extensions are unsupported: ext@2") as raised:
        place.restore()
    assert raised.value.code == Code.RESTORE


def test_a_run_image_to_be_extended_is_refused(place: Place) -> None:
    place.analyzed(AnalyzedRunImage("example.com/run@sha256:" + "0" * 64, "run", extend=True))
    with pytest.raises(PhaseFailed, match="extending a run image is unsupported: run"):
        place.restore()


@pytest.mark.parametrize("content", [None, "{"])
def test_without_analyzed_data_it_goes_on(place: Place, content: str | None) -> None:
    path = place.layers / "analyzed.toml"
    path.unlink()
    if content is not None:
        path.write_text(content)
    place.cached(x=types("c"))
    assert place.restore() == ["x.toml", "x/bin/file"]
    words = "No analyzed metadata found" if content is None else "Not using analyzed data, usable"
    assert f"Warning: {words}" in place.said
    assert content is None or path.read_text() == content


def test_the_build_image_is_noted(place: Place, tmp_path: Path) -> None:
    image = image_layout(tmp_path / "image")
    with Registry() as registry:
        registry.repositories.load(image.path, "build")
        name = f"{registry.host}/build"
        place.restore(build_image=name)
        analyzed = read_analyzed(place.layers / "analyzed.toml", place.console)
        assert analyzed.build_image == f"{name}@{image.manifest}"
        with pytest.raises(PhaseFailed) as raised:
            place.restore(build_image=f"{registry.host}/absent")
        assert raised.value.message == (
            f"failed to pull builder image {registry.host}/absent: failed to get remote image"
        )
        place.restore(build_image=f"{registry.host}/absent", platform_api=Version(0, 9))


def test_the_chosen_run_image_must_still_be_readable(place: Place) -> None:
    with Registry() as registry:
        name = f"{registry.host}/run"
        place.analyzed(AnalyzedRunImage("", name))
        registry.faults.append(Fault("GET|HEAD", "/v2/run/", Status(401), times=None))
        place.restore()
        place.inputs.run_path.write_text(f'[[images]]\nimage = "x"\nmirrors = ["{name}"]\n')
        place.restore(platform_api=Version(0, 13))
        place.restore(layout=True)
        with pytest.raises(PhaseFailed) as raised:
            place.restore()
        assert raised.value.message == f"selected run image '{name}' is not accessible"
        assert raised.value.code == Code.FAILED
        registry.faults.clear()
        place.restore()


def test_a_cache_image_is_a_cache(place: Place) -> None:
    with Registry() as registry:
        place.restore(cache_image=f"{registry.host}/cache", cache_dir=None)
        assert "Layer cache not found" in place.said
        registry.faults.append(Fault("GET|HEAD", "/v2/cache/", Status(403), times=None))
        with pytest.raises(PhaseFailed) as raised:
            place.restore(cache_image=f"{registry.host}/cache")
        words = f'failed to create image cache: accessing cache image "{registry.host}/cache": '
        assert raised.value.message.startswith(words)


def test_a_link_in_the_place_of_sboms_is_not_followed(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "launch" / "samples_bp" / "x"
    elsewhere.mkdir(parents=True)
    (elsewhere / "sbom.cdx.json").write_bytes(b"secret")
    (place.layers / "samples_bp").mkdir()
    (place.layers / "sbom").symlink_to(tmp_path / "elsewhere")
    assert place.restore() == ["store.toml"]
    assert not (place.layers / "sbom").is_symlink()
    assert (elsewhere / "sbom.cdx.json").exists()


def test_a_link_in_the_place_of_a_buildpack_is_not_followed(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (place.layers / "samples_bp").symlink_to(tmp_path / "elsewhere")
    place.analyzed(x=LAUNCH)
    with pytest.raises(NotADirectoryError):
        place.restore()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_whatever_is_in_the_place_of_a_layer_is_removed(place: Place, kind: str) -> None:
    place.cached(x=types("c"))
    place.analyzed(x=replace(LAUNCH, cache=True))
    layer = place.layers / "samples_bp" / "x"
    layer.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(layer)
    else:
        layer.symlink_to(place.cache)
    place.restore()
    assert not os.path.lexists(layer)
    assert place.cache.exists()
