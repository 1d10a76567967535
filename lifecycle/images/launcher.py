"""What a launcher says of itself: the version that Go linked into it.

Source: Go, debug/buildinfo; Go's lifecycle, Makefile.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..files.metadata import LauncherMetadata

UNKNOWN = LauncherMetadata("0.0.0")  # as a lifecycle says that was built without a version

_FLAGS = re.compile(rb"build\t-ldflags=([^\n]{0,4096})\n")
_VARIABLE = re.compile(rb"-X '?github\.com/buildpacks/lifecycle/cmd\.(\w+)=([^' \"]*)")
_CHUNK = 1 << 20  # bytes
_LINE = 8 << 10  # bytes, at most, of what is looked for


def launcher_metadata(path: Path) -> LauncherMetadata:
    """Return version and source of a launcher; `UNKNOWN` if it does not tell.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        seen = b""
        while data := stream.read(_CHUNK):
            seen = seen[-_LINE:] + data
            if found := _FLAGS.search(seen):
                return _metadata(found[1])
    return UNKNOWN


def _metadata(flags: bytes) -> LauncherMetadata:
    said = {name: value.decode(errors="replace") for name, value in _VARIABLE.findall(flags)}
    return LauncherMetadata(
        said.get(b"Version", UNKNOWN.version),
        said.get(b"SCMRepository", ""),
        said.get(b"SCMCommit", ""),
    )
