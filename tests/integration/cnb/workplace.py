"""Everything that a platform gives to phases, where the user of a build image can reach it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest

import ocistow
from ocistow.oci.document import Object, as_object
from ocistow.oci.reference import Reference

NAME = re.compile(r"[A-Za-z0-9._-]+")
UID = GID = 65534  # nobody: the creator looks its user up
BUILDPACKS = Path(__file__).parent / "buildpacks"
GROUP = (
    "samples/hello-universe@0.0.2",
    "acme/everything@1.2.3",
    "samples/hello-processes@0.0.1",
    "acme/observer@1.0.0",
    "samples/bash-script@0.0.1",
)
_AS_USER = ("detector", "builder")  # the others give root up themselves
_RUN = {"detector", "builder", "analyzer", "creator", "restorer", "exporter"}


@dataclass
class Workplace:
    """The directories of a platform; images are in `layouts`.

    Attributes:
        packages: ocistow and what it needs, for the user of the build image.
        cache: whether phases are told of the cache.
        programs: where Go's lifecycle is; None for ours.
    """

    root: Path
    layouts: Path
    packages: Path
    api: str = "0.12"
    cache: bool = True
    programs: Path | None = None
    variables: dict[str, str] = field(default_factory=dict[str, str])

    def fill(self, group: Sequence[str] = GROUP) -> None:
        """Write an app, an order and what else a build needs."""
        for name in ("app/static", "app/vendor", "layers", "platform/env", "config/env", "cache"):
            (self.root / name).mkdir(parents=True)
        (self.root / "app" / "app.sh").write_text("#!/bin/sh\necho an app\n")
        (self.root / "app" / "app.sh").chmod(0o755)
        (self.root / "app" / "static" / "a.css").write_text("a {}\n")
        (self.root / "app" / "vendor" / "lib").write_text("library\n")
        (self.root / "launcher").write_text("#!/bin/sh\n")
        (self.root / "launcher").chmod(0o755)
        shutil.copytree(BUILDPACKS, self.root / "buildpacks")
        text = "[[order]]\n"
        for identifier, _, version in (name.partition("@") for name in group):
            text += f'[[order.group]]\nid = "{identifier}"\nversion = "{version}"\n'
        (self.root / "order.toml").write_text(text)
        self.own()

    def own(self) -> None:
        """Give everything to the user of the build image."""
        for directory, _, files in os.walk(self.root):
            for name in (".", *files):
                os.chown(Path(directory, name), UID, GID, follow_symlinks=False)

    def fresh(self, *names: str) -> None:
        """Empty directories, or that of the layers, as a platform does between two builds."""
        for directory in (self.root / name for name in names or ("layers",)):
            shutil.rmtree(directory)
            directory.mkdir()
            os.chown(directory, UID, GID)

    def build(self, name: str, *more: str, one: bool = False) -> str:
        """Run all the phases, or the one that does them all, and return what they said."""
        image = ["-run-image", "example.com/run:base", *more, name]
        if one:
            return self.run("creator", *image)
        said = self.run("analyzer", *image)
        for program in ("detector", "restorer", "builder"):
            said += self.run(program)
        return said + self.run("exporter", *more, name)

    def run(self, program: str, *arguments: str, status: int = 0) -> str:
        """Run a program as its user, and return what it said on both streams."""
        done = subprocess.run(
            [*self._program(program), *self._flags(program), *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **self._environ()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            cwd="/",
            user=UID if program in _AS_USER else None,
            group=GID if program in _AS_USER else None,
            extra_groups=[] if program in _AS_USER else None,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def layout(self, name: str) -> Path:
        """Return where an image is."""
        return self.layouts / Reference.parse(name).path

    def manifest(self, name: str) -> Object:
        """Return the manifest of an image."""
        index = json.loads((self.layout(name) / "index.json").read_bytes())
        return self._blob(name, index["manifests"][0]["digest"])

    def config(self, name: str) -> Object:
        """Return the config of an image."""
        descriptor = as_object(self.manifest(name)["config"], "config")
        return self._blob(name, str(descriptor["digest"]))

    def _blob(self, name: str, digest: str) -> Object:
        path = self.layout(name) / "blobs" / digest.replace(":", "/")
        return as_object(json.loads(path.read_bytes()), digest)

    def _program(self, name: str) -> list[str]:
        if self.programs is not None:
            return [str(self.programs / name)]
        return [python(), "-m", "ocistow.cli", "phase", name]

    def _environ(self) -> Mapping[str, str]:
        return {
            "CNB_PLATFORM_API": self.api,
            "CNB_BUILD_CONFIG_DIR": str(self.root / "config"),
            "CNB_EXPERIMENTAL_MODE": "quiet",
            "PYTHONPATH": str(self.packages),
            **self.variables,
        }

    def _flags(self, program: str) -> list[str]:
        root = self.root
        flags = {"no-color": "true", "layers": str(root / "layers")} if program in _RUN else {}
        if program not in _AS_USER:
            flags |= {"uid": str(UID), "gid": str(GID)} if program in _RUN else {}
            flags |= {"layout-dir": str(self.layouts)}
            flags |= {"layout": "true"} if program in _RUN else {}
        if program in ("detector", "builder", "creator"):
            flags |= {name: str(root / name) for name in ("platform", "buildpacks")}
        if program in ("detector", "creator"):
            flags["order"] = str(root / "order.toml")
        if program in ("detector", "builder", "exporter", "creator"):
            flags["app"] = str(root / "app")
        if program in ("exporter", "creator"):
            flags["launcher"] = str(root / "launcher")
        if self.cache and program in ("restorer", "exporter", "creator"):
            flags["cache-dir"] = str(root / "cache")
        return [f"-{name}={value}" for name, value in flags.items()]


@contextmanager
def workplace() -> Generator[Workplace]:
    """Make a place for the block; pytest's own directories are its user's alone."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    with tempfile.TemporaryDirectory(prefix="ocistow-build-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        place = Workplace(root, root / "oci", root / "packages")
        _copy_packages(place.packages)
        (root / "oci").mkdir()
        place.fill()
        yield place


def _copy_packages(directory: Path) -> None:
    """Copy ocistow and what it needs: the project may lie where only its owner may go."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ocistow.__file__).parent, directory / "ocistow", ignore=ignored)
    missing, found = ["ocistow"], set[str]()
    while missing:
        name = missing.pop()
        if name in found:
            continue
        found.add(name)
        needs = [need for need in metadata.requires(name) or () if "extra ==" not in need]
        installed = [NAME.match(need) for need in needs]
        missing += [match[0] for match in installed if match and _is_installed(match[0])]
        for file in (metadata.files(name) or ()) if name != "ocistow" else ():
            if ".." not in file.parts and file.suffix != ".pyc":
                to = directory / file
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), to)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:  # of another platform
        return False
    return True


def python() -> str:
    """Return a Python that the user of the build image may execute."""
    version = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for path in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([path, "-c", version], check=True, user=UID, group=GID, extra_groups=[])
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    pytest.skip("no Python that other users may execute")
