"""What a build leaves for the exporter: layers, SBOMs, an app, and the files about them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..lifecycle.files.analyzed import Analyzed, AnalyzedRunImage, Target
from ..lifecycle.files.document import write_toml
from ..lifecycle.files.labels import LifecycleMetadata
from ..lifecycle.inputs import Inputs
from ..lifecycle.platform_api import Version

BUILDPACKS = """\
[[{table}]]
  id = "samples/one"
  version = "0.0.1"
  api = "0.10"
  homepage = "https://example.com/<one>"

[[{table}]]
  id = "two"
  version = "2.1"
  api = "0.10"
"""

METADATA = """\
buildpack-default-process-type = "web"

{buildpacks}
[[labels]]
  key = "org.example.title"
  value = "an <example> & more"

[[labels]]
  key = "org.example.title"
  value = "the last one wins"

[[processes]]
  type = "web"
  command = ["/cnb/lifecycle/launcher", "--serve"]
  args = ["<8080>"]
  direct = true
  buildpack-id = "samples/one"
  working-dir = "/tmp"

[[processes]]
  type = "worker"
  command = ["worker"]
  direct = false
  buildpack-id = "two"

[[slices]]
  paths = ["static", "*.html"]

[[slices]]
  paths = ["nothing/matches"]
"""

PROJECT = """\
[source]
  type = "git"
  [source.version]
    commit = "63d3a30"
    number = 7
  [source.metadata]
    repository = "https://example.com/app.git?a=1&b=<2>"
"""

RUN = """\
[[images]]
  image = "{image}"
  mirrors = ["mirror.example.com/run", "other.example.com/run"]
"""

_ONE = {  # layers of samples/one: their types, and what they say about themselves
    "launched": ("launch = true", 'version = "1.2"\nlist = [1, 2.5, true]\nat = 2024-01-02'),
    "all-types": ("launch = true\nbuild = true\ncache = true", '[metadata.nested]\nx = "<&>"'),
    "built": ("build = true", ""),
    "cached": ("cache = true", 'for = "next time"'),
}


@dataclass(frozen=True, slots=True)
class Build:
    """The directories and files of a build below `root`."""

    root: Path

    @property
    def layers(self) -> Path:
        """What buildpacks wrote."""
        return self.root / "layers"

    @property
    def app(self) -> Path:
        """The application."""
        return self.root / "workspace"

    @property
    def launcher(self) -> Path:
        """The program that will start processes; a test may put one here that runs."""
        return self.root / "launcher"

    @property
    def report(self) -> Path:
        """Where the exporter reports."""
        return self.root / "report.toml"

    def inputs(self, image: str, platform_api: str = "0.15") -> Inputs:
        """Return the inputs of an exporter."""
        return Inputs(
            Version.parse(platform_api),
            image=image,
            analyzed_path=self.layers / "analyzed.toml",
            app_dir=self.app,
            group_path=self.layers / "group.toml",
            launcher_path=self.launcher,
            layers_dir=self.layers,
            project_metadata_path=self.layers / "project-metadata.toml",
            report_path=self.report,
            run_path=self.root / "run.toml",
            stack_path=self.root / "stack.toml",
            uid=1000,
            gid=1001,
        )

    def arguments(self, platform_api: str = "0.15") -> list[str]:
        """Return the flags of an exporter that is a program, without any image."""
        flags: dict[str, object] = {
            "analyzed": self.layers / "analyzed.toml",
            "app": self.app,
            "group": self.layers / "group.toml",
            "launcher": self.launcher,
            "layers": self.layers,
            "project-metadata": self.layers / "project-metadata.toml",
            "report": self.report,
        }
        if Version.parse(platform_api) < Version(0, 12):
            flags["stack"] = self.root / "stack.toml"
        else:
            flags["run"] = self.root / "run.toml"
        return [f"-{name}={value}" for name, value in flags.items()]

    def analyzed(
        self, run_image: str, previous: str = "", metadata: LifecycleMetadata | None = None
    ) -> None:
        """Write analyzed.toml: identifiers of images, and what the previous one remembers."""
        analyzed = Analyzed(
            previous_image=previous,
            run_image=AnalyzedRunImage(
                run_image, "example.com/run", target=Target("linux", "amd64")
            ),
            metadata=metadata or LifecycleMetadata(),
        )
        write_toml(self.layers / "analyzed.toml", analyzed.to_document())


def build(root: Path, *, long_names: bool = True) -> Build:
    """Make a build with every type of layer, below a directory that does not exist yet."""
    made = Build(root)
    root.mkdir(mode=0o755)
    (root / "run.toml").write_text(RUN.format(image="example.com/run"))
    (root / "stack.toml").write_text('[run-image]\n  image = "example.com/stack"\n')
    made.launcher.write_bytes(b"#!/bin/sh\nexit 0\n")
    made.launcher.chmod(0o700)
    _write(
        made.layers,
        {
            "group.toml": BUILDPACKS.format(table="group"),
            "project-metadata.toml": PROJECT,
            "config/metadata.toml": METADATA.format(
                buildpacks=BUILDPACKS.format(table="buildpacks")
            ),
            "samples_one/launch.toml": "",
            "samples_one/build.toml": "",
            "samples_one/store.toml": '[metadata]\nkey = "<value>"\n',
            "samples_one/gone.ignore/file": "no layer",
            "two/only/bin/tool": "#!/bin/sh\n",
            "two/only.toml": "[types]\nlaunch = true\n",
            "sbom/launch/samples_one/launched/sbom.cdx.json": "{}",
            "sbom/launch/sbom.legacy.json": "[]",
            "sbom/build/samples_one/built/sbom.cdx.json": '{"build": true}',
            "sbom/cache/samples_one/cached/sbom.syft.json": '{"cache": true}',
        },
    )
    for name, (types, metadata) in _ONE.items():
        _write(
            made.layers / "samples_one",
            {
                f"{name}.toml": f"[types]\n{types}\n[metadata]\n{metadata}\n",
                f"{name}/bin/program": f"of {name}",
                f"{name}/env/NAME": name,
            },
        )
    _odd_files(made.layers / "samples_one" / "launched", long_names=long_names)
    _write(
        made.app,
        {
            "a.txt": "next to a/",
            "a/x": "in a/",
            ".hidden": "",
            "index.html": "<html>",
            "static/style.css": "a {}",
            "static/deep/er/image": "\0" * 70_000,
            "rest/of/it": "rest",
        },
    )
    return made


def _odd_files(layer: Path, *, long_names: bool) -> None:
    (layer / "empty").mkdir(0o750)
    (layer / "link").symlink_to("bin/program")
    (layer / "dangling").symlink_to("/nowhere/at/all")
    (layer / "set").write_bytes(b"id")
    (layer / "set").chmod(stat.S_ISUID | stat.S_ISGID | 0o755)
    (layer / "sticky").mkdir()
    (layer / "sticky").chmod(stat.S_ISVTX | 0o777)
    os.link(layer / "bin" / "program", layer / "hard")
    if long_names:
        deep = layer / ("d" * 90) / ("e" * 90)
        deep.mkdir(parents=True)
        (deep / ("f" * 120)).write_text("a name that needs a PAX header")
        (layer / "gr\u00fc\u00dfe").write_text("not ASCII")
        (layer / "far").symlink_to("x" * 200)


def _write(directory: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
