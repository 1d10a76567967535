from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.analyze import analyze, build_target
from ocistow.lifecycle.caches.directory import DirectoryCache
from ocistow.lifecycle.console import Console, Level
from ocistow.lifecycle.files.analyzed import Analyzed, Target, read_analyzed
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ocistow.lifecycle.images.config import Config
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Code, Version
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, PhaseFailed, RegistryError
from ocistow.testing.faults import Fault, Status
from ocistow.testing.registry import Registry

from .saving_images import layer_of, save_image

RUN = Config(
    "arm64",
    variant="v8",
    labels={
        "io.buildpacks.base.id": "an.id",
        "io.buildpacks.base.distro.name": "debian",
        "io.buildpacks.base.distro.version": "12",
    },
)
OUR_TARGET = Target("linux", "arm64", "v8", "debian", "12", "an.id")


class Place:
    """A directory of layouts with a run image, and what a platform asks of an analyzer."""

    def __init__(self, tmp_path: Path) -> None:
        self.layers = tmp_path / "layers"
        self.layers.mkdir()
        self.layouts = tmp_path / "oci"
        self.target = LayoutTarget(self.layouts)
        self.out = io.BytesIO()
        save_image(self.target, "example/run", RUN)
        self.inputs = Inputs(
            Version(0, 15),
            image="example/app",
            previous_image="example/app",
            run_image="example/run",
            layout=True,
            layout_dir=self.layouts,
            layers_dir=self.layers,
            analyzed_path=self.layers / "analyzed.toml",
        )

    def path(self, repository: str) -> str:
        return f"{self.layouts}/index.docker.io/{repository}/latest"

    def analyze(self, **more: object) -> Analyzed:
        console = Console(self.out, level=Level.INFO)
        console.color = False
        inputs = replace(self.inputs, **more)  # type: ignore[arg-type] # as the test says
        analyzed = analyze(inputs, self.target, console)
        assert read_analyzed(inputs.analyzed_path, console) == analyzed
        return analyzed

    @property
    def said(self) -> str:
        return self.out.getvalue().decode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_first_build_knows_its_run_image(place: Place) -> None:
    analyzed = place.analyze()
    assert analyzed.previous_image == ""
    assert analyzed.metadata == LifecycleMetadata()
    assert analyzed.run_image is not None
    assert analyzed.run_image.reference.startswith(f"{place.path('example/run')}@sha256:")
    assert analyzed.run_image.image == "example/run"
    assert analyzed.run_image.target == OUR_TARGET
    assert place.said == f'Image with name "{place.path("example/app")}" not found\n'


def test_before_api_0_12_there_is_only_a_reference(place: Place) -> None:
    analyzed = place.analyze(platform_api=Version(0, 11))
    assert analyzed.run_image is not None
    assert analyzed.run_image.image == ""
    assert analyzed.run_image.target is None


def test_a_run_image_that_no_layout_has_ends_the_build(place: Place) -> None:
    for by_draft in (False, True):
        with pytest.raises(PhaseFailed) as raised:
            place.analyze(run_image="cnb/bad-run-image", by_draft=by_draft)
        assert raised.value.code == Code.ANALYZE
        short, full = f"{place.layouts}/cnb/bad-run-image", place.path("cnb/bad-run-image")
        words = f"the run-image could not be found at path: {short}"
        assert raised.value.message.startswith(words)
        assert full in raised.value.message[len(words) :]
    assert not (place.layers / "analyzed.toml").exists()


def sboms(place: Place, **files: bytes) -> str:
    """Save a previous image with these SBOMs; return their layer's diffID."""
    directory = place.layers / "sbom" / "launch"
    tar = layer_of(directory, {f"bp/{name}/sbom.cdx.json": each for name, each in files.items()})
    other = layer_of(place.layers / "bp" / "other", {"file": b"other"})
    stream = tar.open()
    stream.close()
    diff_id, _ = save_image(place.target, "example/scratch", Config(), tar, other)
    label = LifecycleMetadata(sbom=str(diff_id)).dump().decode()
    config = Config(labels={LIFECYCLE_METADATA: label})
    assert save_image(place.target, "example/app", config, tar, other)[0] == diff_id
    shutil.rmtree(place.layers)
    place.layers.mkdir()
    return str(diff_id)


def test_the_sboms_of_the_previous_image_come_back(place: Place) -> None:
    diff_id = sboms(place, layer=b"{}")
    analyzed = place.analyze()
    assert analyzed.metadata.sbom == diff_id
    assert (analyzed.previous_image or "").startswith(f"{place.path('example/app')}@sha256:")
    path = place.layers / "sbom" / "launch" / "bp" / "layer" / "sbom.cdx.json"
    assert path.read_bytes() == b"{}"
    assert not (place.layers / "bp").exists()
    assert "Restoring data for SBOM from previous image" in place.said


@pytest.mark.parametrize("more", [{"skip_layers": True}, {"platform_api": Version(0, 7)}])
def test_the_sboms_may_stay_where_they_are(place: Place, more: dict[str, object]) -> None:
    sboms(place, layer=b"{}")
    assert place.analyze(**more).metadata.sbom
    assert [path.name for path in place.layers.iterdir()] == ["analyzed.toml"]


def test_sboms_for_another_directory_are_left_out(place: Place, tmp_path: Path) -> None:
    sboms(place, layer=b"{}")
    other = tmp_path / "other"
    other.mkdir()
    place.analyze(layers_dir=other)
    assert not list(other.iterdir())
    assert "Warning: Skipping restore for SBOM" in place.said


def test_an_sbom_layer_that_is_not_there_is_an_error(place: Place) -> None:
    label = LifecycleMetadata(sbom="sha256:" + "0" * 64).dump().decode()
    save_image(place.target, "example/app", Config(labels={LIFECYCLE_METADATA: label}))
    with pytest.raises(InvalidContent, match=r"^retrieving launch SBOM layer: "):
        place.analyze()


@pytest.mark.parametrize("label", ["{", '{"sbom":[]}', '{"buildpacks":{}}', "\udcff"])
def test_a_label_that_is_not_understood_is_no_previous_image(place: Place, label: str) -> None:
    save_image(place.target, "example/app", Config(labels={LIFECYCLE_METADATA: label}))
    analyzed = place.analyze()
    assert analyzed.previous_image == ""
    assert analyzed.metadata == LifecycleMetadata()


def test_an_image_without_the_label_is_a_previous_image(place: Place) -> None:
    save_image(place.target, "example/app", Config())
    analyzed = place.analyze()
    assert (analyzed.previous_image or "").startswith(place.path("example/app"))


def test_a_damaged_previous_image_is_ignored(place: Place) -> None:
    save_image(place.target, "example/app", Config())
    path = Path(place.path("example/app"))
    (path / "index.json").write_text("{")
    assert place.analyze().previous_image == ""
    assert f'Ignoring image "{path}" because it was corrupt' in place.said


def test_a_damaged_run_image_is_not(place: Place) -> None:
    (Path(place.path("example/run")) / "index.json").write_text("{")
    with pytest.raises(PhaseFailed, match=r"^failed to initialize analyzer: getting run image: "):
        place.analyze()


def test_an_image_for_no_system_is_refused() -> None:
    with pytest.raises(InvalidContent, match=r"^failed to find OS in run image config$"):
        build_target(replace(RUN, os=""))


def test_a_registry_may_lack_the_run_image(tmp_path: Path) -> None:
    layers = tmp_path / "layers"
    layers.mkdir()
    with Registry() as registry:
        inputs = Inputs(
            Version(0, 15),
            image=f"{registry.host}/app",
            previous_image=f"{registry.host}/app",
            run_image=f"{registry.host}/run:tag",
            analyzed_path=layers / "analyzed.toml",
            layers_dir=layers,
        )
        target = RegistryTarget({"HOME": str(tmp_path)})
        analyzed = analyze(inputs, target, Console(io.BytesIO()))
        assert analyzed.run_image is not None
        assert analyzed.run_image.reference == ""
        assert analyzed.run_image.image == f"{registry.host}/run:tag"
        assert analyzed.run_image.target is not None
        assert analyzed.run_image.target.os == "linux"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("GET|HEAD", "validating registry read access: failed to ensure registry read access to"),
        ("POST", "validating registry write access: failed to ensure registry read/write access"),
    ],
)
def test_what_may_not_be_read_or_written_is_told_now(
    tmp_path: Path, method: str, words: str
) -> None:
    with Registry() as registry:
        registry.faults.append(Fault(method, "/v2/app/", Status(403), times=None))
        inputs = Inputs(
            Version(0, 15),
            image=f"{registry.host}/app",
            previous_image=f"{registry.host}/app",
            analyzed_path=tmp_path / "analyzed.toml",
            layers_dir=tmp_path,
        )
        target = RegistryTarget({"HOME": str(tmp_path)})
        with pytest.raises(PhaseFailed) as raised:
            analyze(inputs, target, Console(io.BytesIO()))
    assert raised.value.code == Code.ANALYZE
    assert raised.value.message.startswith(f"failed to initialize analyzer: {words}")
    assert not isinstance(raised.value, RegistryError)


def test_of_a_daemons_image_sboms_come_from_the_launch_cache(place: Place, tmp_path: Path) -> None:
    diff_id = Digest.parse(sboms(place, layer=b"{}"))
    (tmp_path / "launch").mkdir()
    with place.target.find("example/app") as image, DirectoryCache(tmp_path / "launch") as cache:
        assert image is not None
        blob = image.layers[0].blob.digest.encoded
        tar = layer_of(place.layers / "sbom" / "launch", {"bp/layer/sbom.cdx.json": b"{}"})
        assert cache.add(tar).diff_id == diff_id
        cache.commit()
    shutil.rmtree(place.layers / "sbom")
    (Path(place.path("example/app")) / "blobs" / "sha256" / blob).unlink()
    more = {"layout": False, "daemon": True, "launch_cache_dir": tmp_path / "launch"}
    place.analyze(**more)
    assert (place.layers / "sbom" / "launch" / "bp" / "layer" / "sbom.cdx.json").exists()
    (tmp_path / "launch" / "committed" / f"{diff_id}.tar").unlink()
    with pytest.raises(InvalidContent, match="retrieving launch SBOM layer"):
        place.analyze(**more)
