import json
import shutil
import tomllib
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA
from ocistow.lifecycle.images.image import Image, Saved, open_image
from ocistow.lifecycle.images.staging import Staging
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Code, Version
from ocistow.lifecycle.publish import publish_from
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.digest import Digest
from ocistow.oci.errors import PhaseFailed
from ocistow.oci.reference import Reference
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Source
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, artifact_layout, image_layout
from ocistow.testing.registry import Registry


class Layouts:
    """Plain layouts in a directory, by their full names."""

    keeps_identifier = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def find(self, reference: str) -> Generator[Image | None]:
        parsed = Reference.parse(reference)
        path = self.directory / parsed.path
        if not path.exists():
            yield None
            return
        source = LayoutSource(path, parsed.tag)
        root = source.resolve()
        yield open_image(str(path), f"{path}@{root.digest}", source, root)

    def name(self, reference: str) -> str:
        return str(self.directory / Reference.parse(reference).path)

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        raise AssertionError

    def staging(self, reference: str) -> AbstractContextManager[Staging]:
        raise AssertionError

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        raise AssertionError


class World:
    """A registry, an image in a layout directory, and the inputs that publish it there."""

    def __init__(self, path: Path, registry: Registry) -> None:
        self.registry = registry
        self.name = f"{registry.host}/team/app:1"
        self.layouts = Layouts(path / "oci")
        self.layout = self.layouts.directory / Reference.parse(self.name).path
        self.layout.parent.mkdir(parents=True)
        self.image = image_layout(self.layout, layers=2, tag="1")
        self.report = path / "report.toml"
        self.out = BytesIO()
        self.inputs = Inputs(
            Version(0, 14), image=self.name, report_path=self.report, layers_dir=path / "layers"
        )

    def publish(self) -> Saved:
        console = Console(self.out, self.out)
        return publish_from(self.layouts, RegistryTarget({}), self.inputs, console)

    def refused(self) -> PhaseFailed:
        with pytest.raises(PhaseFailed) as caught:
            self.publish()
        return caught.value

    @property
    def tags(self) -> dict[str, Digest]:
        return self.registry.repositories.tags("team/app")


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with Registry() as registry:
        yield World(tmp_path, registry)


def listing(image: GeneratedImage) -> str:
    return f"sha256-{image.manifest.encoded}"


def test_an_image_keeps_its_digest_and_the_report_says_so(world: World) -> None:
    world.report.write_text(f'[image]\ntags = ["old"]\ndigest = "{Digest.of(b"old")}"\n')
    other = f"{world.registry.host}/team/app:2"
    world.inputs = replace(world.inputs, tags=(other,))
    saved = world.publish()
    assert saved.digest == world.image.manifest
    assert world.tags == {"1": world.image.manifest, "2": world.image.manifest}
    assert tomllib.loads(world.report.read_text()) == {
        "image": {
            "tags": [world.name, other],
            "digest": str(world.image.manifest),
            "manifest-size": world.image.blob(world.image.manifest).stat().st_size,
        },
        "published": {
            "digest-in": str(world.image.manifest),
            "digest-out": str(world.image.manifest),
        },
    }


def test_the_image_tells_its_run_image_whatever_was_reported_before(world: World) -> None:
    world.report.write_text('[image]\nrun-image.reference = "of another"\n')
    run = {"topLayer": "sha256:top", "reference": "e.x/run@sha256:0", "image": "e.x/run"}
    labelled(world, None, {LIFECYCLE_METADATA: json.dumps({"runImage": run})})
    world.publish()
    report = tomllib.loads(world.report.read_text())
    expected = {"top-layer": "sha256:top", "reference": "e.x/run@sha256:0", "image": "e.x/run"}
    assert report["image"]["run-image"] == report["run-image"] == expected


def test_files_for_tekton_and_kbld(world: World, tmp_path: Path) -> None:
    digest_file, refs = tmp_path / "digest", tmp_path / "refs"
    world.inputs = replace(world.inputs, image_digest_file=digest_file, image_refs=refs)
    world.publish()
    assert digest_file.read_text() == str(world.image.manifest)
    assert refs.read_text() == f"{world.name}@{world.image.manifest}\n"


def test_an_image_that_is_not_there_is_not_published(world: World) -> None:
    world.inputs = replace(world.inputs, image=f"{world.registry.host}/team/app:9")
    refused = world.refused()
    assert refused.code == Code.PUBLISH
    assert str(world.layout.parent / "9") in refused.message
    assert not world.report.exists()


def test_what_is_in_the_layout_of_the_image_goes_with_it(world: World) -> None:
    kind = "application/vnd.example.sbom"
    sbom = artifact_layout(world.layout, [b"sbom"], tag="", kind=kind, subject=world.image)
    wasm = artifact_layout(world.layout, [b"wasm"], tag="wasm", subject=world.image)
    signature = artifact_layout(world.layout, [b"sig"], tag=f"{listing(world.image)}.sig")
    artifact_layout(world.layout, [b"stranger"], tag="stranger")
    world.publish()
    assert world.tags == {
        "1": world.image.manifest,
        "wasm": wasm,
        f"{listing(world.image)}.sig": signature,
    }
    for digest in (sbom, wasm, signature):
        assert world.registry.repositories.manifest("team/app", digest)
    assert "wasm" in world.out.getvalue().decode()


def test_what_lies_beside_the_image_goes_with_it(world: World) -> None:
    beside = world.layout.parent
    sbom = artifact_layout(beside / listing(world.image), [b"sbom"], subject=world.image)
    signature = artifact_layout(beside / f"{listing(world.image)}.sig", [b"sig"])
    world.publish()
    assert world.registry.repositories.manifest("team/app", sbom)
    assert world.tags[f"{listing(world.image)}.sig"] == signature


def test_a_registry_without_referrers_gets_the_list(world: World) -> None:
    world.registry.repositories.lists = False
    sbom = artifact_layout(world.layout, [b"sbom"], tag="", subject=world.image)
    world.publish()
    raw = world.registry.repositories.manifest("team/app", world.tags[listing(world.image)])
    assert str(sbom).encode() in raw


def test_two_artifacts_with_one_tag_end_it_before_anything_is_pushed(world: World) -> None:
    beside = world.layout.parent / listing(world.image)
    artifact_layout(world.layout, [b"one"], tag="wasm", subject=world.image)
    artifact_layout(beside, [b"two"], tag="wasm", subject=world.image)
    refused = world.refused()
    assert refused.code == Code.ARTIFACTS
    assert "claims the tag 'wasm'" in refused.message
    assert str(world.layout) in refused.message
    assert str(beside) in refused.message
    assert not world.registry.requests
    assert not world.report.exists()


def test_an_artifact_cannot_have_the_tag_of_the_image(world: World) -> None:
    world.inputs = replace(world.inputs, tags=(f"{world.registry.host}/team/app:wasm",))
    artifact_layout(world.layout, [b"one"], tag="wasm", subject=world.image)
    refused = world.refused()
    assert refused.code == Code.ARTIFACTS
    assert "the tag 'wasm' of the image" in refused.message
    assert not world.registry.requests


def test_an_artifact_cannot_have_the_tag_of_another_image(world: World) -> None:
    other = image_layout(world.layouts.directory / "other", seed=8, tag="wasm")
    world.registry.repositories.load(other.path, "team/app")
    artifact_layout(world.layout, [b"one"], tag="wasm", subject=world.image)
    refused = world.refused()
    assert refused.code == Code.ARTIFACTS
    assert f"claims the tag of the image {world.registry.host}/team/app:wasm" in refused.message
    assert str(world.layout) in refused.message
    assert world.tags == {"wasm": other.manifest}
    assert not world.report.exists()


def test_an_artifact_and_a_signature_can_be_published_again(world: World) -> None:
    artifact_layout(world.layout, [b"one"], tag="wasm", subject=world.image)
    image_layout(world.layout, seed=8, tag=f"{listing(world.image)}.sig")  # as cosign makes them
    world.publish()
    world.publish()
    assert {"1", "wasm", f"{listing(world.image)}.sig"} <= set(world.tags)


def test_what_refuses_is_told_in_one_line(world: World) -> None:
    world.registry.faults.append(Fault("PUT", "/manifests/1", Status(403)))
    refused = world.refused()
    assert refused.code == Code.PUBLISH
    assert refused.message.startswith(f"failed to publish {world.name}: ")
    assert "\n" not in refused.message
    assert not world.report.exists()


def test_a_name_that_was_given_is_told_when_another_was_not(world: World) -> None:
    other = f"{world.registry.host}/team/app:2"
    world.inputs = replace(world.inputs, tags=(other,))
    world.registry.faults.append(Fault("PUT", "/manifests/2", Status(403)))
    refused = world.refused()
    assert "failed to write image to the following tags: [" in refused.message
    assert f"      {world.name}\n" in world.out.getvalue().decode()
    assert f"      {other} - " in world.out.getvalue().decode()
    assert not world.report.exists()


def test_a_layer_that_is_absent_ends_it(world: World) -> None:
    world.image.blob(world.image.layers[0]).unlink()
    refused = world.refused()
    assert str(world.image.layers[0]) in refused.message
    assert world.tags == {}


def test_layers_of_the_run_image_are_mounted_also_into_a_sparse_image(world: World) -> None:
    run = image_layout(world.layouts.directory / "run", seed=5, layers=2)
    world.registry.repositories.load(run.path, "team/run")
    label = {"runImage": {"reference": f"{world.registry.host}/team/run@{run.manifest}"}}
    labelled(world, run, {LIFECYCLE_METADATA: json.dumps(label)})
    world.publish()
    mounts = [r.path for r in world.registry.requests if "mount=" in r.path]
    assert len(mounts) == 2
    assert len(world.tags) == 1


def labelled(world: World, base: GeneratedImage | None, labels: dict[str, str]) -> None:
    """Put an image with these labels, sparse if upon another one, in the place of the world's."""
    shutil.rmtree(world.layout)
    image = image_layout(world.layout, seed=6, layers=1, base=base, tag="1")
    config = json.loads(image.blob(image.config).read_bytes())
    config["config"]["Labels"] = labels
    described = blob_of(world.layout, config)
    manifest = json.loads(image.blob(image.manifest).read_bytes())
    manifest["config"] |= described
    index = json.loads((world.layout / "index.json").read_bytes())
    index["manifests"][0] |= blob_of(world.layout, manifest)
    (world.layout / "index.json").write_text(json.dumps(index))


def blob_of(layout: Path, document: object) -> dict[str, object]:
    raw = json.dumps(document).encode()
    digest = Digest.of(raw)
    (layout / "blobs" / "sha256" / digest.encoded).write_bytes(raw)
    return {"digest": str(digest), "size": len(raw)}
