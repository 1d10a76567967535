import io
import json
import shutil
import tomllib
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata, RunImageMetadata
from ocistow.lifecycle.images.image import Image, Saved
from ocistow.lifecycle.inputs import Inputs
from ocistow.lifecycle.platform_api import Code, Version
from ocistow.lifecycle.rebase import rebase
from ocistow.lifecycle.targets.layout import LayoutTarget
from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import PhaseFailed
from ocistow.oci.platform import Platform
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Blob
from ocistow.store.store import Store
from ocistow.testing.apps import make_app, make_run_image
from ocistow.testing.disk import QuickDisk

AMD64 = Platform.parse("linux/amd64")
KNOWN = LifecycleMetadata(run_image=RunImageMetadata(image="run:1", mirrors=("run:2",)))


@pytest.fixture(params=["plain", "store"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[LayoutTarget]:
    """Run images 1 and 2, and an app upon the first."""
    with ExitStack() as stack:
        if request.param == "store":
            store = stack.enter_context(Store.create(tmp_path / "store", QuickDisk()))
            target = LayoutTarget(store.layouts, store=store, platform=AMD64)
        else:
            target = LayoutTarget(tmp_path / "oci", platform=AMD64, disk=QuickDisk())
        for seed in (1, 2):
            make_run_image(target, f"run:{seed}", tmp_path / f"run-{seed}", seed=seed, layers=seed)
        make_app(target, "app", "run:1", metadata=KNOWN)
        yield target


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(
        Version(0, 12), image="app", run_image="run:2", report_path=tmp_path / "report.toml"
    )


def rebased(inputs: Inputs, target: LayoutTarget) -> Saved:
    return rebase(inputs, target, Console(io.BytesIO()))


def there(target: LayoutTarget, reference: str) -> Image:
    with target.find(reference) as image:
        assert image is not None
        return image


def blobs(target: LayoutTarget, reference: str) -> Path:
    return Path(target.name(reference), "blobs/sha256")


def test_an_app_is_put_upon_another_run_image(target: LayoutTarget, inputs: Inputs) -> None:
    before, base = there(target, "app"), there(target, "run:2")
    saved = rebased(replace(inputs, tags=("other",)), target)
    for name in ("app", "other"):
        after = there(target, name)
        assert after.root.digest == saved.digest
        assert after.config.diff_ids == (*base.config.diff_ids, before.config.diff_ids[-1])
        assert after.config.entrypoint == before.config.entrypoint
        metadata = json.loads(after.config.labels[LIFECYCLE_METADATA])
        assert metadata["runImage"]["topLayer"] == str(base.top_layer)
        assert metadata["runImage"]["reference"] == base.identifier
        assert {layer.blob.digest.encoded for layer in after.layers} <= {
            file.name for file in blobs(target, name).iterdir()
        }


def test_the_report_tells_what_became_of_it(target: LayoutTarget, inputs: Inputs) -> None:
    saved = rebased(inputs, target)
    image = tomllib.loads(inputs.report_path.read_text())["image"]
    assert (image["tags"], image["digest"]) == ([target.name("app")], str(saved.digest))
    assert image["run-image"]["top-layer"] == str(there(target, "run:2").top_layer)


def test_the_older_draft_has_a_file_of_its_own(target: LayoutTarget, inputs: Inputs) -> None:
    path = inputs.report_path.with_name("exported.toml")
    saved = rebased(replace(inputs, exported_path=path), target)
    image = tomllib.loads(path.read_text())["image"]
    assert image == {"tags": list(saved.names), "identifier": str(saved.digest)}


def test_an_app_may_be_rebased_to_another_name(target: LayoutTarget, inputs: Inputs) -> None:
    before = there(target, "app")
    rebased(replace(inputs, image="new", previous_image="app"), target)
    assert there(target, "app").root == before.root
    assert there(target, "new").layers[-1] == before.layers[-1]


def test_a_rebase_to_the_same_run_image_changes_nothing(
    target: LayoutTarget, inputs: Inputs
) -> None:
    first = rebased(inputs, target)
    assert rebased(inputs, target) == first


def test_layers_that_are_there_are_not_read(
    target: LayoutTarget, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Digest] = []
    original = LayoutSource.open

    def noted(source: LayoutSource, descriptor: Descriptor) -> Blob:
        opened.append(descriptor.digest)
        return original(source, descriptor)

    app, base = there(target, "app"), there(target, "run:2")
    shutil.copytree(blobs(target, "run:2"), blobs(target, "app"), dirs_exist_ok=True)
    monkeypatch.setattr(LayoutSource, "open", noted)
    rebased(inputs, target)
    assert app.layers[-1].blob.digest not in opened
    if target.directory.name == "layouts":
        assert not {layer.blob.digest for layer in base.layers} & set(opened)


def test_an_app_without_its_run_image_stays_so(target: LayoutTarget, inputs: Inputs) -> None:
    for layer in there(target, "app").layers[:-1]:
        (blobs(target, "app") / layer.blob.digest.encoded).unlink()
    rebased(inputs, target)
    own = there(target, "app").layers[-1].blob.digest.encoded
    present = {file.name for file in blobs(target, "app").iterdir()}
    assert own in present
    if target.directory.name != "layouts":
        base = {layer.blob.digest.encoded for layer in there(target, "run:2").layers}
        assert not base & present


def test_a_layer_of_the_app_may_not_be_missing(target: LayoutTarget, inputs: Inputs) -> None:
    digest = there(target, "app").layers[-1].blob.digest
    (blobs(target, "app") / digest.encoded).unlink()
    if target.directory.name == "layouts":
        (target.directory.parent / "blobs/sha256" / digest.encoded).unlink()
    with pytest.raises(PhaseFailed, match=r"failed to rebase: layer .* not found") as failed:
        rebased(inputs, target)
    assert failed.value.code == Code.REBASE
    assert not inputs.report_path.exists()


@pytest.mark.parametrize(
    ("image", "run_image", "code", "message"),
    [
        ("none", "run:2", 72, "failed to set app image: failed to access image to rebase"),
        ("app", "none", 1, "failed to access run image"),
        (
            "run:1",
            "",
            72,
            "failed to set app image: failed to parse arguments: "
            "-run-image is required when there is no run image metadata available",
        ),
        ("run:1", "run:2", 72, "failed to rebase: stack not defined on app image"),
    ],
    ids=["no app", "no run image", "nothing known", "no app image"],
)
def test_what_cannot_be_rebased_is_refused(
    target: LayoutTarget, inputs: Inputs, image: str, run_image: str, code: int, message: str
) -> None:
    with pytest.raises(PhaseFailed) as failed:
        rebased(replace(inputs, image=image, run_image=run_image), target)
    assert (failed.value.code, str(failed.value)) == (code, message)


def test_a_missing_run_image_is_told_in_the_drafts_words(
    target: LayoutTarget, inputs: Inputs
) -> None:
    with pytest.raises(PhaseFailed) as failed:
        rebased(replace(inputs, layout=True, run_image="cnb/none"), target)
    short, full = target.places("cnb/none")
    expected = f"the run-image could not be found at path: {short} or {full}"
    assert (failed.value.code, str(failed.value)) == (Code.FAILED, expected)


def test_an_app_that_is_not_upon_what_it_remembers_is_refused(
    target: LayoutTarget, inputs: Inputs, tmp_path: Path
) -> None:
    make_run_image(target, "run:3", tmp_path / "3", seed=3)
    app = there(target, "app")
    metadata = LifecycleMetadata.parse(app.config.labels[LIFECYCLE_METADATA].encode())
    wrong = replace(metadata.run_image, top_layer="sha256:" + "0" * 64)
    label = replace(metadata, run_image=wrong).dump().decode()
    make_app(target, "wrong", "run:3", metadata=KNOWN, labels={LIFECYCLE_METADATA: label})
    with pytest.raises(PhaseFailed, match="could not find base layer in image"):
        rebased(replace(inputs, image="wrong"), target)
