"""The labels by which images remember how they were built.

Source: buildpacks/spec, platform.md, "Labels"; Go's lifecycle, platform/files/analyzed.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from ...oci.document import (
    Object,
    as_object,
    flag,
    inner,
    inners,
    parse_object,
    string,
    texts,
    writable,
)
from ...oci.errors import InvalidContent
from ..golang import json as gojson
from ..golang.json import Struct

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
class Spelling:
    """How a few members are called in JSON, and how in analyzed.toml."""

    data: str
    run_image: str
    top_layer: str


IN_JSON = Spelling("data", "runImage", "topLayer")
IN_TOML = Spelling("metadata", "run-image", "top-layer")


@dataclass(frozen=True, slots=True)
class LayerMetadata:
    """What an image or a cache remembers of one layer of a buildpack.

    Attributes:
        sha: the diffID as text.
        data: what the buildpack wrote under `[metadata]`, any value of TOML or JSON.
    """

    sha: str = ""
    data: object = None
    build: bool = False
    launch: bool = False
    cache: bool = False

    @classmethod
    def from_document(cls, document: Object, spelling: Spelling, what: str) -> Self:
        """Read the object that a label or analyzed.toml has."""
        return cls(
            string(document, "sha", what),
            document.get(spelling.data),
            flag(document, "build", what),
            flag(document, "launch", what),
            flag(document, "cache", what),
        )

    def to_document(self, spelling: Spelling) -> Struct:
        """Return what `from_document` reads."""
        flags = {"build": self.build, "launch": self.launch, "cache": self.cache}
        return Struct({"sha": self.sha, spelling.data: self.data, **flags})


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """What a buildpack wrote into store.toml: its table `[metadata]`; None if it has none."""

    metadata: Object | None = None

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read that file, or the object that a label or analyzed.toml has."""
        is_there = document.get("metadata") is not None
        return cls(inner(document, "metadata", what) if is_there else None)

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(metadata=self.metadata)


@dataclass(frozen=True, slots=True)
class BuildpackLayers:
    """What an image or a cache remembers of one buildpack.

    Attributes:
        layers: by their names.
        store: None if it wrote no store.toml.
    """

    key: str
    version: str
    layers: Mapping[str, LayerMetadata] = field(default_factory=dict[str, LayerMetadata])
    store: StoreMetadata | None = None

    @classmethod
    def from_document(cls, document: Object, spelling: Spelling, what: str) -> Self:
        """Read the object that a label or analyzed.toml has."""
        layers = {
            name: LayerMetadata.from_document(as_object(layer, what), spelling, what)
            for name, layer in inner(document, "layers", what).items()
        }
        store = None
        if document.get("store") is not None:
            store = StoreMetadata.from_document(inner(document, "store", what), what)
        return cls(string(document, "key", what), string(document, "version", what), layers, store)

    def to_document(self, spelling: Spelling) -> Struct:
        """Return what `from_document` reads."""
        document = Struct(
            key=self.key,
            version=self.version,
            layers={name: layer.to_document(spelling) for name, layer in self.layers.items()},
        )
        if self.store is not None:
            document["store"] = self.store.to_document()
        return document


@dataclass(frozen=True, slots=True)
class RunImageMetadata:
    """The run image below an app image; `mirrors` and `image` are known from API 0.12 on."""

    top_layer: str = ""
    reference: str = ""
    image: str = ""
    mirrors: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Object, spelling: Spelling, what: str) -> Self:
        """Read the object that a label or analyzed.toml has."""
        return cls(
            string(document, spelling.top_layer, what),
            string(document, "reference", what),
            string(document, "image", what),
            texts(document, "mirrors", what),
        )

    def to_document(self, spelling: Spelling) -> Struct:
        """Return what `from_document` reads."""
        document = Struct({spelling.top_layer: self.top_layer, "reference": self.reference})
        document.update(StackRunImage(self.image, self.mirrors).to_document())
        return document


@dataclass(frozen=True, slots=True)
class StackRunImage:
    """A run image's name and its mirrors: all that labels of old know, and what run.toml has."""

    image: str = ""
    mirrors: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the object that a label, analyzed.toml, run.toml or stack.toml has."""
        return cls(string(document, "image", what), texts(document, "mirrors", what))

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        return Struct(image=self.image, mirrors=self.mirrors).without_empty("image", "mirrors")


@dataclass(frozen=True, slots=True)
class LifecycleMetadata:
    """The label `io.buildpacks.lifecycle.metadata`; layers are named by their diffIDs as text.

    Attributes:
        old_app: what an image of old says in the place of `app`, if that is no list of layers;
            it is written again as it was.
    """

    app: tuple[str, ...] = ()
    sbom: str = ""
    buildpacks: tuple[BuildpackLayers, ...] = ()
    config: str = ""
    launcher: str = ""
    process_types: str = ""
    run_image: RunImageMetadata = field(default_factory=RunImageMetadata)
    stack: StackRunImage | None = None
    old_app: object = None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the label.

        Raises:
            InvalidContent: it is not JSON, or not of that form.
        """
        document = _parse(raw, LIFECYCLE_METADATA)
        return cls.from_document(document, IN_JSON, f"label {LIFECYCLE_METADATA}")

    @classmethod
    def from_document(cls, document: Object, spelling: Spelling, what: str) -> Self:
        """Read the object of the label, or `[metadata]` of analyzed.toml."""

        def sha(name: str) -> str:
            return string(inner(document, name, what), "sha", f"{name} of {what}")

        try:
            app = tuple(string(layer, "sha", what) for layer in inners(document, "app", what))
            old_app = None
        except InvalidContent:
            app, old_app = (), document["app"]
        stack = None
        if document.get("stack") is not None:
            run_image = inner(inner(document, "stack", what), spelling.run_image, what)
            stack = StackRunImage.from_document(run_image, what)
        return cls(
            app=app,
            sbom=sha("sbom"),
            buildpacks=_buildpacks(document, spelling, what),
            config=sha("config"),
            launcher=sha("launcher"),
            process_types=sha("process-types"),
            run_image=RunImageMetadata.from_document(
                inner(document, spelling.run_image, what), spelling, what
            ),
            stack=stack,
            old_app=old_app,
        )

    def dump(self) -> bytes:
        """Return the label, byte for byte as Go's lifecycle writes it."""
        document = self.to_document(IN_JSON)
        if self.old_app is not None:
            document["app"] = self.old_app
        return gojson.encode(document)

    def to_document(self, spelling: Spelling) -> Struct:
        """Return what `from_document` reads; without `old_app`."""
        document = Struct({"app": [Struct(sha=sha) for sha in self.app] or None})
        if self.sbom:
            document["sbom"] = Struct(sha=self.sbom)
        document["buildpacks"] = [each.to_document(spelling) for each in self.buildpacks] or None
        document["config"] = Struct(sha=self.config)
        document["launcher"] = Struct(sha=self.launcher)
        document["process-types"] = Struct(sha=self.process_types)
        document[spelling.run_image] = self.run_image.to_document(spelling)
        if self.stack is not None:
            document["stack"] = Struct({spelling.run_image: self.stack.to_document()})
        return document


@dataclass(frozen=True, slots=True)
class CacheMetadata:
    """What a cache remembers: of a directory a file of that name, of an image a label."""

    sbom: str = ""
    buildpacks: tuple[BuildpackLayers, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the file, or the label.

        Raises:
            InvalidContent: it is not JSON, or not of that form.
        """
        document, what = _parse(raw, CACHE_METADATA), f"label {CACHE_METADATA}"
        sbom = string(inner(document, "sbom", what), "sha", what)
        return cls(sbom, _buildpacks(document, IN_JSON, what))

    def dump(self) -> bytes:
        """Return the label, byte for byte as Go's lifecycle writes it."""
        buildpacks = [each.to_document(IN_JSON) for each in self.buildpacks]
        return gojson.encode(Struct(sbom=Struct(sha=self.sbom), buildpacks=buildpacks or None))


def mixins(raw: bytes) -> tuple[str, ...]:
    """Read the label `io.buildpacks.stack.mixins`, an array of strings.

    Raises:
        InvalidContent: it is something else.
    """
    return texts(parse_object(b'{"mixins":%b}' % (raw or b"[]"), STACK_MIXINS), "mixins", "label")


def _buildpacks(document: Object, spelling: Spelling, what: str) -> tuple[BuildpackLayers, ...]:
    entries = inners(document, "buildpacks", what)
    return tuple(BuildpackLayers.from_document(entry, spelling, what) for entry in entries)


def _parse(raw: bytes, label: str) -> Object:
    """Read a label; all its numbers are floating-point ones, as Go has it.

    A buildpack that wrote an integer gets a float back: those that run under Go's lifecycle know.
    """
    what = f"label {label}"
    return writable(parse_object(raw, what, integer=float), what)
