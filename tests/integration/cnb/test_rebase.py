"""Rebased in a daemon, an app runs upon the other run image.

Go's rebaser is no measure for this: version 0.21.17 says of the same images, in the Docker of
Debian 12, `could not find base layer in image`.
"""

import io
import json
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata, RunImageMetadata
from ocistow.lifecycle.images.image import Image, Target
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Version
from ocistow.lifecycle.rebase import rebase
from ocistow.lifecycle.targets import open_destination
from ocistow.testing.apps import make_app, make_run_image

from ..conftest import Dockerd

pytestmark = pytest.mark.docker


@pytest.fixture
def inputs(dockerd: Dockerd, tmp_path: Path) -> Inputs:
    return Inputs(
        Version(0, 15),
        image="rebase/app",
        tags=("rebase/other:2",),
        run_image="rebase/new",
        daemon=True,
        report_path=tmp_path / "report.toml",
        environ={"DOCKER_HOST": dockerd.host},
    )


@pytest.fixture
def target(inputs: Inputs, tmp_path: Path) -> Generator[Target]:
    known = RunImageMetadata(image="rebase/old", mirrors=("rebase/new",))
    with open_destination(inputs) as target:
        for seed, name in enumerate(("old", "new"), 1):
            make_run_image(target, f"rebase/{name}", tmp_path / name, seed=seed, layers=seed)
        make_app(target, "rebase/app", "rebase/old", metadata=LifecycleMetadata(run_image=known))
        yield target


def there(target: Target, reference: str) -> Image:
    with target.find(reference) as image:
        assert image is not None
        return image


def test_an_app_of_a_daemon_is_put_upon_another_run_image(
    target: Target, inputs: Inputs, dockerd: Dockerd
) -> None:
    before, base = there(target, "rebase/app"), there(target, "rebase/new")
    saved = rebase(inputs, target, Console(io.BytesIO()))
    after = there(target, "rebase/app")
    assert after.config.diff_ids == (*base.config.diff_ids, before.config.diff_ids[-1])
    assert after.config.entrypoint == before.config.entrypoint
    label = json.loads(after.config.labels[LIFECYCLE_METADATA])
    assert label["runImage"]["topLayer"] == str(base.top_layer)
    assert label["runImage"]["reference"] == base.identifier
    for name in ("rebase/app", "rebase/other:2"):
        found = dockerd.run("image", "inspect", "--format", "{{.Id}}", name)
        assert found == str(saved.image_id)
    image = tomllib.loads(inputs.report_path.read_text())["image"]
    assert image["image-id"] == saved.image_id.encoded
