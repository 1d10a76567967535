"""Rebased by Go's rebaser and by ours, images of a registry are the same, and so are refusals."""

import io
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.labels import LifecycleMetadata, RunImageMetadata, StackRunImage
from ocistow.lifecycle.images.image import Image
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.rebase import rebase
from ocistow.lifecycle.targets.registry import RegistryTarget
from ocistow.oci.errors import PhaseFailed
from ocistow.oci.manifest import Manifest, parse_manifest
from ocistow.publish.source import read_document
from ocistow.testing.apps import make_app, make_run_image
from ocistow.testing.images import Media

from ..conftest import DockerRegistry

NAME, VERSION, ID = (f"io.buildpacks.base.{n}" for n in ("distro.name", "distro.version", "id"))
STACK, MIXINS = "io.buildpacks.stack.id", "io.buildpacks.stack.mixins"
DEBIAN = {NAME: "debian", VERSION: "12", ID: "some-id"}


@dataclass(frozen=True)
class Case:
    """An app, its run image, and the one that it is to have."""

    name: str
    old: Mapping[str, str] = field(default_factory=lambda: DEBIAN)
    new: Mapping[str, str] = field(default_factory=lambda: {**DEBIAN, "io.buildpacks.base.x": "y"})
    app: Mapping[str, str] = field(default_factory=dict[str, str])
    app_api: str = "0.12"
    api: str = "0.15"
    media: Media = "docker"
    new_media: Media = "docker"
    known: bool = True  # whether the app knows the new run image as a mirror
    named: bool = True  # whether -run-image names it
    remembers: bool = True  # whether the app knows any run image by name
    force: bool = False
    fits: bool = True  # whether it is rebased


CASES = [
    Case("plain"),
    Case("oci", media="oci", new_media="oci"),
    Case("mixed", media="oci", new_media="docker"),
    Case("older-rebaser", api="0.11"),
    Case("unknown-name", known=False, fits=False),
    Case("unknown-name-forced", known=False, force=True),
    Case("no-name-known-forced", known=False, remembers=False, force=True),
    Case("not-rebasable", app={"io.buildpacks.rebasable": "false"}, fits=False),
    Case("not-rebasable-forced", app={"io.buildpacks.rebasable": "false"}, force=True),
    Case("other-distribution", new={**DEBIAN, NAME: "alpine"}, fits=False),
    Case("other-distribution-forced", new={**DEBIAN, NAME: "alpine"}, force=True),
    Case("no-distribution", old={}, fits=False),
    Case("any-distribution", new={}),
    Case("stack", app_api="0.11", old={STACK: "s"}, new={STACK: "s", MIXINS: '["a"]'}),
    Case("no-stack", app_api="0.11", old={}, new={STACK: "s"}, fits=False),
    Case("no-new-stack", app_api="", old={STACK: "s"}, new={}, fits=False),
    Case("other-stack", app_api="0.11", old={STACK: "s"}, new={STACK: "t"}, fits=False),
    Case(
        "mixins",
        app_api="0.11",
        old={STACK: "s", MIXINS: '["a", "run:b", "c"]'},
        new={STACK: "s", MIXINS: '["b"]'},
        fits=False,
    ),
    Case("remembered", named=False),
    Case("nothing-remembered", named=False, remembers=False, fits=False),
]


@pytest.fixture
def target() -> RegistryTarget:
    return RegistryTarget({})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_images_and_refusals_are_those_of_gos_rebaser(
    case: Case,
    target: RegistryTarget,
    docker_registry: DockerRegistry,
    real: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    place = f"{docker_registry.host}/rebase/{case.name}"
    old, new = f"{place}/old", f"{place}/new"
    make_run_image(target, old, tmp_path / "1", seed=1, labels=case.old, media=case.media)
    make_run_image(
        target, new, tmp_path / "2", seed=2, labels=case.new, media=case.new_media, layers=3
    )
    known = RunImageMetadata(image=old, mirrors=(new,) if case.known else ())
    stack = None
    if not case.remembers:
        known, stack = RunImageMetadata(), StackRunImage()
    metadata = LifecycleMetadata(run_image=known, stack=stack)
    for app in ("go", "us"):
        make_app(
            target,
            f"{place}/{app}",
            old,
            api=case.app_api,
            labels=case.app,
            metadata=metadata,
            remembers=case.remembers,
        )
    given = ["-run-image", new] if case.named else []
    forced = ["-force"] if case.force else []
    report = tmp_path / "go.toml"
    done = subprocess.run(
        [real("rebaser"), *given, *forced, "-report", report, f"{place}/go", f"{place}/go:2"],
        env={**os.environ, "CNB_PLATFORM_API": case.api},
        capture_output=True,
        text=True,
        timeout=60,
    )
    inputs = Inputs(
        Version.parse(case.api),
        image=f"{place}/us",
        tags=(f"{place}/us:2",),
        run_image=new if case.named else "",
        force_rebase=case.force,
        report_path=tmp_path / "us.toml",
    )
    status, said = ended(inputs, target)
    assert (status, words(said)) == (
        done.returncode,
        words(done.stdout.replace(f"{place}/go", f"{place}/us")),
    )
    assert (status == 0) is case.fits, said
    if not case.fits:
        return
    go, us = there(target, f"{place}/go"), there(target, f"{place}/us:2")
    assert us.config == go.config
    assert us.config.encode() == go.config.encode() == raw_config(go) == raw_config(us)
    assert [layer.blob.digest for layer in us.layers] == [layer.blob.digest for layer in go.layers]
    if case.media == "docker":
        assert us.root.digest == go.root.digest
    theirs, ours = (tomllib.loads(p.read_text()) for p in (report, inputs.report_path))
    assert [t.replace("/us", "/go") for t in ours["image"]["tags"]] == theirs["image"]["tags"]
    if case.media == "docker":
        assert ours["image"]["digest"] == theirs["image"]["digest"]
        assert ours["image"]["manifest-size"] == theirs["image"]["manifest-size"]


def ended(inputs: Inputs, target: RegistryTarget) -> tuple[int, str]:
    """Run our phase, and return its exit status and all that it said."""
    said = io.BytesIO()
    console = Console(said)
    console.color = False
    status = 0
    try:
        rebase(inputs, target, console)
    except PhaseFailed as error:
        console.error(str(error))
        status = error.code
    return status, said.getvalue().decode()


def words(said: str) -> list[str]:
    """Return the warnings and errors of a phase, without colours and times."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    return [line.strip() for line in lines if line.startswith(("ERROR", "Warning"))]


def there(target: RegistryTarget, reference: str) -> Image:
    with target.find(reference) as image:
        assert image is not None
        return image


def raw_config(image: Image) -> bytes:
    with RegistryTarget({}).find(image.identifier) as again:
        assert again is not None
        document = parse_manifest(read_document(again.source, again.root), again.root)
        assert isinstance(document, Manifest)
        return read_document(again.source, document.config)
