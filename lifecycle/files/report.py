"""report.toml and, of an older draft, exported.toml: what became of an export or a rebase.

Written after success only. Kubernetes takes no more than 4,096 bytes of such a file as a
termination message, so it says nothing twice but the run image, in both of its shapes.
Source: buildpacks/spec, platform.md, "report.toml"; RFC 129 "Export Run Image Metadata", both as
it was proposed and as it was accepted; "Export Report", the draft.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...oci.digest import Digest
from ...oci.document import Object, inner, inners, string, texts
from ...oci.errors import InvalidContent
from ..golang.json import Struct
from .document import read_required, write_toml
from .labels import IN_TOML, RunImageMetadata
from .metadata import BillEntry


@dataclass(frozen=True, slots=True)
class Report:
    """The whole file.

    Attributes:
        tags: every name that the image has now.
        digest: of the manifest; None where there is none to be had.
        image_id: the identifier of the config, without `sha256:`; empty if a daemon has not got it.
        manifest_size: in bytes; 0 if unknown.
        bill: what build.toml files said; before API 0.9.
    """

    tags: tuple[str, ...]
    digest: Digest | None = None
    image_id: str = ""
    manifest_size: int = 0
    run_image: RunImageMetadata | None = None
    bill: tuple[BillEntry, ...] = ()

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read the file's tables."""
        image, build = inner(document, "image", what), inner(document, "build", what)
        digest, size = string(image, "digest", what), image.get("manifest-size", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidContent(f"manifest-size of {what} is not a size")
        run_image = None
        if image.get("run-image") is not None:
            table = inner(image, "run-image", what)
            run_image = RunImageMetadata.from_document(table, IN_TOML, what)
        return cls(
            texts(image, "tags", what),
            Digest.parse(digest) if digest else None,
            string(image, "image-id", what),
            size,
            run_image,
            tuple(BillEntry.from_document(each, what) for each in inners(build, "bom", what)),
        )

    def to_document(self) -> Struct:
        """Return what `from_document` reads."""
        document, image = Struct(), Struct(tags=self.tags)
        if self.bill:
            document["build"] = Struct(bom=[each.to_document() for each in self.bill])
        image["image-id"] = self.image_id or None
        image["digest"] = str(self.digest) if self.digest else None
        image["manifest-size"] = self.manifest_size or None
        document["image"] = image
        if self.run_image is not None:
            accepted = image["run-image"] = self.run_image.to_document(IN_TOML)
            proposed = ("image", "reference", "top-layer")
            document["run-image"] = Struct((name, accepted.get(name)) for name in proposed)
        return document


def read_report(path: Path) -> Report:
    """Read report.toml.

    Raises:
        InvalidContent: it is absent, or cannot be read or understood.
    """
    return read_required(path, "report", Report.from_document)


def write_report(path: Path, report: Report) -> None:
    """Write report.toml.

    Raises:
        OSError: it cannot be written.
    """
    write_toml(path, report.to_document())


def write_exported(path: Path, report: Report) -> None:
    """Write what `-exported` asks for: the tags, and the digest or else the image's identifier.

    Raises:
        OSError: it cannot be written.
    """
    identifier = str(report.digest) if report.digest else report.image_id
    write_toml(path, Struct(image=Struct(tags=report.tags, identifier=identifier)))
