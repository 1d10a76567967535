"""From a layout that an exporter left to a registry and a daemon, read back by other programs."""

import json
import subprocess
import tomllib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.publish import DAEMON_REPORT, publish
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.store.annotations import annotate
from ocistow.store.store import Store
from ocistow.testing.images import (
    GeneratedImage,
    artifact_layout,
    busybox_image,
    image_layout,
)

from ..conftest import Dockerd, DockerRegistry, program

SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"


def skopeo(*arguments: str) -> bytes:
    command = [program("skopeo"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def published(inputs: Inputs) -> str:
    out = BytesIO()
    publish(inputs, Console(out, out))
    return out.getvalue().decode()


def inputs_of(directory: Path, layouts: Path, name: str) -> Inputs:
    return Inputs(
        Version(0, 14),
        image=name,
        layers_dir=directory / "layers",
        report_path=directory / "report.toml",
        layout_dir=layouts,
        environ={"HOME": str(directory)},
    )


def exported(store: Store, image: GeneratedImage, name: str) -> Digest:
    """Have an image in the store, and say something about it; return its digest then."""
    reference = Reference.parse(name)
    copy(LayoutSource(image.path), StoreSink(store, reference))
    _, digest = annotate(store, store.layout(reference.path), {"org.example.build": "7"})
    return digest


def signed(tmp_path: Path, store: Store, name: str, digest: Digest) -> tuple[str, Digest]:
    """Sign an image by hand as cosign does, and return the signature's tag."""
    payload = {"critical": {"image": {"docker-manifest-digest": str(digest)}}}
    path = tmp_path / "signature"
    signature = artifact_layout(path, [json.dumps(payload).encode()], kind=SIGNATURE)
    tag = f"sha256-{digest.encoded}.sig"
    where = replace(Reference.parse(name), tag=tag)
    copy(LayoutSource(path), StoreSink(store, where))
    return tag, signature


@pytest.mark.registry
@pytest.mark.tools
def test_what_was_annotated_and_signed_arrives_unchanged(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    repository = f"{docker_registry.host}/published/app"
    name = f"{repository}:1"
    image = image_layout(tmp_path / "layout", seed=61, layers=3, layer_size=100_000)
    with Store.create(tmp_path / "store") as store:
        digest = exported(store, image, name)
        tag, signature = signed(tmp_path, store, name, digest)
        layouts = store.layouts
    index = json.loads((layouts / Reference.parse(name).path / "index.json").read_bytes())
    [entry] = index["manifests"]  # Tekton takes the digest of the only one
    assert entry["digest"] == str(digest)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "1"
    inputs = replace(inputs_of(tmp_path, layouts, name), tags=(f"{repository}:2",))
    inputs = replace(inputs, image_digest_file=tmp_path / "digest", image_refs=tmp_path / "refs")
    said = published(inputs)
    assert f"*** Images ({digest}):\n      {name}\n      {repository}:2\n" in said
    for one in ("1", "2"):
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{repository}:{one}")
        assert Digest.of(raw) == digest
        assert json.loads(raw)["annotations"] == {"org.example.build": "7"}
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{repository}:{tag}")
    assert Digest.of(raw) == signature
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path / 'back'}:1")
    back = json.loads((tmp_path / "back" / "index.json").read_bytes())
    assert back["manifests"][0]["digest"] == str(digest)
    report = tomllib.loads((tmp_path / "report.toml").read_text())
    assert report["image"]["tags"] == [name, f"{repository}:2"]
    assert report["image"]["digest"] == str(digest)
    assert report["published"] == {"digest-in": str(digest), "digest-out": str(digest)}
    assert (tmp_path / "digest").read_text() == str(digest)
    assert (tmp_path / "refs").read_text() == f"{name}@{digest}\n{repository}:2@{digest}\n"


@pytest.mark.registry
@pytest.mark.tools
def test_layouts_of_other_tools_keep_their_signatures_inside(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    repository = f"{docker_registry.host}/published/inside"
    layouts = tmp_path / "oci"
    path = layouts / Reference.parse(f"{repository}:1").path
    path.parent.mkdir(parents=True)
    image = image_layout(path, seed=62, layers=1, tag="1")
    notation = "application/vnd.cncf.notary.signature"
    referrer = artifact_layout(path, [b"envelope"], tag="", kind=notation, subject=image)
    tag = f"sha256-{image.manifest.encoded}.sig"
    signature = artifact_layout(path, [b"cosign"], tag=tag)
    published(inputs_of(tmp_path, layouts, f"{repository}:1"))
    for identifier, digest in ((f":{tag}", signature), (f"@{referrer}", referrer)):
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{repository}{identifier}")
        assert Digest.of(raw) == digest
    listing = f"docker://{repository}:sha256-{image.manifest.encoded}"  # 2.8 keeps no lists itself
    [entry] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", listing))["manifests"]
    assert entry["digest"] == str(referrer)
    assert entry["artifactType"] == notation


@pytest.mark.docker
def test_a_daemon_gets_the_image_and_the_report_what_it_does_not_keep(
    tmp_path: Path, dockerd: Dockerd
) -> None:
    name = "published/app:daemon"
    image = busybox_image(tmp_path / "layout", cmd=("/bin/echo", "published"))
    with Store.create(tmp_path / "store") as store:
        digest = exported(store, image, name)
        tag, signature = signed(tmp_path, store, name, digest)
        layouts = store.layouts
    inputs = inputs_of(tmp_path, layouts, name)
    environ = {"HOME": str(tmp_path), "DOCKER_HOST": dockerd.host}
    inputs = replace(inputs, daemon=True, tags=("published/app:other",), environ=environ)
    inputs = replace(inputs, image_refs=tmp_path / "refs", image_digest_file=tmp_path / "digest")
    said = published(inputs)
    assert f"*** Images ({image.config.encoded[:12]}):" in said
    for one in (name, "published/app:other"):
        assert dockerd.run("run", "--rm", "--network", "none", one) == "published"
    report = tomllib.loads((tmp_path / "report.toml").read_text())
    assert report == {
        "image": {"tags": [name, "published/app:other"], "image-id": image.config.encoded},
        "published": {"digest-in": str(digest)},
    }
    kept = tomllib.loads((tmp_path / "layers" / DAEMON_REPORT).read_text())
    assert kept["image"]["image-id"] == image.config.encoded
    assert "annotations" in kept["image"]["not-kept"]
    assert kept["manifest"]["digest"] == str(digest)
    assert kept["manifest"]["annotations"] == {"org.example.build": "7"}
    assert [layer["digest"] for layer in kept["layers"]] == [str(d) for d in image.layers]
    assert [layer["diff-id"] for layer in kept["layers"]] == [str(d) for d in image.diff_ids]
    assert [(one["digest"], one["tag"]) for one in kept["artifacts"]] == [(str(signature), tag)]
    assert (tmp_path / "refs").read_text() == f"{name}\npublished/app:other\n"
    assert (tmp_path / "digest").read_text() == str(image.config)
