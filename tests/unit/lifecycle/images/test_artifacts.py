import json
import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.artifacts import declarations
from ocistow.lifecycle.files.document import parse_toml
from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.images.artifacts import (
    Artifact,
    ArtifactSource,
    attach,
    check_names,
    collect,
)
from ocistow.lifecycle.images.image import Target
from ocistow.lifecycle.targets.daemon import DaemonTarget
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.descriptor import OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.oci.platform import Platform
from ocistow.publish.attached import find_attached
from ocistow.publish.layout import LayoutSource
from ocistow.publish.referrer import fallback_tag
from ocistow.publish.source import read_document
from ocistow.store.reading import open_inside
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk
from ocistow.testing.images import image_layout
from ocistow.testing.registry import Registry
from ocistow.testing.tables import texts_like

AMD64 = Platform.parse("linux/amd64")
BUILDPACK = GroupElement("samples/extra", "1")
WASM = """\
[[artifact]]
tag = "wasm"
file = "program.wasm"

[[artifact.labels]]
ConfigMediaType = "application/vnd.wasm.config.v1+json"
ContentLayerMediaType = "application/vnd.wasm.content.layer.v1+wasm"
"org.example.by" = "<us>"
"""
APP = "example.com/team/app:v1"


def declare(layers: Path, text: str, layer: str = "extra", **files: str) -> Path:
    directory = layers / "samples_extra" / layer
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "artifacts.toml").write_text(text)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)
    return directory


def entry(tag: str = "t", file: str = "f", **labels: str) -> str:
    text = f"[[artifact]]\ntag = {json.dumps(tag)}\nfile = {json.dumps(file)}\n"
    said = "\n".join(f"{key} = {json.dumps(value)}" for key, value in labels.items())
    return f"{text}[[artifact.labels]]\n{said}\n" if labels else text


def collected(layers: Path, *references: str) -> tuple[Artifact, ...]:
    return collect(layers, [BUILDPACK], references or [APP])


def test_the_drafts_example_is_an_artifact(tmp_path: Path) -> None:
    declare(tmp_path, WASM, program__wasm="\0asm")
    [artifact] = collected(tmp_path)
    subject = Descriptor(OCI_MANIFEST, Digest.of(b"image"), 5)
    source = ArtifactSource(artifact, subject)
    assert json.loads(read_document(source, source.resolve())) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.wasm.config.v1+json",
            "digest": str(Digest.of(b"{}")),
            "size": 2,
        },
        "layers": [
            {
                "mediaType": "application/vnd.wasm.content.layer.v1+wasm",
                "digest": str(Digest.of(b"\0asm")),
                "size": 4,
                "annotations": {"org.opencontainers.image.title": "program.wasm"},
            }
        ],
        "subject": subject.to_document(),
        "annotations": {"org.example.by": "<us>"},
    }
    assert read_document(source, Descriptor("config", Digest.of(b"{}"), 2)) == b"{}"


@pytest.mark.parametrize(
    ("labels", "config", "kind"),
    [
        ({}, "application/vnd.oci.empty.v1+json", "application/vnd.unknown.artifact.v1"),
        ({"ContentLayerMediaType": "text/x"}, "application/vnd.oci.empty.v1+json", "text/x"),
        ({"ConfigMediaType": "text/c"}, "text/c", None),
    ],
)
def test_what_has_no_config_has_a_type(
    tmp_path: Path, labels: dict[str, str], config: str, kind: str | None
) -> None:
    declare(tmp_path, entry(**labels), f="x")
    [artifact] = collected(tmp_path)
    source = ArtifactSource(artifact, Descriptor(OCI_MANIFEST, Digest.of(b"image"), 5))
    manifest = json.loads(read_document(source, source.resolve()))
    assert manifest["config"]["mediaType"] == config
    assert manifest.get("artifactType") == kind
    assert source.resolve().given == {"artifactType": kind or config}


def test_a_file_may_lie_in_the_layer_or_beside_it(tmp_path: Path) -> None:
    layer = declare(tmp_path, entry("a", "in") + entry("b", "beside") + entry("c", "x/deep"))
    (layer / "in").write_text("1")
    (layer.parent / "beside").write_text("2")
    (layer.parent / "x").mkdir()
    (layer.parent / "x" / "deep").write_text("3")
    found = {each.tag: each.file for each in collected(tmp_path)}
    assert found == {
        "a": layer / "in",
        "b": layer.parent / "beside",
        "c": layer.parent / "x" / "deep",
    }


def test_a_link_inside_is_followed(tmp_path: Path) -> None:
    layer = declare(tmp_path, entry(), real="x")
    (layer / "f").symlink_to("real")
    [artifact] = collected(tmp_path)
    assert artifact.content.digest == Digest.of(b"x")


def test_layers_that_are_none_declare_nothing(tmp_path: Path) -> None:
    declare(tmp_path, entry(), layer="gone.ignore", f="x")
    (tmp_path / "samples_extra" / "linked").symlink_to("gone.ignore")
    assert collected(tmp_path) == ()
    assert collected(tmp_path / "absent") == ()


def test_files_that_may_not_be_taken_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    layers = tmp_path / "layers"
    layer = declare(layers, "")
    (layer / "out").symlink_to(tmp_path / "secret")
    (layer / "up").symlink_to("../../../secret")
    (layer / "nowhere").symlink_to("absent")
    (layer / "device").symlink_to("/dev/zero")
    (layer / "directory").mkdir()
    os.mkfifo(layer / "fifo")
    (layer / "sub").symlink_to(tmp_path)
    for file, why in {
        "": "no path below the layers directory",
        ".": "no path below the layers directory",
        str(tmp_path / "secret"): "no path below the layers directory",
        "../../../secret": "no path below the layers directory",
        "a/../f": "no path below the layers directory",
        "absent": "absent is absent",
        "nowhere": "is a link to nothing",
        "out": "out leads out of ",
        "up": "up leads out of ",
        "sub/secret": "secret leads out of ",
        "device": "device leads out of ",
        "directory": "directory is not a regular file",
        "fifo": "fifo is not a regular file",
    }.items():
        (layer / "artifacts.toml").write_text(entry("wasm", file))
        with pytest.raises(InvalidContent, match=why) as refused:
            collected(layers)
        assert f"artifact 'wasm' of {layer}/artifacts.toml" in str(refused.value)


def test_a_declaration_may_not_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "artifacts.toml").write_text(entry())
    layer = tmp_path / "layers" / "samples_extra" / "a"
    layer.mkdir(parents=True)
    (layer / "artifacts.toml").symlink_to(tmp_path / "artifacts.toml")
    with pytest.raises(InvalidContent, match="leads out of"):
        collected(tmp_path / "layers")


def test_a_file_that_could_be_two_is_refused(tmp_path: Path) -> None:
    layer = declare(tmp_path, entry(), f="x")
    (layer.parent / "f").write_text("y")
    with pytest.raises(InvalidContent, match=f"f may be {layer.parent}/f or {layer}/f"):
        collected(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (entry(""), "the tag is not"),
        (entry("a/b"), "the tag is not"),
        (entry("a:b"), "the tag is not"),
        (entry("-a"), "the tag is not"),
        (entry("a" * 129), "the tag is not"),
        (entry(f"sha256-{'0' * 64}"), "that of a list of referrers"),
        (entry(f"sha256-{'0' * 64}.sig"), "that of a list of referrers"),
        (entry(ConfigMediaType="x"), "'x' is no media type"),
        (entry(ContentLayerMediaType="a/b; c=d"), "is no media type"),
        (entry(ConfigMediaType="application/vnd.oci.image.config.v1+json"), "config of an image"),
        (entry(a="1") + "[[artifact.labels]]\na = '2'\n", "two values for 'a'"),
        ("artifact = 1", "is not an array"),
        ("[[artifact]]\ntag = 1", "tag of artifact 1 of .* is not a string"),
        ("[[artifact]]\nlabels = [{a = 1}]", "a of labels of artifact 1 of .* is not a string"),
        ("[[artifact]", "is not TOML: .*line 1"),
    ],
)
def test_other_declarations_are_refused(tmp_path: Path, text: str, why: str) -> None:
    declare(tmp_path, text, f="x")
    with pytest.raises(InvalidContent, match=why):
        collected(tmp_path)


def test_two_artifacts_cannot_have_one_tag(tmp_path: Path) -> None:
    first = declare(tmp_path, entry("same"), layer="a", f="x")
    second = declare(tmp_path, entry("same"), layer="b", f="x")
    with pytest.raises(InvalidContent, match="claims the tag that") as refused:
        collected(tmp_path)
    assert str(first / "artifacts.toml") in str(refused.value)
    assert str(second / "artifacts.toml") in str(refused.value)
    assert str(first / "f") in str(refused.value)
    assert str(second / "f") in str(refused.value)


def test_an_artifact_cannot_have_a_tag_of_the_image(tmp_path: Path) -> None:
    layer = declare(tmp_path, entry("latest"), f="x")
    other = "example.com/team/app"
    with pytest.raises(InvalidContent, match=f"{layer}/artifacts.toml claims .* image {other}"):
        collected(tmp_path, APP, other)
    [artifact] = collected(tmp_path, APP, "example.com/team/other")
    assert artifact.tag == "latest"


@pytest.fixture(params=["plain", "store"])
def layouts(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[LayoutTarget]:
    with ExitStack() as stack:
        if request.param == "store":
            store = stack.enter_context(Store.create(tmp_path / "store", QuickDisk()))
            yield LayoutTarget(store.layouts, store=store, platform=AMD64)
        else:
            yield LayoutTarget(tmp_path / "oci", platform=AMD64, disk=QuickDisk())


def saved(tmp_path: Path, target: Target, reference: str, seed: int = 0) -> Digest:
    image = image_layout(tmp_path / f"image-{seed}", seed=seed)
    target.save(LayoutSource(image.path), [reference])
    return image.manifest


def test_a_layout_has_them_by_tag_and_among_the_referrers(
    tmp_path: Path, layouts: LayoutTarget
) -> None:
    subject = saved(tmp_path, layouts, APP)
    layers = tmp_path / "layers"
    declare(layers, WASM + entry("report", "f"), f="<testsuite/>", program__wasm="\0asm")
    out = BytesIO()
    attach(collected(layers), APP, layouts, Console(out))
    repository = layouts.directory / "example.com/team/app"
    names = {"v1", "wasm", "report", fallback_tag(subject)}
    assert set(os.listdir(repository)) == names
    found = find_attached([subject], repository / "v1", repository)
    assert [one.tag for one in found.tagged] == ["report", "wasm"]
    for one in found.tagged:
        source = LayoutSource(repository / one.tag)
        assert source.resolve().digest == one.what.root.digest
        manifest = json.loads(read_document(source, source.resolve()))
        [layer] = manifest["layers"]
        content = read_document(source, Descriptor.from_document(layer, "layer"))
        assert content == {"wasm": b"\0asm", "report": b"<testsuite/>"}[one.tag]
        assert manifest["subject"]["digest"] == str(subject)
    assert f"Adding artifact 'wasm': {found.tagged[1].what.root.digest}" in out.getvalue().decode()


def test_building_again_changes_what_changed(tmp_path: Path, layouts: LayoutTarget) -> None:
    subject = saved(tmp_path, layouts, APP)
    layers = tmp_path / "layers"
    for content in ("one", "two", "two"):
        declare(layers, entry("a", "f") + entry("b", "g"), f=content, g="same")
        attached = attach(collected(layers), APP, layouts, Console(BytesIO()))
    declare(layers, entry("c", "f"), f="three")
    attach(collected(layers), APP, layouts, Console(BytesIO()))
    repository = layouts.directory / "example.com/team/app"
    found = find_attached([subject], repository / "v1", repository)
    assert [one.tag for one in found.tagged] == ["a", "b", "c"]
    kept = {one.what.root.digest for one in attached.tagged}
    assert kept == {one.what.root.digest for one in found.tagged[:2]}
    assert len(found.referrers[subject]) == 3


@pytest.mark.parametrize("lists", [True, False])
def test_a_registry_has_them_by_tag_and_among_the_referrers(tmp_path: Path, lists: bool) -> None:
    with Registry() as registry:
        registry.repositories.lists = lists
        target = RegistryTarget({"HOME": str(tmp_path)})
        app = f"{registry.host}/team/app:v1"
        subject = saved(tmp_path, target, app)
        declare(tmp_path / "layers", WASM, program__wasm="\0asm")
        attached = attach(collected(tmp_path / "layers", app), app, target, Console(BytesIO()))
        tags = registry.repositories.tags("team/app")
        assert tags["wasm"] == attached.tagged[0].what.root.digest
        assert (fallback_tag(subject) in tags) is not lists


def test_a_daemon_keeps_none(tmp_path: Path) -> None:
    declare(tmp_path, WASM, program__wasm="\0asm")
    out = BytesIO()
    target = DaemonTarget.__new__(DaemonTarget)  # nothing is asked of it
    assert attach(collected(tmp_path), APP, target, Console(out)).tagged == ()
    check_names(collected(tmp_path), APP, target)
    assert "Artifacts are left out, a daemon keeps none: wasm" in out.getvalue().decode()


def test_the_name_of_another_image_is_not_taken(tmp_path: Path, layouts: LayoutTarget) -> None:
    saved(tmp_path, layouts, "example.com/team/app:other", seed=1)
    saved(tmp_path, layouts, APP)
    declare(tmp_path / "layers", entry("other") + entry("mine", "f"), f="x")
    artifacts = collected(tmp_path / "layers")
    with pytest.raises(InvalidContent, match=r"'other' of .* claims the name of the image"):
        check_names(artifacts, APP, layouts)
    attach(artifacts[1:], APP, layouts, Console(BytesIO()))
    check_names(artifacts[1:], APP, layouts)  # an artifact can be replaced


def test_a_file_that_changed_meanwhile_is_noticed(tmp_path: Path, layouts: LayoutTarget) -> None:
    saved(tmp_path, layouts, APP)
    layer = declare(tmp_path / "layers", entry(), f="before")
    artifacts = collected(tmp_path / "layers")
    (layer / "f").write_text("since!")
    with pytest.raises(InvalidContent, match="digest"):
        attach(artifacts, APP, layouts, Console(BytesIO()))


@given(texts_like(["artifact", "tag", "file", "labels", "ConfigMediaType"]))
def test_any_file_is_read_or_refused(raw: bytes) -> None:
    with suppress(InvalidContent):
        declarations(parse_toml(raw, "it"), "it")


def test_a_file_inside_that_cannot_be_read_is_named() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "file").touch(mode=0)
        os.seteuid(user or 65534)  # root may read it
        try:
            with pytest.raises(PermissionError) as caught:
                open_inside(directory / "file", directory)
        finally:
            os.seteuid(user)
    assert caught.value.filename == str(directory / "file")
