"""Go's exporter and ours on the same builds: the same images, caches, and words."""

import io
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.export import export
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.oci.digest import Digest
from ocistow.oci.document import Object
from ocistow.oci.errors import PhaseFailed
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.publish.source import read_document
from ocistow.testing.builds import BUILDPACKS, METADATA, Build, build
from ocistow.testing.images import GeneratedImage, busybox_image

from .places import PLACES, Place, opened

APIS = ["0.7", "0.8", "0.9", "0.11", "0.12", "0.15"]
VERSION = b'build\t-ldflags="-X github.com/buildpacks/lifecycle/cmd.Version=%b"\n'
EPOCH = 1_600_000_000


@dataclass(frozen=True, slots=True)
class Both:
    """Both exporters, a build, and a place to export it to."""

    program: Path
    build: Build
    place: Place
    run_image: GeneratedImage
    directory: Path

    def go(self, name: str, api: str, *more: str) -> subprocess.CompletedProcess[str]:
        flags: list[str] = []
        if self.place.layouts is not None:
            flags = ["-layout", f"-layout-dir={self.place.layouts}"]
        elif self.place.docker_host:
            flags = ["-daemon"]
        command = [
            str(self.program),
            *(*flags, *self.build.arguments(api), *more),
            *("-no-color", "-log-level=debug", self.place.prefix + name),
        ]
        environ = {
            **os.environ,
            "CNB_PLATFORM_API": api,
            "CNB_EXPERIMENTAL_MODE": "quiet",
            "DOCKER_HOST": self.place.docker_host,
            "SOURCE_DATE_EPOCH": str(EPOCH),
        }
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    def exported(
        self, api: str, *, again: bool = False, caches: Sequence[Path] = ()
    ) -> tuple[list[str], list[str]]:
        """Export by both, upon their own previous images, and return what they said."""
        flags = [f"-cache-dir={cache}" for cache in caches[:1]]
        inputs = replace(self.inputs("app:ours", api), cache_dir=caches[1] if caches else None)
        self.analyze("app:go" if again else "")
        go = self.go("app:go", api, *flags)
        assert go.returncode == 0, go.stdout
        self.analyze("app:ours" if again else "")
        code, said = self.ours(inputs)
        assert code == 0, said
        return go.stdout.splitlines(), said

    def inputs(self, name: str, api: str) -> Inputs:
        given = self.build.inputs(name, api)
        return self.place.given(replace(given, uid=0, gid=0, source_date_epoch=EPOCH))

    def ours(self, inputs: Inputs) -> tuple[int, list[str]]:
        out = io.BytesIO()
        console, code = Console(out), 0
        console.color = False
        try:
            with self.place.open(inputs) as target:
                export(inputs, target, console)
        except PhaseFailed as failed:
            code = failed.code
            console.error(failed.message)
        return code, out.getvalue().decode().splitlines()

    def config(self, name: str) -> str:
        """Return the bytes of an image's config; of a daemon the identifier, which is of them."""
        with self.place.find(self.inputs(name, "0.15"), name) as image:
            if self.place.docker_host:
                return f"{image.identifier} {image.config}"
            manifest = parse_manifest(read_document(image.source, image.root), image.root)
            assert isinstance(manifest, Manifest)
            return read_document(image.source, manifest.config).decode()

    def analyze(self, name: str = "") -> None:
        """Write analyzed.toml, with the image of the last build if it has a name."""
        inputs = self.inputs("app:x", "0.15")
        with self.place.find(inputs, "run:latest") as run:
            if not name:
                self.build.analyzed(run.identifier)
                return
            with self.place.find(inputs, name) as app:
                label = LifecycleMetadata.parse(app.config.labels[LIFECYCLE_METADATA].encode())
                self.build.analyzed(run.identifier, app.identifier, label)


@pytest.fixture(params=PLACES)
def both(
    request: pytest.FixtureRequest, tmp_path: Path, real: Callable[[str], Path]
) -> Generator[Both]:
    made = build(tmp_path / "build")
    said = subprocess.run(
        [real("lifecycle"), "-version"], check=True, capture_output=True, text=True
    ).stdout
    version = said.strip().partition("+")[0].encode()
    made.launcher.write_bytes(b"#!/bin/sh\n" + VERSION % version)
    run = busybox_image(tmp_path / "run")
    with opened(request.param, request, tmp_path / "place") as place:
        place.put(run, "run:latest")
        there = Both(real("exporter"), made, place, run, tmp_path)
        there.analyze()
        yield there


# The store's directory is not for programs that do not know it: they would leave its pool out.
ELSEWHERE = [place for place in PLACES if place != "store"]
LAYOUTS = [
    place for place in ELSEWHERE if "registry" not in str(place) and "daemon" not in str(place)
]


@pytest.mark.parametrize("both", ELSEWHERE, indirect=True)
@pytest.mark.parametrize("api", APIS)
def test_the_images_are_equal(both: Both, api: str) -> None:
    if both.place.layouts is not None and Version.parse(api) < Version(0, 12):
        api = "0.14"  # layout mode is known from 0.12 on
    both.exported(api)
    assert as_ours(both, both.config("app:go")) == both.config("app:ours")
    if both.place.docker_host:
        return  # Go's exporter cannot fetch layers: "singleton connection already in use"
    (both.build.app / "index.html").write_text("changed")
    said = both.exported(api, again=True)
    assert as_ours(both, both.config("app:go")) == both.config("app:ours")
    assert told(said[0]) == told(said[1])


ODD: dict[str, Object] = {
    "a PATH with an equals sign": {"config": {"Env": ["PATH=/a=b:/bin", "X=1", "PATH=/c"]}},
    "variables that are there": {
        "config": {"Env": ["CNB_APP_DIR=/old", "A", "PATH=/bin", "CNB_PLATFORM_API=0.1"]}
    },
    "no config": {"config": None},
    "no history": {"history": None},
    "a history of other length": {"history": [{"created_by": "one"}, {"created_by": "two"}]},
    "empty layers": {
        "history": [
            {"created_by": "<one>", "author": "somebody", "comment": "&", "empty_layer": True},
            {"created_by": "two", "created": "2020-01-02T03:04:05.678Z"},
        ]
    },
    "much of everything": {
        "author": "somebody",
        "docker_version": "20.10",
        "container": "0123",
        "container_config": {"Cmd": ["x"]},
        "os.features": ["win32k"],
        "config": {
            "Cmd": ["a"],
            "Entrypoint": ["b"],
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["NONE"], "Interval": 3, "StartInterval": 4},
            "Labels": {"z": "<>", "io.buildpacks.base.distro.name": "debian"},
            "OnBuild": ["RUN x"],
            "Shell": ["/bin/sh", "-c"],
            "StopSignal": "SIGUSR1",
            "User": "1000:1000",
            "Volumes": {"/data": {}},
            "WorkingDir": "/old",
        },
    },
}


@pytest.mark.parametrize("both", ["layout"], indirect=True)
@pytest.mark.parametrize("case", ODD)
def test_upon_an_odd_run_image_they_are_equal(both: Both, case: str) -> None:
    layout = both.place.directory("run:latest")
    manifest = rewritten(layout, ODD[case])
    both.exported("0.15")
    go = as_ours(both, both.config("app:go"), manifest)
    assert go == both.config("app:ours")
    both.exported("0.15", again=True)
    assert as_ours(both, both.config("app:go"), manifest) == go == both.config("app:ours")


def rewritten(layout: Path, change: Object) -> str:
    """Change members of the config of the only image in a layout; return its digest."""
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = index["manifests"]
    manifest = json.loads(blob_of(layout, entry).read_bytes())
    config = {**json.loads(blob_of(layout, manifest["config"]).read_bytes()), **change}
    kept = {name: value for name, value in config.items() if value is not None}
    for described, document in ((manifest["config"], kept), (entry, manifest)):
        raw = json.dumps(document).encode()
        described["digest"], described["size"] = str(Digest.of(raw)), len(raw)
        blob_of(layout, described).write_bytes(raw)
    (layout / "index.json").write_text(json.dumps(index))
    return str(entry["digest"])


def blob_of(layout: Path, described: dict[str, str]) -> Path:
    return layout / "blobs" / "sha256" / described["digest"].removeprefix("sha256:")


_METADATA = METADATA.format(buildpacks=BUILDPACKS.format(table="buildpacks"))
ODDLY_WRITTEN = {
    "an empty store": ("samples_one/store.toml", "[metadata]\n"),
    "a store of another table": ("samples_one/store.toml", "[other]\na = 1\n"),
    "a store in capitals": ("samples_one/store.toml", "[METADATA]\nK = 1\n"),
    "types in capitals": ("samples_one/launched.toml", "[Types]\nLaunch = true\n[Metadata]\n"),
    "a slice without paths": ("config/metadata.toml", _METADATA + "[[slices]]\n"),
    "a byte order mark": ("config/metadata.toml", "\ufeff" + _METADATA),
    "a source in capitals": ("project-metadata.toml", '[Source]\nType = "git"\n'),
}


@pytest.mark.parametrize("both", ["layout"], indirect=True)
@pytest.mark.parametrize("case", ODDLY_WRITTEN)
def test_of_files_oddly_written_they_make_equal_images(both: Both, case: str) -> None:
    name, content = ODDLY_WRITTEN[case]
    (both.build.layers / name).write_text(content)
    both.exported("0.15")
    assert as_ours(both, both.config("app:go")) == both.config("app:ours")


REGISTRY = [pytest.param("registry", marks=pytest.mark.registry)]  # layouts are known from 0.12 on
BILL = """
[[bom]]
  name = "thing"
  [bom.metadata]
    version = "1.2"
    number = 7
"""


@pytest.mark.parametrize(
    "both", [pytest.param("registry", marks=pytest.mark.registry)], indirect=True
)
def test_bills_of_materials_of_old_are_equal(both: Both) -> None:
    (both.build.layers / "samples_one" / "build.toml").write_text(BILL)
    metadata = both.build.layers / "config" / "metadata.toml"
    buildpack = '  [bom.buildpack]\n    id = "two"\n    version = "2.1"\n'
    metadata.write_text(metadata.read_text() + BILL + buildpack)
    inputs = both.inputs("app:ours", "0.8")
    assert both.go("app:go", "0.8").returncode == 0
    go = tomllib.loads(both.build.report.read_text())
    assert both.ours(inputs)[0] == 0
    ours = tomllib.loads(both.build.report.read_text())
    assert both.config("app:go") == both.config("app:ours")
    assert go["build"] == ours["build"]


@pytest.mark.parametrize("both", ["layout"], indirect=True)
def test_the_caches_are_equal(both: Both) -> None:
    caches = [both.directory / name for name in ("go", "ours")]
    for cache in caches:
        cache.mkdir()
    for again in (False, True):
        both.exported("0.15", again=again, caches=caches)
        go, ours = ({f.name: f.read_bytes() for f in (c / "committed").iterdir()} for c in caches)
        assert go == ours
        assert len(go) == 4
        (both.build.layers / "samples_one" / "cached" / "bin" / "program").write_text("changed")


BROKEN = {
    "no group": ("layers/group.toml", None, ()),
    "wrong API": (
        "layers/group.toml",
        '[[group]]\nid = "x"\nversion = "1"\napi = "0.99"\n',
        (),
    ),
    "no metadata": ("layers/config/metadata.toml", None, ()),
    "broken metadata": ("layers/config/metadata.toml", "[", ()),
    "broken project": ("layers/project-metadata.toml", "[", ()),
    "broken store": ("layers/samples_one/store.toml", "[", ()),
    "types at the top": ("layers/two/only.toml", "launch = true", ()),
    "nothing to reuse": ("layers/two/x.toml", "[types]\nlaunch = true\n", ()),
    "cached nothing": ("layers/two/x.toml", "[types]\nlaunch = true\ncache = true\n", ()),
    "no launcher": ("launcher", None, ()),
    "no process": ("nothing", "", ("-process-type=cron",)),
    "bad slice": ("layers/config/metadata.toml", '[[slices]]\npaths = ["[a"]\n', ()),
    "bad process": ("layers/config/metadata.toml", '[[processes]]\ntype = "a/b"\n', ()),
    "no process name": ("layers/config/metadata.toml", "[[processes]]\n", ()),
}


@pytest.mark.parametrize("both", ["layout"], indirect=True)
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_refused_is_refused_in_the_same_words(both: Both, case: str) -> None:
    name, content, flags = BROKEN[case]
    file = both.build.root / name
    file.unlink() if content is None else file.write_text(content)
    go = both.go("app:go", "0.15", *flags)
    process_type = "".join(flags).partition("=")[2]
    inputs = replace(both.inputs("app:ours", "0.15"), process_type=process_type)
    code, said = both.ours(inputs)
    assert code == go.returncode
    error = next(line for line in go.stdout.splitlines() if line.startswith("ERROR: "))
    assert words(said[-1]) == words(error)


def words(line: str) -> str:
    """Return an error without what the system or the reader of TOML calls the cause.

    Go's lifecycle has lost the name of a layer that it cannot make.
    """
    line = re.sub("creating layer '[^']*'", "creating layer ''", line)
    return re.split(r": (?:open|toml:|stat|Near|\[Errno|/)", line)[0]


def as_ours(both: Both, config: str, run_image: str = "") -> str:
    """Return a config of Go's with what is wrong in layout mode put right.

    There the run image's digest is that of an image without layers: docs/phases.md, L1.
    """
    if both.place.layouts is None:
        return config
    path = str(both.place.directory("run:latest"))
    right = f"{path}@{run_image or both.run_image.manifest}"
    return re.sub(f"{re.escape(path)}@sha256:[0-9a-f]{{64}}", right, config)


def told(lines: list[str]) -> list[str]:
    """Return what was said about layers and labels."""
    about = ("Adding l", "Reusing layer '", "Added ", "Reused ", "Setting ", "Layer '")
    return [line for line in lines if line.startswith(about)]
