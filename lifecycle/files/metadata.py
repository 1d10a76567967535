"""`<layers>/config/metadata.toml`: what the builder learnt, and the launcher will read.

It is also the label `io.buildpacks.build.metadata`.
Source: buildpacks/spec, platform.md, "metadata.toml"; Go's lifecycle, platform/files/metadata.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ...oci.document import Object, flag, inner, inners, string, texts
from ..golang import json as gojson
from ..golang.json import Struct
from ..golang.toml import Literal
from ..platform_api import Version
from .document import read_required, write_toml
from .group import GroupElement, elements

_COMMANDS = Version(0, 10)  # from then on a command is a list
_NO_BILLS = Version(0, 9)  # from then on SBOM files say what the bill of materials said


@dataclass(frozen=True, slots=True)
class BillEntry:
    """An entry of a bill of materials, in the form that SBOM files have replaced.

    Attributes:
        metadata: None where there is no such table.
        buildpack: whose entry it is.
    """

    name: str
    version: str = ""
    metadata: Mapping[str, object] | None = None
    buildpack: GroupElement = field(default_factory=lambda: GroupElement(""))

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry of `[[bom]]`."""
        has_metadata = document.get("metadata") is not None
        return cls(
            string(document, "name", what),
            string(document, "version", what),
            inner(document, "metadata", what) if has_metadata else None,
            GroupElement.from_document(inner(document, "buildpack", what), what),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads; the same in JSON."""
        document = Struct(name=self.name, version=self.version, metadata=self.metadata)
        document["buildpack"] = self.buildpack.to_json()
        return document.without_empty("version")


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a buildpack wants on the image."""

    key: str
    value: str

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry of `[[labels]]`."""
        return cls(string(document, "key", what), string(document, "value", what))


@dataclass(frozen=True, slots=True)
class Process:
    """A process that the image can start.

    Attributes:
        command: the program and arguments that cannot be replaced; before API 0.10 only one.
        args: None where there is no such list, which labels tell from an empty one.
    """

    type: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] | None = None
    direct: bool = False
    buildpack_id: str = ""
    working_dir: str = ""
    exec_env: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry of `[[processes]]`."""
        command = document.get("command")
        return cls(
            string(document, "type", what),
            (command,) if isinstance(command, str) else texts(document, "command", what),
            texts(document, "args", what) if document.get("args") is not None else None,
            flag(document, "direct", what),
            string(document, "buildpack-id", what),
            string(document, "working-dir", what),
            texts(document, "exec-env", what),
        )

    def of(self, api: Version) -> Process:
        """Return it as platforms of this API know it: before 0.10, commands have one element."""
        if api >= _COMMANDS or not self.command:
            return self
        return replace(self, command=self.command[:1], args=(*self.command[1:], *(self.args or ())))

    def to_document(self, api: Version) -> Struct:
        """Return what `from_document` reads."""
        return self._document(Literal(self._command(api, ", ")), "buildpack-id")

    def to_json(self, api: Version) -> Struct:
        """Return what the label has."""
        command = self.command if api >= _COMMANDS else "".join(self.command[:1])
        return self._document(command, "buildpackID")

    def _document(self, command: object, buildpack_id: str) -> Struct:
        return Struct(
            {
                "type": self.type,
                "command": command,
                "args": self.args,
                "direct": self.direct,
                buildpack_id: self.buildpack_id,
                "working-dir": self.working_dir,
                "exec-env": self.exec_env,
            }
        ).without_empty("working-dir", "exec-env")

    def _command(self, api: Version, separator: str) -> str:
        """Return the command as Go's lifecycle writes it: TOML whose strings are those of JSON."""
        quoted = [gojson.quote(part).replace("\x7f", "\\u007f") for part in self.command]
        if api >= _COMMANDS:
            return f"[{separator.join(quoted)}]"
        return quoted[0] if quoted else '""'


@dataclass(frozen=True, slots=True)
class LauncherMetadata:
    """What the label says of the launcher: its version, and the source it is of."""

    version: str = ""
    repository: str = ""
    commit: str = ""

    def to_json(self) -> Struct:
        """Return what the label has."""
        git = Struct(repository=self.repository, commit=self.commit)
        return Struct(version=self.version, source=Struct(git=git))


@dataclass(frozen=True, slots=True)
class BuildMetadata:
    """The whole file.

    Attributes:
        slices: path patterns relative to the app directory, for one layer each.
        processes: sorted by type.
        bill: empty from API 0.9 on.
    """

    default_process: str = ""
    buildpacks: tuple[GroupElement, ...] = ()
    extensions: tuple[GroupElement, ...] = ()
    labels: tuple[Label, ...] = ()
    processes: tuple[Process, ...] = ()
    slices: tuple[tuple[str, ...], ...] = ()
    bill: tuple[BillEntry, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the file's tables."""
        return cls(
            string(document, "buildpack-default-process-type", what),
            elements(document, "buildpacks", what),
            elements(document, "extensions", what),
            tuple(Label.from_document(each, what) for each in inners(document, "labels", what)),
            tuple(
                Process.from_document(each, what) for each in inners(document, "processes", what)
            ),
            tuple(texts(each, "paths", what) for each in inners(document, "slices", what)),
            tuple(BillEntry.from_document(each, what) for each in inners(document, "bom", what)),
        )

    def to_document(self, api: Version) -> Struct:
        """Return what `from_document` reads."""
        extensions = [
            replace(each, extension=False, optional=False).to_document() for each in self.extensions
        ]
        return Struct(
            {
                "bom": [each.to_document() for each in self.bill] or None,
                "buildpacks": [each.to_document() for each in self.buildpacks] or None,
                "extensions": extensions or None,
                "labels": [Struct(key=each.key, value=each.value) for each in self.labels] or None,
                "processes": [each.of(api).to_document(api) for each in self.processes],
                "slices": [Struct(paths=paths) for paths in self.slices] or None,
                "buildpack-default-process-type": self.default_process or None,
            }
        )

    def label(self, launcher: LauncherMetadata, api: Version) -> bytes:
        """Return the label, byte for byte as Go's lifecycle writes it."""
        processes = [each.of(api).to_json(api) for each in self.processes]
        document = Struct(
            {
                "bom": [each.to_document() for each in self.bill] or None,
                "buildpacks": [each.to_json() for each in self.buildpacks] or None,
                "extensions": [each.to_json() for each in self.extensions],
                "launcher": launcher.to_json(),
                "processes": processes,
                "buildpack-default-process-type": self.default_process,
            }
        ).without_empty("extensions", "buildpack-default-process-type")
        if api >= _NO_BILLS:
            del document["bom"]
        return gojson.encode(document)


def read_build_metadata(path: Path, api: Version) -> BuildMetadata:
    """Read the file; its processes are then as platforms of this API know them.

    Raises:
        InvalidContent: it is absent, or cannot be read or understood.
    """
    metadata = read_required(path, "build metadata", BuildMetadata.from_document)
    return replace(metadata, processes=tuple(process.of(api) for process in metadata.processes))


def write_build_metadata(path: Path, metadata: BuildMetadata, api: Version) -> None:
    """Write the file; its bytes are those of Go's lifecycle, since they become a layer.

    Raises:
        InvalidContent: a value is nothing that TOML has.
        OSError: it cannot be written.
    """
    write_toml(path, metadata.to_document(api))
