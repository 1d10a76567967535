"""analyzed.toml: what the analyzer found out about the previous image and the run image.

Source: buildpacks/spec, platform.md, "analyzed.toml".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ...oci.document import Object, flag, inner, string
from ..console import Console
from ..golang import json as gojson
from ..golang.json import Struct
from .document import read_file, write_toml
from .labels import IN_TOML, LifecycleMetadata


@dataclass(frozen=True, slots=True)
class Target:
    """What an image was built for; an empty variant or distribution fits all."""

    os: str = ""
    arch: str = ""
    arch_variant: str = ""
    distro_name: str = ""
    distro_version: str = ""
    id: str = ""

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read `[run-image.target]`."""
        distro = inner(document, "distro", what)
        return cls(
            string(document, "os", what),
            string(document, "arch", what),
            string(document, "arch-variant", what),
            distro_name=string(distro, "name", f"distro of {what}"),
            distro_version=string(distro, "version", f"distro of {what}"),
            id=string(document, "id", what),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads, in TOML and in Go's JSON."""
        names = {"os": self.os, "arch": self.arch, "arch-variant": self.arch_variant}
        document = Struct({"id": self.id, **names}).without_empty("id", "arch-variant")
        if self.distro_name or self.distro_version:
            document["distro"] = Struct(name=self.distro_name, version=self.distro_version)
        return document


@dataclass(frozen=True, slots=True)
class AnalyzedRunImage:
    """The run image.

    Attributes:
        reference: its identifier; empty if it was not found.
        image: its name as it was given; from API 0.12 on.
        target: from API 0.12 on.
    """

    reference: str = ""
    image: str = ""
    extend: bool = False
    target: Target | None = None

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read `[run-image]`."""
        target = document.get("target")
        return cls(
            string(document, "reference", what),
            string(document, "image", what),
            flag(document, "extend", what),
            None if target is None else Target.from_document(inner(document, "target", what), what),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        document = Struct(reference=self.reference, image=self.image, extend=self.extend)
        if self.target is not None:
            document["target"] = self.target.to_document()
        return document.without_empty("image", "extend")


@dataclass(frozen=True, slots=True)
class Analyzed:
    """The whole file.

    Attributes:
        previous_image: identifier of the image of the last build; empty without one, None if
            nothing was analyzed.
        build_image: likewise, when the restorer was told of one.
    """

    previous_image: str | None = None
    build_image: str = ""
    run_image: AnalyzedRunImage | None = None
    metadata: LifecycleMetadata = field(default_factory=LifecycleMetadata)

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the file's tables."""
        previous = run_image = None
        if document.get("image") is not None:
            previous = string(inner(document, "image", what), "reference", f"image of {what}")
        if document.get("run-image") is not None:
            table = inner(document, "run-image", what)
            run_image = AnalyzedRunImage.from_document(table, f"run-image of {what}")
        metadata = inner(document, "metadata", what)
        return cls(
            previous,
            string(inner(document, "build-image", what), "reference", f"build-image of {what}"),
            run_image,
            LifecycleMetadata.from_document(metadata, IN_TOML, f"metadata of {what}"),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        document = Struct()
        if self.previous_image is not None:
            document["image"] = Struct(reference=self.previous_image)
        if self.build_image:
            document["build-image"] = Struct(reference=self.build_image)
        document["metadata"] = self.metadata.to_document(IN_TOML)
        if self.run_image is not None:
            document["run-image"] = self.run_image.to_document()
        return document


def read_analyzed(path: Path, console: Console) -> Analyzed:
    """Read the file; one that is not there is a warning, and nothing was analyzed.

    Raises:
        InvalidContent: it cannot be read or understood.
    """
    analyzed = read_file(path, "analyzed", Analyzed.from_document)
    if analyzed is None:
        console.warn(f'No analyzed metadata found at path "{path}"')
        return Analyzed()
    return analyzed


def write_analyzed(path: Path, analyzed: Analyzed, console: Console) -> None:
    """Write the file, and tell those who debug what it says of the run image.

    Raises:
        OSError: it cannot be written.
    """
    console.debug("Run image info in analyzed metadata is: ")
    console.debug(_described(analyzed.run_image))
    write_toml(path, analyzed.to_document())


def _described(run_image: AnalyzedRunImage | None) -> str:
    if run_image is None:
        return "null"
    document = Struct(Reference=run_image.reference, Image=run_image.image, Extend=run_image.extend)
    if run_image.target is not None:
        document["target"] = run_image.target.to_document()
    return gojson.encode(document).decode()
