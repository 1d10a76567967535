"""project-metadata.toml: where the application's source came from.

Source: buildpacks/spec, platform.md, "project-metadata.toml", "io.buildpacks.project.metadata".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ...oci.document import Object, inner, string
from ..console import Console
from ..golang import json as gojson
from ..golang.json import Struct
from .document import read_file


@dataclass(frozen=True, slots=True)
class ProjectSource:
    """Kind, version and circumstances of the source; the latter two are the platform's."""

    type: str = ""
    version: Mapping[str, object] = field(default_factory=dict[str, object])
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class ProjectMetadata:
    """The whole file."""

    source: ProjectSource | None = None

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the file's tables."""
        if document.get("source") is None:
            return cls()
        source = inner(document, "source", what)
        version, metadata = (inner(source, name, what) for name in ("version", "metadata"))
        return cls(ProjectSource(string(source, "type", what), version, metadata))

    def label(self) -> bytes:
        """Return the label, byte for byte as Go's lifecycle writes it.

        Raises:
            InvalidContent: the file has a number that JSON has not.
        """
        if self.source is None:
            return b"{}"
        source = Struct(
            type=self.source.type, version=self.source.version, metadata=self.source.metadata
        )
        return gojson.encode(Struct(source=source.without_empty("type", "version", "metadata")))


def read_project_metadata(path: Path, console: Console) -> ProjectMetadata:
    """Read the file; without it nothing is known of the source.

    Raises:
        InvalidContent: it cannot be read or understood.
    """
    metadata = read_file(path, "project metadata", ProjectMetadata.from_document)
    if metadata is None:
        console.debug(
            f'No project metadata found at path "{path}", project metadata will not be exported'
        )
        return ProjectMetadata()
    return metadata
