"""The publisher: what the exporter left in a layout goes to a registry, or into a daemon.

Source: the draft "Publish Operation". The exit statuses are those of ADR 12.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..oci.descriptor import Descriptor
from ..oci.document import parse_object, strings
from ..oci.errors import InvalidContent, OcistowError, PhaseFailed
from ..oci.manifest import Manifest, parse_manifest
from ..oci.reference import Reference
from ..oci.wording import message_of
from ..publish.attached import Attached, Tagged, find_attached
from ..publish.source import read_document
from .console import Console
from .files.document import read_toml, write_toml
from .files.labels import LIFECYCLE_METADATA, LifecycleMetadata, RunImageMetadata
from .files.report import Report
from .golang.json import Struct
from .images.artifacts import OF_REFERRERS, image_of_tag
from .images.image import Image, Saved, Target
from .images.records import write_records
from .images.saving import save
from .inputs import Inputs
from .platform_api import Code
from .targets import open_destination, open_layouts
from .targets.registry import RegistryTarget

DAEMON_REPORT = "daemon-report.toml"

_TITLE = "org.opencontainers.image.title"


def publish(inputs: Inputs, console: Console) -> Saved:
    """Publish an image under all its names, with what is attached to it; see `publish_from`."""
    with (
        _failing(inputs),
        open_layouts(inputs) as layouts,
        open_destination(inputs) as destination,
    ):
        return publish_from(layouts, destination, inputs, console)


def publish_from(layouts: Target, destination: Target, inputs: Inputs, console: Console) -> Saved:
    """Publish an image of a layout, and report it.

    Nothing is pushed when two artifacts claim one tag, or one claims the image's. The report
    is written last, and not at all when something is not where it should be.

    Raises:
        PhaseFailed: with 112, or with 113 because of an artifact.
    """
    with _failing(inputs), layouts.find(inputs.image) as image:
        if image is None:
            where = layouts.name(inputs.image)
            raise PhaseFailed(Code.PUBLISH, f"image '{inputs.image}' could not be found at {where}")
        attached = find_attached([image.root.digest], Path(image.name), _siblings(inputs, image))
        _check_tags(inputs, attached)
        before = _reported(inputs)
        if isinstance(destination, RegistryTarget):
            _check_images(inputs, attached, destination)
            _look_at_run_image(destination, inputs, image)
        saved = save(destination, image.source, inputs.references, console)
        if isinstance(destination, RegistryTarget):
            _attach(destination, attached, image, saved, console)
        else:
            _report_losses(inputs, image, attached, saved, console)
        _report(inputs, before, image, saved)
    return saved


@contextmanager
def _failing(inputs: Inputs) -> Generator[None]:
    """End the phase for what is raised in the block, in one line."""
    try:
        yield
    except PhaseFailed:
        raise
    except (OcistowError, OSError) as error:
        message = f"failed to publish {inputs.image}: {message_of(error)}"
        raise PhaseFailed(Code.PUBLISH, message) from error


def _look_at_run_image(destination: RegistryTarget, inputs: Inputs, image: Image) -> None:
    """Let the destination see the run image, if the registry has it: its layers are mounted then.

    So even those are published that a sparse layout lacks.
    """
    registries = {Reference.parse(name).registry for name in inputs.references}
    run = _run_image(image) or RunImageMetadata()
    for name in filter(None, (run.reference, run.image, *run.mirrors)):
        with suppress(OcistowError):  # it is asked for to save time, or is no reference
            if Reference.parse(name).registry not in registries:
                continue
            with destination.find(name) as found:
                if found is not None:
                    return


def _run_image(image: Image) -> RunImageMetadata | None:
    """Return what the image remembers of its run image; None if no lifecycle made it."""
    with suppress(InvalidContent):
        if label := image.config.labels.get(LIFECYCLE_METADATA):
            return LifecycleMetadata.parse(label.encode()).run_image
    return None


def _siblings(inputs: Inputs, image: Image) -> Path | None:
    """Return the directory of the image's repository, unless the image lies outside of one."""
    reference = Reference.parse(inputs.image)
    path = Path(image.name)
    if path.parts[-len(reference.path.parts) :] != reference.path.parts:
        return None
    return path.parent if reference.digest is None else path.parent.parent


def _check_tags(inputs: Inputs, attached: Attached) -> None:
    """Refuse artifacts that would take a name away from another one, or from the image.

    Raises:
        PhaseFailed: one does.
    """
    ours = {Reference.parse(name).tag: name for name in inputs.references}
    claimed: dict[str, Tagged] = {}
    for one in attached.tagged:
        what = f"artifact {_shown(one)} of {one.path}"
        if one.tag in ours:
            message = f"{what} claims the tag '{one.tag}' of the image {ours[one.tag]}"
            raise PhaseFailed(Code.ARTIFACTS, message)
        other = claimed.setdefault(one.tag, one)
        if other is not one:
            message = f"{what} claims the tag '{one.tag}', as {_shown(other)} of {other.path} does"
            raise PhaseFailed(Code.ARTIFACTS, message)


def _check_images(inputs: Inputs, attached: Attached, destination: RegistryTarget) -> None:
    """Refuse artifacts that would take their tag away from another image of a repository.

    Raises:
        PhaseFailed: one does.
        RegistryError: a registry cannot tell.
    """
    repositories = {
        (r.registry, r.repository): str(r) for r in map(Reference.parse, inputs.references)
    }
    for one in attached.tagged:
        if OF_REFERRERS.fullmatch(one.tag):  # a signature is stored as an image is
            continue
        for reference in repositories.values():
            if (name := image_of_tag(one.tag, reference, destination)) is not None:
                message = f"artifact {_shown(one)} of {one.path} claims the tag of the image {name}"
                raise PhaseFailed(Code.ARTIFACTS, message)


def _shown(one: Tagged) -> str:
    """Return the file that became an artifact, if that is known, or its digest."""
    digest = str(one.what.root.digest)
    return one.what.root.annotations.get(_TITLE) or digest


def _attach(
    destination: RegistryTarget, attached: Attached, image: Image, saved: Saved, console: Console
) -> None:
    """Send what is attached to the image into each repository that has it now.

    Raises:
        PhaseFailed: that was refused; the image is there.
    """
    names = {(r.registry, r.repository): r for r in map(Reference.parse, saved.names)}
    for reference in names.values():
        try:
            destination.attach(reference, image.root.digest, attached)
        except (OcistowError, OSError) as error:
            message = f"failed to attach artifacts to {reference}: {message_of(error)}"
            raise PhaseFailed(Code.ARTIFACTS, message) from error
    for referrers in attached.referrers.values():
        for referrer in referrers:
            console.info(f"      {_kind(referrer.root)}: {referrer.root.digest}")
    for one in attached.tagged:
        console.info(f"      {one.tag}: {one.what.root.digest}")


def _reported(inputs: Inputs) -> Report:
    """Return what the exporter reported, if it did."""
    found = read_toml(inputs.report_path)
    return Report(()) if found is None else Report.from_document(found, str(inputs.report_path))


def _report(inputs: Inputs, before: Report, image: Image, saved: Saved) -> None:
    """Write what was published in the place of what was exported.

    The run image is told by the image itself: the report may be that of another one.
    """
    report = replace(
        before,
        tags=saved.names,
        digest=saved.digest,
        image_id=saved.image_id.encoded if inputs.daemon else "",
        manifest_size=saved.manifest_size,
        run_image=_run_image(image),
    )
    published = {"digest-in": str(image.root.digest)}
    if saved.digest is not None:
        published["digest-out"] = str(saved.digest)
    write_toml(inputs.report_path, Struct(report.to_document(), published=published))
    write_records(inputs, report, saved)


def _report_losses(
    inputs: Inputs, image: Image, attached: Attached, saved: Saved, console: Console
) -> None:
    """Write what the daemon does not keep."""
    what = f"manifest {image.root.digest}"
    manifest = parse_manifest(read_document(image.source, image.root), image.root)
    assert isinstance(manifest, Manifest)
    document = parse_object(manifest.raw, what)
    layers = zip(image.layers, manifest.layers, strict=True)
    tags = {one.what.root.digest: one.tag for one in attached.tagged}
    artifacts = {
        referrer.root.digest: referrer.root
        for referrers in (*attached.referrers.values(), [one.what for one in attached.tagged])
        for referrer in referrers
    }
    annotations = strings(document, "annotations", what)
    report = Struct(
        image=Struct(
            {
                "tags": list(saved.names),
                "image-id": saved.image_id.encoded,
                "not-kept": list(saved.losses),
            }
        ),
        manifest=_described(image.root, {"annotations": annotations}),
        config=_described(manifest.config, {}),
        layers=[
            _described(blob, {"diff-id": str(layer.diff_id), "annotations": dict(blob.annotations)})
            for layer, blob in layers
        ],
        artifacts=[
            _described(root, {"artifact-type": _kind(root), "tag": tags.get(digest, "")})
            for digest, root in sorted(artifacts.items())
        ],
    )
    path = inputs.layers_dir / DAEMON_REPORT
    write_toml(path, report.without_empty("layers", "artifacts"))
    if saved.losses:
        console.info(f"*** Not kept by the daemon, but in {path}: {', '.join(saved.losses)}")
    if artifacts:
        console.warn(f"Artifacts stay behind, a daemon keeps none: {len(artifacts)}")


def _described(descriptor: Descriptor, more: Mapping[str, object]) -> Struct:
    facts = Struct({"digest": str(descriptor.digest), "media-type": descriptor.media_type})
    facts["size"] = descriptor.size
    facts.update(more)
    return facts.without_empty(*more)


def _kind(root: Descriptor) -> str:
    kind = root.given.get("artifactType")
    return kind if isinstance(kind, str) else root.media_type
