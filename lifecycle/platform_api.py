"""Versions of the two APIs, and the exit statuses of phases.

Source: buildpacks/spec, platform.md and buildpack.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from ..oci.errors import InvalidContent

_VERSION = re.compile(r"v?([0-9]{1,9})\.?([0-9]{0,9})")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version of the Platform API or the Buildpack API.

    >>> Version.parse("0.12") > Version(0, 9)
    True
    """

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `major.minor`, or `major` alone.

        Raises:
            InvalidContent: `text` has another form.
        """
        found = _VERSION.fullmatch(text)
        if found is None:
            raise InvalidContent(f"could not parse {text[:100]!r} as version")
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PLATFORM_APIS = tuple(Version(0, minor) for minor in range(7, 16))
BUILDPACK_APIS = tuple(Version(0, minor) for minor in range(7, 13))


class Code(IntEnum):
    """Exit statuses. Source: platform.md, "Exit Codes"; those of the publisher: ADR 12."""

    FAILED = 1
    USAGE = 2
    INVALID_ARGS = 3
    PLATFORM_API = 11
    BUILDPACK_API = 12
    NOT_DETECTED = 20
    NOT_DETECTED_AND_ERROR = 21
    DETECT = 22
    ANALYZE = 32
    RESTORE = 42
    BUILDPACK_BUILD = 51
    BUILD = 52
    EXPORT = 62
    REBASE = 72
    PUBLISH = 112
    ARTIFACTS = 113
