"""`ocistow du`: what images cost on disk."""

from __future__ import annotations

from dataclasses import replace

import click

from ..audit.usage import Cost, Usage, usage
from ..oci.wording import about
from ..store.store import Store
from .config import Settings
from .options import bytes_option, json_option, name_argument, pass_settings
from .output import count, document, line, shown, sizes, table

_COLUMNS = ("NAME", "APPARENT", "ON DISK", "SHARED", "EXCLUSIVE", "AMORTISED", "RECLAIMABLE")


@click.command()
@name_argument("names", many=True, required=False)
@json_option
@bytes_option
@pass_settings
def du(settings: Settings, names: tuple[str, ...], as_json: bool, exactly: bool) -> None:
    """Tell what images cost on disk.

    Without NAME, all of them. APPARENT is the size of all files of an image. ON DISK is what
    they take: SHARED with other images of the store, or EXCLUSIVE. AMORTISED divides what is
    shared among those that share it. RECLAIMABLE is what `rm` and `gc` would free. In the
    total, what images share counts once.
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
    rows = [[shown(cost.name), *map(size, _numbers(cost))] for cost in found.layouts]
    exclusive = sum(cost.exclusive for cost in found.layouts)
    total = replace(found.total, exclusive=exclusive)  # what these share among each other, too
    table(_COLUMNS, [*rows, ["total", *map(size, _numbers(total))]], right=range(1, 7))
    if found.layouts:
        line(
            f"{count(len(found.layouts), 'image')} would take {size(found.separate)} on disk "
            f"without sharing: {found.factor:.2f} times as much"
        )
    if found.total.other:
        line(f"of this, {size(found.total.other)} are files that belong to no image")
    for text, number in (
        ("blobs of the pool beside copies of images, or for images that lack them", found.unlinked),
        ("files outside of all images", found.outside),
        *((rest.name, rest.on_disk) for rest in found.rest),
        ("directories", found.directories),
    ):
        if number:
            line(f"besides, {text}: {size(number)}")
    if found.unreferenced_blobs:
        line(
            f"besides, {count(found.unreferenced_blobs, 'blob')} of the pool "
            f"that no image has: {size(found.unreferenced)}"
        )


def _numbers(cost: Cost) -> tuple[int, ...]:
    return (
        cost.apparent,
        cost.on_disk,
        cost.shared,
        cost.exclusive,
        cost.amortised,
        cost.reclaimable,
    )


def _members(found: Usage) -> dict[str, object]:
    return {
        "images": [
            {"name": shown(cost.name), "path": str(cost.name), **_cost(cost)}
            for cost in found.layouts
        ],
        "total": {
            **_cost(found.total),
            "separate": found.separate,
            "factor": round(found.factor, 4),
            "unlinked": found.unlinked,
            "unreferencedBlobs": found.unreferenced_blobs,
            "unreferenced": found.unreferenced,
            "outside": found.outside,
            "rest": {rest.name: rest.on_disk for rest in found.rest},
            "directories": found.directories,
            "garbage": found.garbage,
            "leased": found.leased,
            "everything": found.everything,
        },
    }


def _cost(cost: Cost) -> dict[str, int]:
    return {
        "apparent": cost.apparent,
        "onDisk": cost.on_disk,
        "shared": cost.shared,
        "exclusive": cost.exclusive,
        "amortised": cost.amortised,
        "reclaimable": cost.reclaimable,
        "other": cost.other,
    }
