"""What Go's lifecycle wrote, read and written again by ours, is the same to the byte."""

import io
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.analyzed import read_analyzed
from ocistow.lifecycle.files.document import read_toml
from ocistow.lifecycle.files.group import read_group
from ocistow.lifecycle.files.labels import (
    BUILD_METADATA,
    CACHE_METADATA,
    LIFECYCLE_METADATA,
    PROJECT_METADATA,
    CacheMetadata,
    LifecycleMetadata,
)
from ocistow.lifecycle.files.metadata import LauncherMetadata, read_build_metadata
from ocistow.lifecycle.files.plan import read_plan, write_plan
from ocistow.lifecycle.files.project import read_project_metadata
from ocistow.lifecycle.files.report import read_report
from ocistow.lifecycle.golang import toml as gotoml
from ocistow.lifecycle.platform_api import Version
from ocistow.oci.document import as_object, inner, inners, string, strings
from ocistow.testing.images import image_layout

BUILDPACK = """\
api = "{api}"
[buildpack]
id = "samples/all"
version = "0.0.1"
homepage = "https://example.com/<all>"
sbom-formats = ["application/vnd.cyclonedx+json"]
[[stacks]]
id = "*"
"""
DETECT = """\
#!/bin/sh
cat >"$2" <<'PLAN'
[[provides]]
name = "thing"
[[requires]]
name = "thing"
[requires.metadata]
version = "1.<2>"
number = 3
nested = {deep = [1.5, {x = true}]}
at = 2024-01-02T03:04:05+02:00
[[requires]]
name = "thing"
PLAN
"""
BUILD = """\
#!/bin/sh
set -e
mkdir -p "$1/a" "$1/b"
echo "$$" >/dev/null
cat >"$1/a.toml" <<'LAYER'
[types]
launch = true
cache = true
[metadata]
text = "<a&b>"
whole = 1
million = 1000000.0
day = 2024-01-02
[metadata.table]
list = [{a = 1}, {b = []}]
LAYER
printf '[types]\\nbuild = true\\n' >"$1/b.toml"
printf '[metadata]\\nstored = 12345678\\n' >"$1/store.toml"
cat >"$1/launch.toml" <<'LAUNCH'
LABELS
[[processes]]
type = "web"
command = COMMAND
args = ["<8080>"]
default = true
[[processes]]
type = "none"
command = COMMAND
WORKING
[[slices]]
paths = ["*.html", "a\\"b"]
[[bom]]
name = "thing"
[bom.metadata]
version = "1.<2>"
number = 7
[[bom]]
name = "other"
LAUNCH
echo '{}' >"$1/launch.sbom.cdx.json"
"""
LABELS = '[[labels]]\nkey = "k"\nvalue = "<v> & \\\\t \\\\u007f"'
PROJECT = '[source]\ntype = "git"\n[source.version]\nn = 7\nz = 1.0\n[source.metadata]\nu = "<>"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that every user can write to."""
    path = Path(tempfile.mkdtemp(prefix="ocistow-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


class Platform:
    """A platform that runs the real programs."""

    def __init__(self, real: Callable[[str], Path], place: Path, api: str, buildpack: str) -> None:
        self._real = real
        self._place = place
        self._api = api
        self.layers = place / "layers"
        for name in ("layers", "app", "platform", "build-config", "cache", "oci"):
            (place / name).mkdir(exist_ok=True)
            (place / name).chmod(0o777)
        (place / "app" / "index.html").write_text("hello")
        (place / "order.toml").write_text(
            '[[order]]\n[[order.group]]\nid = "samples/all"\nversion = "0.0.1"\n'
        )
        (place / "run.toml").write_text('[[images]]\nimage = "example.com/run"\nmirrors = ["m"]\n')
        (self.layers / "project-metadata.toml").write_text(PROJECT)
        programs = place / "buildpacks" / "samples_all" / "0.0.1" / "bin"
        programs.mkdir(parents=True)
        (programs.parent / "buildpack.toml").write_text(BUILDPACK.format(api=buildpack))
        old = Version.parse(buildpack) < Version(0, 9)
        build = BUILD.replace("COMMAND", '"run <it>"' if old else '["run <it>", "\\u0001"]')
        build = build.replace("LABELS", LABELS)
        build = build.replace("WORKING", 'working-dir = "/tmp"\nargs = []')
        for name, text in (("detect", DETECT), ("build", build)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def run(self, program: str, *arguments: str, unprivileged: bool = False) -> None:
        """Run one, and see that it ends well."""
        user = 1000 if unprivileged and os.geteuid() == 0 else None
        path = self._real(program)
        done = subprocess.run(
            [path, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            cwd=self._place,
            user=user,
            group=user,
        )
        assert done.returncode == 0, done.stdout.decode()

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what the programs are told."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._place),
            "CNB_PLATFORM_API": self._api,
            "CNB_EXPERIMENTAL_MODE": "quiet",
            "CNB_LAYERS_DIR": str(self.layers),
            "CNB_APP_DIR": str(self._place / "app"),
            "CNB_BUILDPACKS_DIR": str(self._place / "buildpacks"),
            "CNB_PLATFORM_DIR": str(self._place / "platform"),
            "CNB_BUILD_CONFIG_DIR": str(self._place / "build-config"),
            "CNB_ORDER_PATH": str(self._place / "order.toml"),
            "CNB_RUN_PATH": str(self._place / "run.toml"),
            "CNB_CACHE_DIR": str(self._place / "cache"),
            "CNB_USER_ID": "1000",
            "CNB_GROUP_ID": "1000",
        }

    def labels(self, image: str) -> dict[str, str]:
        """Return the labels of an image that was exported into the layout directory."""
        layout = self._place / "oci" / image
        index = as_object(json.loads((layout / "index.json").read_text()), "index")
        [descriptor] = inners(index, "manifests", "index")
        manifest = _blob(layout, string(descriptor, "digest", "descriptor"))
        config = _blob(layout, string(inner(manifest, "config", "manifest"), "digest", "config"))
        return strings(inner(config, "config", "config"), "Labels", "config")


def _blob(layout: Path, digest: str) -> Mapping[str, object]:
    return as_object(json.loads((layout / "blobs" / digest.replace(":", "/")).read_text()), digest)


APIS = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.15")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("buildpack", ["0.7", "0.8", "0.9", "0.12"])
def test_a_build_leaves_files_that_ours_writes_alike(
    api: str, buildpack: str, real: Callable[[str], Path], place: Path, tmp_path: Path
) -> None:
    platform = Platform(real, place, api, buildpack)
    layers = platform.layers
    platform.run("detector", unprivileged=True)
    (layers / "analyzed.toml").write_text('[run-image]\n[run-image.target]\nos = "linux"\n')
    platform.run("builder", unprivileged=True)

    group = read_group(layers / "group.toml")
    assert gotoml.encode(group.to_document()) == (layers / "group.toml").read_bytes()
    write_plan(tmp_path / "plan.toml", read_plan(layers / "plan.toml"))
    assert (tmp_path / "plan.toml").read_bytes() == (layers / "plan.toml").read_bytes()
    path = layers / "config" / "metadata.toml"
    metadata = read_build_metadata(path, Version.parse(api))
    assert gotoml.encode(metadata.to_document(Version.parse(api))) == path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("api", APIS)
def test_a_build_that_wants_nothing_is_written_alike(
    api: str, real: Callable[[str], Path], place: Path
) -> None:
    platform = Platform(real, place, api, "0.10")
    build = place / "buildpacks" / "samples_all" / "0.0.1" / "bin" / "build"
    build.write_text("#!/bin/sh\n")
    platform.run("detector", unprivileged=True)
    (platform.layers / "analyzed.toml").write_text('[run-image.target]\nos = "linux"\n')
    platform.run("builder", unprivileged=True)
    path = platform.layers / "config" / "metadata.toml"
    metadata = read_build_metadata(path, Version.parse(api))
    assert gotoml.encode(metadata.to_document(Version.parse(api))) == path.read_bytes()


@pytest.mark.parametrize("api", ["0.12", "0.13", "0.14", "0.15"])
def test_images_remember_what_ours_remember(
    api: str, real: Callable[[str], Path], place: Path
) -> None:
    platform = Platform(real, place, api, "0.10")
    (place / "launcher").write_text("no program")
    image_layout(place / "oci" / "example.com" / "run" / "latest", seed=1)
    for path in (place / "oci").rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    creator = (
        *("-layout", f"-layout-dir={place}/oci", "-skip-restore=false", "-log-level=debug"),
        f"-launcher={place}/launcher",
        "example.com/app",
    )
    platform.run("creator", *creator)
    platform.run("creator", *creator)
    labels = platform.labels("example.com/app/latest")

    label = labels[LIFECYCLE_METADATA].encode()
    metadata = LifecycleMetadata.parse(label)
    assert metadata.dump() == label
    launcher = inner(json.loads(labels[BUILD_METADATA]), "launcher", "label")
    git = inner(inner(launcher, "source", "label"), "git", "label")
    told = LauncherMetadata(
        string(launcher, "version", ""), string(git, "repository", ""), string(git, "commit", "")
    )
    built = read_build_metadata(platform.layers / "config" / "metadata.toml", Version.parse(api))
    assert built.label(told, Version.parse(api)) == labels[BUILD_METADATA].encode()
    project = read_project_metadata(
        platform.layers / "project-metadata.toml", Console(io.BytesIO())
    )
    assert project.label() == labels[PROJECT_METADATA].encode()
    [cached] = (place / "cache").rglob(CACHE_METADATA)
    assert CacheMetadata.parse(cached.read_bytes()).dump() + b"\n" == cached.read_bytes()

    analyzed = platform.layers / "analyzed.toml"
    read = read_analyzed(analyzed, Console(io.BytesIO()))
    assert read.metadata == replace(metadata, stack=read.metadata.stack)
    assert gotoml.encode(read.to_document()) == analyzed.read_bytes()
    report = read_report(platform.layers / "report.toml")
    assert gotoml.encode(report.to_document()) == (platform.layers / "report.toml").read_bytes()
    store = platform.layers / "samples_all" / "store.toml"
    assert read_toml(store) == {"metadata": {"stored": 12345678}}
