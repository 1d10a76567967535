"""`ocistow rm`: take names away."""

from __future__ import annotations

import click

from ..oci.wording import about, printable
from ..store.store import Store
from .config import Settings
from .options import json_option, name_argument, pass_settings
from .output import document, line, shown


@click.command()
@name_argument("names", many=True)
@json_option
@pass_settings
def rm(settings: Settings, names: tuple[str, ...], as_json: bool) -> None:
    """Remove images from the store.

    Either all names exist or nothing is removed. Blobs stay in the pool, also
    those that no image has any more; `ocistow du` tells how much that is.
    """
    with about(f"removing from {settings.store}"), Store.open(settings.store) as store:
        layouts = {layout.name: layout for layout in map(store.find, names)}
        removed: list[dict[str, object]] = []
        for name, layout in layouts.items():
            left = layout.remove()
            removed.append(
                {"name": shown(name), "path": str(name), "left": [*map(printable, left)]}
            )
            if as_json:
                continue
            line(f"removed {shown(name)}")
            if left:
                kept = ", ".join(map(printable, left))
                click.echo(
                    f"not part of the image, so left in {store.layouts / name}: {kept}", err=True
                )
    if as_json:
        document({"removed": removed})
        return
    click.echo("the blobs stay in the pool until `ocistow gc` removes them", err=True)
