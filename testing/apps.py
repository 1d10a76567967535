"""Run images, and apps upon them that remember theirs, small and the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from ..lifecycle.files.labels import LIFECYCLE_METADATA, LifecycleMetadata
from ..lifecycle.images.assembly import Assembly
from ..lifecycle.images.config import History, moment
from ..lifecycle.images.image import Image, Layer, Target, open_image
from ..publish.layout import LayoutSource
from ..publish.packing import pack
from .images import Media, image_layout
from .tarballs import random_tar


def opened(path: Path) -> Image:
    """Open the only image of a layout."""
    source = LayoutSource(path)
    root = source.resolve()
    return open_image(str(path), f"{path}@{root.digest}", source, root)


def make_run_image(
    target: Target,
    reference: str,
    scratch: Path,
    *,
    seed: int,
    labels: Mapping[str, str] | None = None,
    media: Media = "oci",
    layers: int = 2,
) -> None:
    """Save a run image; `scratch` is a directory to be made."""
    image_layout(scratch, seed=seed, layers=layers, media=media)
    assembly = Assembly(opened(scratch))
    assembly.config = replace(
        assembly.config, author="somebody", docker_version="20", labels=labels or {}
    )
    target.save(assembly.finish(moment(None), with_history=True), [reference])


def make_app(
    target: Target,
    reference: str,
    run_image: str,
    *,
    api: str = "0.12",
    labels: Mapping[str, str] | None = None,
    metadata: LifecycleMetadata | None = None,
    remembers: bool = True,
) -> None:
    """Save an app upon a run image that the target has.

    Besides what `metadata` says it remembers that run image, and its name if it `remembers`.
    """
    metadata = metadata or LifecycleMetadata()
    with (
        target.find(run_image) as run,
        target.staging(reference) as staging,
        staging.blobs.ingest() as ingest,
    ):
        assert run is not None
        layer = pack(BytesIO(b"".join(random_tar("app", 1000))), ingest, "sha256").layer
        assembly = Assembly(run)
        assembly.add(Layer(layer.diff_id, layer.blob), ingest, "Application Layer")
        known = replace(
            metadata.run_image,
            top_layer=str(run.top_layer),
            reference=run.identifier,
            image=metadata.run_image.image or (run_image if remembers else ""),
        )
        label = replace(metadata, run_image=known, app=(str(layer.diff_id),)).dump().decode()
        config = assembly.config.with_variable("CNB_PLATFORM_API", api) if api else assembly.config
        assembly.config = replace(
            config,
            entrypoint=("/cnb/process/web",),
            history=(*config.history[:-1], History("Application Layer")),
            labels={**run.config.labels, LIFECYCLE_METADATA: label, **(labels or {})},
        )
        target.save(assembly.finish(moment(None), with_history=True), [reference])
