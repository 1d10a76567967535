"""The values of the labels by which images remember how they were built.

Source: buildpacks/spec, platform.md, "Labels".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LIFECYCLE_METADATA = "io.buildpacks.lifecycle.metadata"
BUILD_METADATA = "io.buildpacks.build.metadata"
PROJECT_METADATA = "io.buildpacks.project.metadata"
CACHE_METADATA = "io.buildpacks.lifecycle.cache.metadata"
EXEC_ENV = "io.buildpacks.exec-env"
REBASABLE = "io.buildpacks.rebasable"
STACK_ID = "io.buildpacks.stack.id"
STACK_MIXINS = "io.buildpacks.stack.mixins"
BASE_ID = "io.buildpacks.base.id"
DISTRO_NAME = "io.buildpacks.base.distro.name"
DISTRO_VERSION = "io.buildpacks.base.distro.version"


@dataclass(frozen=True, slots=True)
class LayerMetadata:
    """What an image or a cache remembers of one layer of a buildpack.

    Attributes:
        sha: the diffID as text.
        data: what the buildpack wrote under `[metadata]`, any JSON value.
    """

    sha: str = ""
    data: object = None
    build: bool = False
    launch: bool = False
    cache: bool = False


@dataclass(frozen=True, slots=True)
class BuildpackLayers:
    """What an image or a cache remembers of one buildpack.

    Attributes:
        layers: by their names.
        store: what it wrote under `[metadata]` of store.toml; None without that file.
    """

    key: str
    version: str
    layers: Mapping[str, LayerMetadata] = field(default_factory=dict[str, LayerMetadata])
    store: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class RunImageMetadata:
    """The run image below an app image; `mirrors` and `image` are known from API 0.12 on."""

    top_layer: str = ""
    reference: str = ""
    image: str = ""
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StackRunImage:
    """What the label of old calls the stack: the run image's name and its mirrors."""

    image: str = ""
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LifecycleMetadata:
    """The label `io.buildpacks.lifecycle.metadata`; layers are named by their diffIDs as text."""

    app: tuple[str, ...] = ()
    sbom: str = ""
    buildpacks: tuple[BuildpackLayers, ...] = ()
    config: str = ""
    launcher: str = ""
    process_types: str = ""
    run_image: RunImageMetadata = field(default_factory=RunImageMetadata)
    stack: StackRunImage | None = None


@dataclass(frozen=True, slots=True)
class CacheMetadata:
    """What a cache remembers: of a directory a file of that name, of an image a label."""

    sbom: str = ""
    buildpacks: tuple[BuildpackLayers, ...] = ()
