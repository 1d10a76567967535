"""`ocistow ls`: which images there are."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

import click

from ..oci.errors import NotFound, OcistowError
from ..oci.wording import about, message_of
from ..store.store import Store
from .config import Settings
from .exits import status_of
from .images import RootView, read_roots
from .options import bytes_option, json_option, pass_settings
from .output import document, shown, sizes, table

_COLUMNS = ("NAME", "DIGEST", "SIZE", "PLATFORM")


@click.command()
@json_option
@bytes_option
@pass_settings
def ls(settings: Settings, as_json: bool, exactly: bool) -> int:
    """List the images in the store.

    SIZE is what the image announces, whether shared or not. An image that cannot
    be read is listed without it, and makes the exit status that of its error.
    """
    found: list[tuple[PurePosixPath, RootView | None]] = []
    status = 0
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        for name in store.names():
            try:
                roots = read_roots(store.layout(name))
            except OcistowError as error:
                if isinstance(error, NotFound) and error.name == name:
                    continue  # removed since it was listed
                click.echo(f"ocistow: {shown(name)}: {message_of(error)}", err=True)
                status = status or status_of(error)
                roots = ()
            found += [(name, root) for root in roots or (None,)]
    if as_json:
        document({"images": [_members(name, root) for name, root in found]})
    else:
        size = sizes(exactly=exactly)
        rows = [
            [
                shown(name),
                str(root.descriptor.digest) if root else "-",
                size(root.size) if root else "-",
                ", ".join(_platforms(root)) if root else "-",
            ]
            for name, root in found
        ]
        if rows or sys.stdout.isatty():
            table(_COLUMNS, rows, right=[2])
    return status


def _members(name: PurePosixPath, root: RootView | None) -> dict[str, object]:
    return {
        "name": shown(name),
        "path": str(name),
        "digest": str(root.descriptor.digest) if root else None,
        "mediaType": root.descriptor.media_type if root else None,
        "size": root.size if root else None,
        "platforms": _platforms(root) if root else [],
    }


def _platforms(root: RootView) -> list[str]:
    return [str(image.platform) for image in root.images if image.platform]
