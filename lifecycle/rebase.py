"""The rebaser: puts an app's layers upon a new run image, without a look into any layer.

Source: buildpacks/spec, platform.md, "rebaser"; Go's lifecycle, cmd/lifecycle/rebaser.go and
phase/rebaser.go; go-containerregistry, pkg/v1/mutate/rebase.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..oci.errors import InvalidContent, NotFound, PhaseFailed, RegistryError
from ..oci.reference import Reference
from .console import Console
from .failures import failing
from .files.analyzed import Target as BuildTarget
from .files.labels import (
    IN_JSON,
    LIFECYCLE_METADATA,
    REBASABLE,
    STACK_ID,
    STACK_MIXINS,
    LifecycleMetadata,
    StackRunImage,
    mixins,
)
from .files.report import Report, write_report
from .files.run import run_image_of
from .golang.json import Struct, encode
from .images.assembly import Assembled, Assembly
from .images.config import Config, History, moment
from .images.image import Image, Layer, Saved, Target
from .images.records import write_records
from .images.run_image import not_found
from .images.saving import save
from .inputs import Inputs
from .platform_api import Code, Version

PLATFORM_API = "CNB_PLATFORM_API"

_TARGETS = Version(0, 12)  # from here on images are for targets, before for stacks
_OF_STACK = "io.buildpacks.stack."
_OF_BASE = "io.buildpacks.base."


def rebase(inputs: Inputs, target: Target, console: Console) -> Saved:
    """Save an app image upon another run image, under all of its names, and report that.

    No layer is read, and none is copied that the target has already.

    Raises:
        PhaseFailed: the images do not go together, or one is absent or could not be saved.
    """
    reference = inputs.previous_image or inputs.image
    with failing(Code.REBASE, "set app image"), target.find(reference) as app:
        if app is None:
            raise InvalidContent("failed to access image to rebase")
        metadata = _metadata(app)
        name = inputs.run_image or _run_image(inputs, target, metadata, reference)
        with failing(Code.FAILED, "access run image"), target.find(name) as base:
            if base is None:
                message = not_found(name, target) if inputs.layout else "failed to access run image"
                raise PhaseFailed(Code.FAILED, message)
            with failing(Code.REBASE, "rebase"), console.timer("Rebaser"):
                _check(inputs, app.config, base.config, console)
                own = _above(app, metadata)
                metadata = _rebased(inputs, metadata, base, name, console)
                image = _assembled(inputs, app, base, own, metadata)
                saved = save(target, image, inputs.references, console)
            with failing(Code.REBASE, "write rebase report"):
                _report(inputs, target, saved, metadata)
    return saved


def _metadata(app: Image) -> LifecycleMetadata:
    label = app.config.labels.get(LIFECYCLE_METADATA)
    return LifecycleMetadata.parse(label.encode()) if label else LifecycleMetadata()


def _run_image(inputs: Inputs, target: Target, metadata: LifecycleMetadata, reference: str) -> str:
    """Return the run image that the app remembers, best of the app's own registry."""
    known = metadata.run_image
    if inputs.platform_api >= _TARGETS and known.image:
        names = (known.image, *known.mirrors)
    elif metadata.stack is not None and metadata.stack.image:
        names = (metadata.stack.image, *metadata.stack.mirrors)
    else:
        raise InvalidContent(
            "failed to parse arguments: "
            "-run-image is required when there is no run image metadata available"
        )
    registry = _registry(reference)
    near = [name for name in names if registry and _registry(name) == registry]
    for name in (*near, *names):
        try:
            target.check_access([name], [])
        except (RegistryError, InvalidContent):
            continue
        return name
    raise InvalidContent("failed to find accessible run image")


def _registry(reference: str) -> str:
    """Return the registry of a reference; nothing for what is none, such as a daemon's image."""
    try:
        return Reference.parse(reference).registry
    except InvalidContent:
        return ""


def _check(inputs: Inputs, app: Config, base: Config, console: Console) -> None:
    """Refuse a run image that does not go with the app, by the rules of the app's own API.

    Raises:
        InvalidContent: it does not, and nobody insists.
    """
    api = app.variable(PLATFORM_API)
    if not api or Version.parse(api) < _TARGETS:
        _check_stack(app, base)
        return
    if app.labels.get(REBASABLE) == "false":
        _object(inputs, console, "app image is not marked as rebasable")
    wanted, offered = app.target, base.target
    if not _satisfies(offered, wanted):
        _object(
            inputs,
            console,
            "unable to satisfy target os/arch constraints; "
            f"new run image: {_json(offered.to_document())}, "
            f"old run image: {_json(wanted.to_document())}",
        )


def _check_stack(app: Config, base: Config) -> None:
    stack, offered = app.labels.get(STACK_ID, ""), base.labels.get(STACK_ID, "")
    if not stack:
        raise InvalidContent("stack not defined on app image")
    if not offered:
        raise InvalidContent("stack not defined on new base image")
    if stack != offered:
        raise InvalidContent(f"incompatible stack: '{offered}' is not compatible with '{stack}'")
    if missing := sorted(_mixins(app, "app") - _mixins(base, "run")):
        raise InvalidContent(f"missing required mixin(s): {', '.join(missing)}")


def _mixins(config: Config, which: str) -> set[str]:
    """Return the mixins of an image, without the stage that they are for."""
    try:
        found = mixins(config.labels.get(STACK_MIXINS, "").encode())
    except InvalidContent as error:
        raise InvalidContent(f"get {which} image mixins: {error}") from error
    return {mixin.partition(":")[2] if ":" in mixin else mixin for mixin in found}


def _object(inputs: Inputs, console: Console, why: str) -> None:
    """Say what speaks against the rebase, which -force makes a warning."""
    if not inputs.force_rebase:
        raise InvalidContent(f"{why}; please provide -force to override")
    console.warn(why)


def _satisfies(offered: BuildTarget, wanted: BuildTarget) -> bool:
    """Tell whether an app for one target runs on another; what the run image does not say fits."""
    return (
        (offered.os, offered.arch) == (wanted.os, wanted.arch)
        and (not offered.arch_variant or wanted.arch_variant in ("", offered.arch_variant))
        and offered.distro_name in ("", wanted.distro_name)
        and offered.distro_version in ("", wanted.distro_version)
    )


def _above(app: Image, metadata: LifecycleMetadata) -> Sequence[Layer]:
    """Return the app's own layers: those above the uppermost one of its run image.

    Raises:
        InvalidContent: it has not got that one.
    """
    tops = [str(layer.diff_id) for layer in app.layers]
    if metadata.run_image.top_layer not in tops:
        raise InvalidContent("rebase app image: could not find base layer in image")
    return app.layers[tops.index(metadata.run_image.top_layer) + 1 :]


def _rebased(
    inputs: Inputs, metadata: LifecycleMetadata, base: Image, name: str, console: Console
) -> LifecycleMetadata:
    """Return what the app remembers from now on of the run image below it.

    Raises:
        InvalidContent: it was not made for a run image of this name, and nobody insists.
    """
    if base.top_layer is None:
        raise InvalidContent("get rebase run image top layer SHA: image has no layers")
    run_image = replace(
        metadata.run_image, top_layer=str(base.top_layer), reference=base.identifier
    )
    metadata = replace(metadata, run_image=run_image)
    named = StackRunImage(run_image.image, run_image.mirrors)
    known = [named, *([metadata.stack] if metadata.stack else [])]
    if inputs.platform_api < _TARGETS or run_image_of(name, known):
        return metadata
    there = "not found"
    if run_image.image:
        there = _json(run_image.to_document(IN_JSON))
    elif metadata.stack is not None:
        there = _json(metadata.stack.to_document())
    _object(
        inputs,
        console,
        f"rebase app image: new base image '{name}' not found in existing run image metadata: "
        f"{there}",
    )
    return replace(
        metadata,
        run_image=replace(run_image, image=name, mirrors=()),
        stack=StackRunImage(name),
    )


def _assembled(
    inputs: Inputs, app: Image, base: Image, own: Sequence[Layer], metadata: LifecycleMetadata
) -> Assembled:
    """Put the app's layers upon the new base; where the old base's may be missing, so may these.

    What the app's config says of anything but how it runs is not kept, as in Go's lifecycle.
    """
    assembly = Assembly(base, manifest_type=app.root.media_type, lacking=_lacks_base(app, own))
    for layer in own:
        assembly.lend(app, layer, History(), kept=True)
    below = assembly.config
    prefixes = (_OF_STACK,) if inputs.platform_api < _TARGETS else (_OF_STACK, _OF_BASE)
    labels = {
        **{k: v for k, v in app.config.labels.items() if not k.startswith(prefixes)},
        LIFECYCLE_METADATA: metadata.dump().decode(),
        **{k: v for k, v in base.config.labels.items() if k.startswith(prefixes)},
    }
    assembly.config = replace(
        app.config,
        architecture=below.architecture,
        os=below.os,
        os_version=below.os_version,
        variant="",
        os_features=(),
        author="",
        docker_version="",
        diff_ids=below.diff_ids,
        history=below.history,
        labels=labels,
    )
    return assembly.finish(moment(None), with_history=False)


def _lacks_base(app: Image, own: Sequence[Layer]) -> bool:
    """Tell whether a layout has an app without the layers of its run image."""
    if not app.source.sparse:
        return False
    for layer in app.layers[: len(app.layers) - len(own)]:
        try:
            app.source.open(layer.blob).close()
        except NotFound:
            return True
    return False


def _report(inputs: Inputs, target: Target, saved: Saved, metadata: LifecycleMetadata) -> None:
    report = Report(
        saved.names,
        saved.digest,
        saved.image_id.encoded if target.keeps_identifier else "",
        saved.manifest_size,
        metadata.run_image,
    )
    write_report(inputs.report_path, report)
    write_records(inputs, report, saved)


def _json(document: Struct) -> str:
    return encode(document).decode()
