"""Platforms, and which of them an image runs on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .document import Object, string
from .errors import InvalidContent

_PART = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """Where an image runs. Source: image-spec, image-index.md, "platform".

    >>> str(Platform.parse("linux/arm64/v8"))
    'linux/arm64/v8'
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`, with the usual other names of architectures.

        Raises:
            InvalidContent: `text` has another form.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidContent(f"not a platform such as linux/amd64: {text[:200]!r}")
        os, architecture, variant = (*parts, "")[:3]
        return cls(os, _ARCHITECTURES.get(architecture, architecture), variant)

    @classmethod
    def from_document(cls, document: Object, what: str) -> Platform:
        """Read the `platform` object of a descriptor, or the same members of an image config."""
        return cls(
            string(document, "os", what),
            string(document, "architecture", what),
            string(document, "variant", what),
            string(document, "os.version", what),
        )

    def to_document(self) -> dict[str, str]:
        """Return the JSON object of a descriptor's `platform`."""
        document = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            document["os.version"] = self.os_version
        if self.variant:
            document["variant"] = self.variant
        return document

    def runs(self, other: Platform) -> bool:
        """Tell whether an image for `other` is what was meant by this platform.

        A variant that is not given means the default one, v8 for arm64 and v7
        for arm; an OS version matters only when this platform gives one.
        """
        return (
            (self.os, self.architecture) == (other.os, other.architecture)
            and self._variant() == other._variant()
            and self.os_version in ("", other.os_version)
        )

    def _variant(self) -> str:
        return self.variant or _DEFAULT_VARIANTS.get(self.architecture, "")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
