"""`ocistow du`: what images cost on disk."""

from __future__ import annotations

import click

from ..audit.usage import Usage, usage
from ..oci.wording import about
from ..store.store import Store
from .config import Settings
from .options import bytes_option, json_option, name_argument, pass_settings
from .output import count, document, line, shown, sizes, table

_COLUMNS = ("NAME", "APPARENT", "ON DISK", "SHARED", "EXCLUSIVE")


@click.command()
@name_argument("names", many=True, required=False)
@json_option
@bytes_option
@pass_settings
def du(settings: Settings, names: tuple[str, ...], as_json: bool, exactly: bool) -> None:
    """Tell what images cost on disk.

    Without NAME, all of them. APPARENT is the size of all files of an image. ON
    DISK is what they take: SHARED with other images of the store, or EXCLUSIVE. In
    the total, what images share counts once.
    """
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        wanted = {store.find(name).name for name in names}
        found = usage(store, wanted if names else None)
    if as_json:
        document(_members(found))
    else:
        _print(found, exactly=exactly)


def _print(found: Usage, *, exactly: bool) -> None:
    size = sizes(exactly=exactly)
    rows = [
        [
            shown(layout.name),
            *map(size, (layout.apparent, layout.on_disk, layout.shared, layout.exclusive)),
        ]
        for layout in found.layouts
    ]
    exclusive = sum(layout.exclusive for layout in found.layouts)
    total = [
        "total",
        *map(size, (found.apparent, found.on_disk, found.on_disk - exclusive, exclusive)),
    ]
    table(_COLUMNS, [*rows, total], right=range(1, 5))
    if found.layouts:
        line(
            f"{count(len(found.layouts), 'image')} would take {size(found.separate)} on disk "
            f"without sharing: {found.factor:.2f} times as much"
        )
    if other := sum(layout.other for layout in found.layouts):
        line(f"of this, {size(other)} are files that belong to no image")
    if found.unreferenced_blobs:
        line(
            f"besides, {count(found.unreferenced_blobs, 'blob')} of the pool "
            f"that no image has: {size(found.unreferenced)}"
        )
    if found.outside:
        line(f"besides, files outside of all images: {size(found.outside)}")


def _members(found: Usage) -> dict[str, object]:
    return {
        "images": [
            {
                "name": shown(layout.name),
                "path": str(layout.name),
                "apparent": layout.apparent,
                "onDisk": layout.on_disk,
                "shared": layout.shared,
                "exclusive": layout.exclusive,
                "other": layout.other,
            }
            for layout in found.layouts
        ],
        "total": {
            "apparent": found.apparent,
            "onDisk": found.on_disk,
            "separate": found.separate,
            "factor": round(found.factor, 4),
            "unreferencedBlobs": found.unreferenced_blobs,
            "unreferenced": found.unreferenced,
            "outside": found.outside,
        },
    }
