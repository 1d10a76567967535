import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.export import export
from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ocistow.lifecycle.files.metadata import BillEntry
from ocistow.lifecycle.files.report import read_report
from ocistow.lifecycle.images.image import Image, Saved
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Code
from ocistow.lifecycle.targets.layout import open_layouts
from ocistow.oci.descriptor import (
    DOCKER_MANIFEST,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from ocistow.oci.errors import PhaseFailed
from ocistow.testing.builds import Build, build
from ocistow.testing.images import (
    GeneratedImage,
    Media,
    image_layout,
    index_layout,
    sparse_layout,
)

RUN = "example.com/run/latest"
APP = "example.com/app"


@dataclass(frozen=True, slots=True)
class Workplace:
    """A build, and a directory of layouts that has its run image."""

    build: Build
    layouts: Path
    run_image: GeneratedImage

    def inputs(self, api: str = "0.15") -> Inputs:
        return self.build.inputs(APP, api)

    def export(self, inputs: Inputs | None = None, said: list[str] | None = None) -> Saved:
        out = io.BytesIO()
        try:
            with open_layouts(self.layouts) as target:
                return export(inputs or self.inputs(), target, Console(out))
        finally:
            if said is not None:
                said += out.getvalue().decode().splitlines()

    def fails(self, inputs: Inputs | None = None) -> PhaseFailed:
        with pytest.raises(PhaseFailed) as failed:
            self.export(inputs)
        return failed.value

    def image(self, reference: str = APP) -> Image:
        with open_layouts(self.layouts) as target, target.find(reference) as image:
            assert image is not None
            return image

    def again(self, reference: str = APP) -> None:
        """Write analyzed.toml as the analyzer does that finds an image of this name."""
        image = self.image(reference)
        label = LifecycleMetadata.parse(image.config.labels[LIFECYCLE_METADATA].encode())
        self.build.analyzed(self.run_reference, image.identifier, label)

    @property
    def run_reference(self) -> str:
        return f"{self.run_image.path}@{self.run_image.manifest}"

    def files(self) -> dict[str, int]:
        """Return every file below the layouts, with its inode."""
        paths = (path for path in self.layouts.rglob("*") if not path.is_dir())
        return {str(path.relative_to(self.layouts)): path.stat().st_ino for path in paths}


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    layouts = tmp_path / "oci"
    made = build(tmp_path / "build")
    run = image_layout(layouts / RUN, layers=2)
    there = Workplace(made, layouts, run)
    made.analyzed(there.run_reference)
    return there


def test_the_image_stands_upon_its_run_image(workplace: Workplace) -> None:
    saved = workplace.export()
    image = workplace.image()
    assert image.root.digest == saved.digest
    assert image.config.diff_ids[:2] == workplace.run_image.diff_ids
    assert len(image.layers) == 2 + 10
    label = LifecycleMetadata.parse(image.config.labels[LIFECYCLE_METADATA].encode())
    assert label.run_image.top_layer == str(workplace.run_image.diff_ids[-1])
    assert label.run_image.reference == workplace.run_reference
    assert label.run_image.image == "example.com/run"
    assert label.config == str(image.config.diff_ids[-2])


def test_the_report_tells_names_digest_and_run_image(workplace: Workplace) -> None:
    saved = workplace.export(
        replace(workplace.inputs(), tags=(f"{APP}:v1", "example.com/other/name:x"))
    )
    directories = [f"{APP}/latest", f"{APP}/v1", "example.com/other/name/x"]
    report = read_report(workplace.build.report)
    assert report.tags == tuple(str(workplace.layouts / name) for name in directories)
    assert report.digest == saved.digest
    assert report.manifest_size == workplace.image().root.size
    assert report.run_image is not None
    assert report.run_image.reference == workplace.run_reference
    for name in directories:
        assert workplace.image(str(workplace.layouts / name)).root.digest == saved.digest


@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_history_is_told_from_0_12_on(workplace: Workplace, api: str) -> None:
    workplace.export(workplace.inputs(api))
    history = [entry.created_by for entry in workplace.image().config.history]
    assert len(history) == 12
    assert history[-1] == ("Buildpacks Process Types" if api == "0.12" else "")


@pytest.mark.parametrize(("api", "year"), [("0.8", "1980"), ("0.9", "2001")])
def test_a_source_date_is_taken_from_0_9_on(workplace: Workplace, api: str, year: str) -> None:
    workplace.export(replace(workplace.inputs(api), source_date_epoch=1_000_000_000))
    assert workplace.image().config.created.startswith(year)


def test_the_same_build_is_the_same_image(workplace: Workplace) -> None:
    first = workplace.export()
    layouts = workplace.files()
    for jobs, turned in ((1, False), (3, True)):
        shutil.rmtree(workplace.layouts / APP)
        if turned:
            turn(workplace.build.root)
        assert workplace.export(replace(workplace.inputs(), jobs=jobs, parallel=turned)) == first
    assert workplace.files().keys() == layouts.keys()


def turn(directory: Path) -> None:
    """Make every file of a tree anew, the last ones first."""
    old = directory.with_name("turned")
    directory.rename(old)

    def again(path: Path, new: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            new.mkdir()
            for entry in sorted(path.iterdir(), reverse=True):
                again(entry, new / entry.name)
            shutil.copystat(path, new)
        else:
            shutil.copy2(path, new, follow_symlinks=False)

    again(old, directory)
    shutil.rmtree(old)


@pytest.mark.parametrize(("api", "told"), [("0.8", True), ("0.9", False)])
def test_bills_of_materials_are_told_before_0_9(workplace: Workplace, api: str, told: bool) -> None:
    bill = '[[bom]]\nname = "thing"\n[bom.metadata]\nversion = "1"\n'
    (workplace.build.layers / "samples_one" / "build.toml").write_text(bill)
    workplace.export(workplace.inputs(api))
    buildpack = GroupElement("samples/one", "0.0.1")
    expected = BillEntry("thing", metadata={"version": "1"}, buildpack=buildpack)
    assert read_report(workplace.build.report).bill == ((expected,) if told else ())


def test_an_unchanged_build_writes_no_layer(workplace: Workplace) -> None:
    first, said = workplace.export(), list[str]()
    workplace.again()
    before = workplace.files()
    assert workplace.export(said=said) == first
    assert workplace.files().keys() == before.keys()
    blobs = {name for name in before if "/blobs/" in name}
    assert {n: workplace.files()[n] for n in blobs} == {n: before[n] for n in blobs}
    assert not [line for line in said if line.startswith("Adding layer")]
    assert [line for line in said if line.startswith("Reusing layer '")] == [
        f"Reusing layer '{name}'"
        for name in (
            "samples/one:all-types",
            "samples/one:launched",
            "two:only",
            "buildpacksio/lifecycle:launch.sbom",
            "buildpacksio/lifecycle:launcher",
            "buildpacksio/lifecycle:config",
            "buildpacksio/lifecycle:process-types",
        )
    ]
    assert "Reused 3/3 app layer(s)" in said
    assert not any("Added" in line for line in said)


def test_what_changed_is_added(workplace: Workplace) -> None:
    workplace.export()
    workplace.again()
    before = workplace.image()
    (workplace.build.app / "static" / "style.css").write_text("b {}")
    (workplace.build.layers / "two" / "only" / "bin" / "tool").write_text("#!/bin/bash\n")
    said: list[str] = []
    workplace.export(said=said)
    assert "Adding layer 'two:only'" in said
    assert "Reusing layer 'samples/one:launched'" in said
    assert "Reused 2/3 app layer(s)" in said
    assert "Added 1/3 app layer(s)" in said
    assert len(set(workplace.image().layers) - set(before.layers)) == 2


def test_a_layer_that_was_removed_is_gone(workplace: Workplace) -> None:
    workplace.export()
    workplace.again()
    before = workplace.image()
    shutil.rmtree(workplace.build.layers / "two")
    workplace.export()
    assert len(before.layers) - len(workplace.image().layers) == 1


def test_a_layer_without_content_comes_from_the_previous_image(workplace: Workplace) -> None:
    first = workplace.export()
    workplace.again()
    shutil.rmtree(workplace.build.layers / "samples_one" / "launched")
    assert workplace.export() == first


def test_a_layer_that_the_previous_image_lost_is_added(workplace: Workplace) -> None:
    first = workplace.export()
    workplace.again()
    lost = workplace.image().layers[3].blob.digest
    (workplace.layouts / APP / "latest" / "blobs" / "sha256" / lost.encoded).unlink()
    said: list[str] = []
    assert workplace.export(said=said) == first
    assert any("has lost layer 'samples/one:launched'" in line for line in said)


def test_a_previous_image_that_is_gone_lends_nothing(workplace: Workplace) -> None:
    first = workplace.export()
    workplace.again()
    shutil.rmtree(workplace.layouts / APP)
    assert workplace.export() == first


def test_a_previous_image_that_was_replaced_lends_nothing(workplace: Workplace) -> None:
    first = workplace.export()
    workplace.again()
    shutil.rmtree(workplace.layouts / APP)
    image_layout(workplace.layouts / APP / "latest", seed=7)
    said: list[str] = []
    assert workplace.export(said=said) == first
    assert any("cannot be reused" in line for line in said)


def test_a_previous_image_that_lies_elsewhere_lends_nothing(workplace: Workplace) -> None:
    first = workplace.export()
    identifier = f"/elsewhere/app@{first.digest}"
    workplace.build.analyzed(workplace.run_reference, identifier)
    said: list[str] = []
    assert workplace.export(said=said) == first
    assert any("cannot be reused" in line for line in said)


def test_layers_that_a_sparse_run_image_lacks_stay_absent(workplace: Workplace) -> None:
    path = workplace.layouts / "example.com" / "sparse" / "latest"
    run = sparse_layout(path)
    workplace.build.analyzed(f"{path}@{run.manifest}")
    workplace.export()
    image = workplace.image()
    blobs = workplace.layouts / APP / "latest" / "blobs" / "sha256"
    there = [(blobs / layer.blob.digest.encoded).exists() for layer in image.layers]
    assert there == [False, False, *[True] * (len(there) - 2)]


@pytest.mark.parametrize("parallel", [False, True])
def test_the_cache_is_written_too(workplace: Workplace, tmp_path: Path, parallel: bool) -> None:
    (cache := tmp_path / "cache").mkdir()
    workplace.export(replace(workplace.inputs(), cache_dir=cache, parallel=parallel))
    metadata = cache / "committed" / "io.buildpacks.lifecycle.cache.metadata"
    document = json.loads(metadata.read_text())
    kept = {b["key"]: list(b["layers"]) for b in document["buildpacks"]}
    assert kept == {"samples/one": ["all-types", "cached"], "two": []}
    assert len(list((cache / "committed").glob("sha256:*.tar"))) == 3


@pytest.mark.parametrize("parallel", [False, True])
def test_the_cache_stays_when_the_image_fails(
    workplace: Workplace, tmp_path: Path, parallel: bool
) -> None:
    (cache := tmp_path / "cache").mkdir()
    inputs = replace(workplace.inputs(), cache_dir=cache, parallel=parallel)
    workplace.export(inputs)
    before = {path: path.stat().st_ino for path in cache.rglob("*")}
    (workplace.build.layers / "samples_one" / "cached" / "new").write_text("another layer")
    workplace.run_image.blob(workplace.run_image.layers[0]).write_bytes(b"damaged")
    shutil.rmtree(workplace.layouts / APP)
    workplace.fails(inputs)
    assert {path: path.stat().st_ino for path in cache.rglob("*")} == before


def test_a_cache_that_cannot_be_written_is_told(workplace: Workplace, tmp_path: Path) -> None:
    (cache := tmp_path / "cache").mkdir()
    (cache / "staging").write_text("in the way")
    said: list[str] = []
    workplace.export(replace(workplace.inputs(), cache_dir=cache), said)
    assert any("Failed to export cache: " in line for line in said)
    assert read_report(workplace.build.report).tags


def change_nothing(made: Build) -> None: ...


def test_a_run_image_for_several_platforms_is_chosen_from(workplace: Workplace) -> None:
    path = workplace.layouts / "example.com" / "many" / "latest"
    index = index_layout(path, platforms=(("linux", "amd64"), ("linux", "arm64")))
    (own,) = (each for each in index.images if each.diff_ids == here(path).config.diff_ids)
    workplace.build.analyzed(f"{path}@{own.manifest}")
    workplace.export()
    assert workplace.image().config.diff_ids[:2] == own.diff_ids
    assert workplace.image().config.architecture == here(path).config.architecture


def here(path: Path) -> Image:
    """Return the image of a layout that runs on this machine."""
    with open_layouts(path.parents[2]) as target, target.find(str(path)) as image:
        assert image is not None
        return image


@pytest.mark.parametrize(
    ("media", "manifest", "layer"),
    [
        ("oci", OCI_MANIFEST, "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("docker", DOCKER_MANIFEST, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ],
)
def test_all_media_types_are_of_the_family_of_the_run_image(
    workplace: Workplace, media: Media, manifest: str, layer: str
) -> None:
    path = workplace.layouts / "example.com" / media / "latest"
    run = image_layout(path, media=media)
    workplace.build.analyzed(f"{path}@{run.manifest}")
    workplace.export()
    image = workplace.image()
    assert image.root.media_type == manifest
    assert {each.blob.media_type for each in image.layers} == {layer}


def test_layers_stay_as_they_are_compressed_or_become_so(workplace: Workplace) -> None:
    workplace.export(replace(workplace.inputs(), compression="zstd"))
    kinds = [layer.blob.media_type.rpartition("+")[2] for layer in workplace.image().layers]
    assert kinds == ["gzip"] * 2 + ["zstd"] * 10


def test_layers_in_zstd_make_an_oci_image_upon_one_of_docker(workplace: Workplace) -> None:
    path = workplace.layouts / "example.com" / "docker" / "latest"
    run = image_layout(path, media="docker")
    workplace.build.analyzed(f"{path}@{run.manifest}")
    plain = workplace.export()
    shutil.rmtree(workplace.layouts / APP)
    for compression in ("zstd", "gzip"):  # the second has the layers of the first
        saved = workplace.export(replace(workplace.inputs(), compression=compression))
        assert saved.image_id == plain.image_id
        image = workplace.image()
        assert image.root.media_type == OCI_MANIFEST
        kinds = [layer.blob.media_type for layer in image.layers]
        assert kinds == [OCI_LAYER_GZIP] * 3 + [OCI_LAYER_ZSTD] * 10
        workplace.build.analyzed(f"{path}@{run.manifest}", image.identifier, label_of(image))


def label_of(image: Image) -> LifecycleMetadata:
    return LifecycleMetadata.parse(image.config.labels[LIFECYCLE_METADATA].encode())


def test_everybody_can_read_what_the_image_consists_of(workplace: Workplace) -> None:
    old = os.umask(0o077)
    try:
        workplace.export()
    finally:
        os.umask(old)
    files = [path for path in (workplace.layouts / APP).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_blobs_of_the_image_before_go_with_it(workplace: Workplace) -> None:
    workplace.export()
    (workplace.build.app / "rest" / "of" / "it").write_text("other")
    saved = workplace.export()
    image = workplace.image()
    document = json.loads(
        (blobs := workplace.layouts / APP / "latest" / "blobs" / "sha256")
        .joinpath(image.root.digest.encoded)
        .read_bytes()
    )
    needed = {image.root.digest, *(layer.blob.digest for layer in image.layers)}
    assert {path.name for path in blobs.iterdir()} == {
        *(digest.encoded for digest in needed),
        document["config"]["digest"].removeprefix("sha256:"),
    }
    assert saved.digest == image.root.digest


def test_no_layer_of_the_run_image_is_inflated(workplace: Workplace) -> None:
    for digest in workplace.run_image.layers:
        blob = workplace.run_image.blob(digest)
        raw = blob.read_bytes()
        blob.unlink()
        blob.write_bytes(b"\0" * len(raw))  # no gzip stream at all
    failed = workplace.fails()
    assert "content has digest" in failed.message  # it is copied, checked, and not inflated


ARTIFACT = '[[artifact]]\ntag = "{tag}"\nfile = "launched/bin/program"\n'


def declare(tag: str) -> Callable[[Build], None]:
    return write("layers/samples_one/launched/artifacts.toml", ARTIFACT.format(tag=tag))


def test_what_buildpacks_want_beside_the_image_is_there(workplace: Workplace) -> None:
    declare("chart")(workplace.build)
    said: list[str] = []
    saved = workplace.export(said=said)
    assert any(line.startswith("Adding artifact 'chart': sha256:") for line in said)
    assert workplace.image().root.digest == saved.digest
    assert (workplace.layouts / APP / "chart" / "index.json").exists()


def remove(*names: str) -> Callable[[Build], None]:
    def change(made: Build) -> None:
        (made.root.joinpath(*names)).unlink()

    return change


def write(name: str, content: str) -> Callable[[Build], None]:
    def change(made: Build) -> None:
        (made.root / name).write_text(content)

    return change


@pytest.mark.parametrize(
    ("change", "process_type", "code", "message"),
    [
        (remove("layers", "group.toml"), "", Code.FAILED, "failed to read group file: "),
        (
            write("layers/group.toml", '[[group]]\nid = "x"\nversion = "1"\napi = "0.99"\n'),
            "",
            Code.BUILDPACK_API,
            "failed to set API for Buildpack 'x@1': "
            "buildpack API version '0.99' is incompatible with the lifecycle",
        ),
        (
            write("layers/group.toml", '[[group-extensions]]\nid = "x"\nversion = "1"\n'),
            "",
            Code.EXPORT,
            "failed to export: "
            "detected order contains extensions which is not supported by the exporter",
        ),
        (
            write("layers/project-metadata.toml", "["),
            "",
            Code.FAILED,
            "failed to read project metadata file: ",
        ),
        (
            remove("layers", "config", "metadata.toml"),
            "",
            Code.EXPORT,
            "failed to export: read build metadata: failed to read build metadata file: ",
        ),
        (
            write("layers/samples_one/store.toml", "["),
            "",
            Code.EXPORT,
            "failed to export: reading layers for buildpack 'samples/one': "
            'failed decoding store.toml for buildpack "samples/one": ',
        ),
        (
            write("layers/two/only.toml", "launch = true"),
            "",
            Code.EXPORT,
            "failed to export: failed to parse metadata for layers '[two:only]'",
        ),
        (
            remove("launcher"),
            "",
            Code.EXPORT,
            "failed to export: creating launcher layers: failed to stat launcher at path '",
        ),
        (
            write("layers/config/metadata.toml", '[[slices]]\npaths = ["["]\n'),
            "",
            Code.EXPORT,
            "failed to export: exporting app layers: creating app layers: failed to check if '",
        ),
        (
            write("layers/analyzed.toml", ""),
            "",
            Code.EXPORT,
            "failed to export: run image not found in analyzed metadata",
        ),
        (
            declare("latest"),
            "",
            Code.ARTIFACTS,
            "failed to export artifacts: artifact 'latest' of ",
        ),
        (
            change_nothing,
            "cron",
            Code.EXPORT,
            "failed to export: determining entrypoint: "
            "tried to set cron to default but it doesn't exist",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(
    workplace: Workplace,
    change: Callable[[Build], None],
    process_type: str,
    code: Code,
    message: str,
) -> None:
    before = workplace.files()
    change(workplace.build)
    failed = workplace.fails(replace(workplace.inputs(), process_type=process_type))
    assert (failed.code, failed.message[: len(message)]) == (code, message)
    assert workplace.files() == before
    assert not (workplace.layouts / APP).exists()
    assert not workplace.build.report.exists()


def test_a_run_image_that_is_gone_is_named(workplace: Workplace) -> None:
    shutil.rmtree(workplace.run_image.path)
    failed = workplace.fails()
    assert failed.code == Code.EXPORT
    expected = f"failed to export: access run image: {workplace.run_image.path} was not found"
    assert failed.message == expected


def test_a_run_image_without_layers_is_refused(workplace: Workplace) -> None:
    path = workplace.layouts / "example.com" / "empty" / "latest"
    run = image_layout(path, layers=0)
    workplace.build.analyzed(f"{path}@{run.manifest}")
    expected = "failed to export: get run image top layer SHA: image has no layers"
    assert workplace.fails().message == expected


def test_a_name_that_cannot_be_given_fails_the_export(workplace: Workplace) -> None:
    (workplace.layouts / "example.com" / "taken").write_text("no directory")
    failed = workplace.fails(replace(workplace.inputs(), tags=("example.com/taken:x",)))
    assert failed.code == Code.EXPORT
    assert failed.message.startswith(
        "failed to export: failed to write image to the following tags: "
        f"[{workplace.layouts}/example.com/taken/x: "
    )
    assert workplace.image().layers
    assert not workplace.build.report.exists()


def test_a_failed_export_keeps_the_image_of_before(workplace: Workplace) -> None:
    first = workplace.export()
    before = workplace.files()
    workplace.build.report.unlink()
    write("layers/two/only.toml", "launch = true")(workplace.build)
    workplace.fails()
    assert workplace.files() == before
    assert workplace.image().root.digest == first.digest
