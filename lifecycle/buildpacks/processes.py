"""The processes of an image: which of several buildpacks' wins.

Source: buildpacks/spec, buildpack.md, "launch.toml (TOML)"; Go's lifecycle, phase/builder.go.
"""

from __future__ import annotations

from ..files.launch import Launch
from ..files.metadata import Process

_REDEFINED = (
    "Warning: redefining the following default process type with a process not marked as default: "
)


class Processes:
    """The processes so far. A later buildpack's replaces one of the same type.

    Attributes:
        default: the type that was marked last; empty once a process that is not marked replaced it.
    """

    def __init__(self) -> None:
        self.default = ""
        self._by_type: dict[str, Process] = {}

    def add(self, launch: Launch) -> str:
        """Take the processes of the next buildpack, and return a warning; empty for none."""
        warning = ""
        for place, process in enumerate(launch.processes):
            if place == launch.default:
                self.default, warning = process.type, ""
            elif process.type == self.default:
                self.default, warning = "", f"{_REDEFINED}{process.type}"
            self._by_type[process.type] = process
        return warning

    def listed(self) -> tuple[Process, ...]:
        """Return all of them, sorted by type."""
        names = sorted(self._by_type, key=lambda name: name.encode(errors="surrogateescape"))
        return tuple(self._by_type[name] for name in names)
