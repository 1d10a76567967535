"""Exports into every daemon, upon an image that it has and after a build before."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.export import export
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ocistow.lifecycle.images.image import Saved
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.targets import open_target
from ocistow.publish.layout import LayoutSource
from ocistow.testing.builds import Build, build
from ocistow.testing.images import busybox_image

from ..conftest import Dockerd
from .test_held import saved_layers

pytestmark = pytest.mark.docker


def exported(made: Build, inputs: Inputs, previous: str = "") -> Saved:
    console = Console(io.BytesIO(), io.BytesIO())
    with open_target(inputs) as target:
        with target.find("export/run:1") as run:
            assert run is not None
            made.analyzed(run.identifier)
            if previous:
                with target.find(previous) as app:
                    assert app is not None
                    label = app.config.labels[LIFECYCLE_METADATA].encode()
                    made.analyzed(run.identifier, app.identifier, LifecycleMetadata.parse(label))
        return export(inputs, target, console)


def test_an_app_and_its_next_build(tmp_path: Path, each: Dockerd) -> None:
    run = busybox_image(tmp_path / "run", cmd=("/bin/true",))
    made = build(tmp_path / "build")
    made.launcher.write_bytes(b"#!/bin/sh\necho launched\n")
    environ = {"DOCKER_HOST": each.host, "HOME": str(tmp_path)}
    inputs = replace(
        made.inputs("export/app:1"), daemon=True, environ=environ, tags=("export/app:2",)
    )
    with open_target(inputs) as target:
        target.save(LayoutSource(run.path), ["export/run:1"])
    first = exported(made, inputs)
    assert first.names == ("export/app:1", "export/app:2")
    layers = saved_layers(each, "export/app:1", tmp_path / "first.tar")
    assert layers[: len(run.diff_ids)] == list(run.diff_ids)
    assert each.run("run", "--rm", "--network", "none", "--user", "0", "export/app:2") == "launched"
    again = exported(made, inputs, "export/app:1")
    assert again == first
    (made.layers / "samples_one" / "all-types" / "bin" / "program").write_text("changed")
    changed = exported(made, inputs, "export/app:1")
    assert changed.image_id != first.image_id
    after = saved_layers(each, "export/app:2", tmp_path / "second.tar")
    assert len(after) == len(layers)
    assert len([one for one in after if one not in layers]) <= 2
