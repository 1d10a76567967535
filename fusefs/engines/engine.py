"""What an engine is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..filesystem import FileSystem


@dataclass(frozen=True, slots=True)
class Device:
    """How the kernel is to present a mount."""

    source: str  # the first column in the table of mounts; printable, without commas
    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False


class Engine(Protocol):
    """Speaks FUSE for one mount: a thin adapter around a `FileSystem`, without rules of its own.

    It answers with the errno of errors we know, and lets any other end `serve`. Everything but
    the invalidation is for the event loop's thread.
    """

    def mount(self, filesystem: FileSystem, mountpoint: Path, device: Device) -> None:
        """Mount; nobody is answered before `serve`.

        Raises:
            OSError: the kernel refuses, or this engine cannot work here.
        """
        ...

    async def serve(self) -> None:
        """Answer requests until somebody unmounts, or `terminate` is called."""
        ...

    def terminate(self) -> None:
        """Let `serve` return soon, whoever still uses the mount. May be called again."""
        ...

    def unmount(self) -> None:
        """Detach the mount after `serve`, if it is still there."""
        ...

    def invalidate_inode(self, inode: int) -> None:
        """Make the kernel ask for attributes again; its pages stay.

        From a worker thread only. Takes no lock that a request under way could hold: to drop a
        name would, and a server that is killed while it waits for one leaves its client stuck.
        """
        ...
