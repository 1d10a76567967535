"""`ocistow umount`."""

from __future__ import annotations

from pathlib import Path

import click

from .mount import DEFAULT, MOUNTPOINT
from .output import line


@click.command()
@click.argument("mountpoint", type=MOUNTPOINT, default=DEFAULT)
@click.option("--lazy", is_flag=True, help="Detach it even while it is in use.")
def umount(mountpoint: Path, lazy: bool) -> None:
    """Unmount what `mount` mounted.

    While somebody uses it, says who, and leaves it as it is.
    """
    from ..fusefs.system.table import unmount

    for path in unmount(mountpoint.absolute(), lazy=lazy):
        line(f"still to be seen at {path}", aside=True)
