"""What buildpacks declare as artifacts, published to a registry and pulled by other programs."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.group import GroupElement
from ocistow.lifecycle.images.artifacts import attach, check_names, collect
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.publish import publish
from ocistow.lifecycle.targets.layout import open_layouts
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.digest import Digest
from ocistow.publish.layout import LayoutSource
from ocistow.publish.referrer import fallback_tag
from ocistow.publish.source import read_document
from ocistow.store.store import Store
from ocistow.testing.images import image_layout

from ..conftest import DockerRegistry, program

pytestmark = [pytest.mark.registry, pytest.mark.tools]

BUILDPACK = GroupElement("samples/extra", "1")
WASM = """\
[[artifact]]
tag = "wasm"
file = "hello.wasm"

[[artifact.labels]]
ConfigMediaType = "application/vnd.wasm.config.v1+json"
ContentLayerMediaType = "application/vnd.wasm.content.layer.v1+wasm"
"""
CHART = """\
[[artifact]]
tag = "1.2.3"
file = "app-1.2.3.tgz"

[[artifact.labels]]
ConfigMediaType = "application/vnd.cncf.helm.config.v1+json"
ContentLayerMediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
"org.opencontainers.image.title" = "app"
"org.opencontainers.image.version" = "1.2.3"
"""
REPORT = """\
[[artifact]]
tag = "tests"
file = "junit.xml"

[[artifact.labels]]
ContentLayerMediaType = "application/vnd.junit.report.v1+xml"
"org.example.failures" = "0"
"""
PULL = """\
import sys
import oras.client
host, target, directory = sys.argv[1:]
oras.client.OrasClient(hostname=host, insecure=True).pull(target=target, outdir=directory)
"""


def chart() -> bytes:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        text = b"apiVersion: v2\nname: app\nversion: 1.2.3\n"
        entry = tarfile.TarInfo("app/Chart.yaml")
        entry.size = len(text)
        tar.addfile(entry, BytesIO(text))
    return content.getvalue()


def declared(layers: Path) -> dict[str, tuple[str, bytes]]:
    """Leave what three layers of a buildpack would; return file and content of each tag."""
    artifacts = {
        "wasm": (WASM, "hello.wasm", b"\0asm\x01\0\0\0"),
        "1.2.3": (CHART, "app-1.2.3.tgz", chart()),
        "tests": (REPORT, "junit.xml", b'<testsuite tests="1" failures="0"/>'),
    }
    for name, (text, file, content) in artifacts.items():
        layer = layers / "samples_extra" / name
        layer.mkdir(parents=True)
        (layer / "artifacts.toml").write_text(text)
        (layer / file).write_bytes(content)
    return {tag: (file, content) for tag, (_, file, content) in artifacts.items()}


def pulled_with_oras(host: str, target: str, directory: Path) -> None:
    command = [sys.executable, "-c", PULL, host, target, str(directory)]
    subprocess.run(command, check=True, timeout=60)


def pulled_with_skopeo(target: str, directory: Path) -> Path:
    command = [program("skopeo"), "copy", "--src-tls-verify=false"]
    subprocess.run([*command, f"docker://{target}", f"oci:{directory}"], check=True, timeout=60)
    return directory


def check(
    tmp_path: Path, image: str, subject: Digest, expected: Mapping[str, tuple[str, bytes]]
) -> None:
    """See that two clients get what was declared, and find it by the image."""
    repository = image.rpartition(":")[0]
    kinds: dict[str, str] = {}
    for tag, (file, content) in expected.items():
        target = f"{repository}:{tag}"
        pulled_with_oras(target.partition("/")[0], target, tmp_path / "oras")
        assert (tmp_path / "oras" / file).read_bytes() == content
        source = LayoutSource(pulled_with_skopeo(target, tmp_path / f"skopeo-{tag}"))
        manifest = json.loads(read_document(source, source.resolve()))
        [layer] = manifest["layers"]
        assert layer["digest"] == str(Digest.of(content))
        assert manifest["subject"]["digest"] == str(subject)
        kinds[tag] = manifest.get("artifactType", manifest["config"]["mediaType"])
    assert kinds == {
        "wasm": "application/vnd.wasm.config.v1+json",
        "1.2.3": "application/vnd.cncf.helm.config.v1+json",
        "tests": "application/vnd.junit.report.v1+xml",
    }
    target = f"docker://{repository}:{fallback_tag(subject)}"
    command = [program("skopeo"), "inspect", "--raw", "--tls-verify=false", target]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert sorted(entry["artifactType"] for entry in listed["manifests"]) == sorted(kinds.values())


@pytest.mark.parametrize("kind", ["plain", "store"])
def test_artifacts_of_a_layout_are_published_with_their_image(
    kind: str, tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    name = f"{docker_registry.host}/artifacts/{kind}:v1"
    files = declared(tmp_path / "layers")
    image = image_layout(tmp_path / "image", seed=71)
    directory = tmp_path / "oci"
    if kind == "store":
        with Store.create(tmp_path / "store") as store:
            directory = store.layouts
    with open_layouts(directory) as layouts:
        artifacts = collect(tmp_path / "layers", [BUILDPACK], [name])
        check_names(artifacts, name, layouts)
        layouts.save(LayoutSource(image.path), [name])
        attach(artifacts, name, layouts, Console(BytesIO()))
    inputs = Inputs(
        Version(0, 14),
        image=name,
        layers_dir=tmp_path / "layers",
        report_path=tmp_path / "report.toml",
        layout_dir=directory,
        environ={"HOME": str(tmp_path)},
    )
    out = BytesIO()
    publish(inputs, Console(out))
    assert b"      wasm: sha256:" in out.getvalue()
    check(tmp_path, name, image.manifest, files)


def test_artifacts_are_pushed_where_the_exporter_pushes(
    tmp_path: Path, docker_registry: DockerRegistry
) -> None:
    name = f"{docker_registry.host}/artifacts/direct:v1"
    files = declared(tmp_path / "layers")
    image = image_layout(tmp_path / "image", seed=72)
    target = RegistryTarget({"HOME": str(tmp_path)})
    artifacts = collect(tmp_path / "layers", [BUILDPACK], [name])
    target.save(LayoutSource(image.path), [name])
    for _ in range(2):  # a second build replaces what the first one left
        check_names(artifacts, name, target)
        attach(artifacts, name, target, Console(BytesIO()))
    check(tmp_path, name, image.manifest, files)
