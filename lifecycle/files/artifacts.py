"""artifacts.toml: files of a layer that shall go to the registry besides the image.

Source: the draft "Additional OCI Artifacts from Buildpacks".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ...oci.document import Object, inners, string
from ...oci.errors import InvalidContent

CONFIG_MEDIA_TYPE = "ConfigMediaType"
CONTENT_MEDIA_TYPE = "ContentLayerMediaType"


@dataclass(frozen=True, slots=True)
class Declaration:
    """An entry of `[[artifact]]`.

    Attributes:
        labels: of all tables of labels together.
    """

    tag: str
    file: str
    labels: Mapping[str, str]

    @classmethod
    def from_document(cls, document: Object, what: str) -> Self:
        """Read an entry.

        Raises:
            InvalidContent: it is malformed, or gives one label two values.
        """
        labels: dict[str, str] = {}
        for table in inners(document, "labels", what):
            for key in table:
                value = string(table, key, f"labels of {what}")
                if labels.setdefault(key, value) != value:
                    raise InvalidContent(f"labels of {what} have two values for {key!r}")
        return cls(string(document, "tag", what), string(document, "file", what), labels)


def declarations(document: Object, what: str) -> tuple[Declaration, ...]:
    """Read the file.

    Raises:
        InvalidContent: an entry is malformed.
    """
    return tuple(
        Declaration.from_document(entry, f"artifact {number} of {what}")
        for number, entry in enumerate(inners(document, "artifact", what), 1)
    )
