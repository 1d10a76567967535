"""Which engine a mount gets."""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import Device, Engine

if TYPE_CHECKING:
    from ..filesystem import FileSystem

log = logging.getLogger(__name__)

AUTO = "auto"
NAMES = ("pyfuse3", "kernel")

_PASSTHROUGH = (6, 9)  # the first Linux that has it


def mount(name: str, filesystem: FileSystem, mountpoint: Path, device: Device) -> Engine:
    """Mount with the engine of `NAMES`, or for `AUTO` with the best that works here.

    Raises:
        OSError: the kernel refuses, or the engine cannot work here.
    """
    assert name in (AUTO, *NAMES), name
    if name == "kernel" or (name == AUTO and _may_pass_through()):
        from .kernel import Kernel, lacking

        if (reason := lacking()) is None:
            kernel = Kernel()
            try:
                kernel.mount(filesystem, mountpoint, device)
            except OSError as error:
                if name != AUTO:
                    raise
                log.debug("the kernel engine: %s", error)
            else:
                if kernel.has_passthrough or name != AUTO:
                    return kernel
                kernel.unmount()
        elif name != AUTO:
            raise OSError(errno.EPERM, f"the kernel engine needs {reason}")
    from .pyfuse3 import Pyfuse3  # heavy

    engine = Pyfuse3()
    engine.mount(filesystem, mountpoint, device)
    return engine


def _may_pass_through() -> bool:
    """Tell whether FUSE passthrough is likely: a kernel that has it, and its own root."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _PASSTHROUGH:
        return False
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
