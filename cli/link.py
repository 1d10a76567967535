"""`ocistow link`: images as plain layouts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ..oci.platform import Platform
from ..oci.wording import about, printable
from ..publish.access import JOBS
from ..publish.linking import Linked, places
from ..publish.linking import link as link_image
from ..store.links import AUTO, WORDS, Links, Way
from ..store.store import Store
from .config import MAX_JOBS, PROGRESS, Settings
from .options import json_option, name_argument, pass_settings, platform_option
from .output import count, document, human, line, shown
from .progress import Display
from .signals import ending_soon

_MODES = ("auto", *(way.value for way in Way))
_SYMLINKS = (
    "go-containerregistry >= 0.21.7 refuses symbolic links as blobs, and with it crane, pack and "
    "lifecycle >= 0.21.15; and `ocistow gc` does not know of these: it removes what no image of "
    "the store needs"
)


@click.command()
@name_argument("names", many=True)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    default="auto",
    show_default=True,
    help="What blobs become; auto takes hard links, then reflinks, then copies.",
)
@click.option("--flat", is_flag=True, help="Make DIR itself the layout of all images.")
@click.option(
    "--shared-blobs",
    is_flag=True,
    help="Put all blobs into DIR/blobs, for skopeo's --src-shared-blob-dir.",
)
@platform_option
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    metavar="N",
    help=f"Copy this many blobs at once.  [default: {JOBS}]",
)
@click.option("--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]")
@json_option
@pass_settings
def link(
    settings: Settings,
    names: tuple[str, ...],
    directory: Path,
    mode: str,
    flat: bool,
    shared_blobs: bool,
    platform: Platform | None,
    jobs: int | None,
    progress: str | None,
    as_json: bool,
) -> None:
    """Make images plain layouts elsewhere.

    Each lies in DIR as in the store, at DIR/REGISTRY/REPOSITORY/TAG, as pack and the
    lifecycle want it; with --flat all are in DIR itself, called by their tags, or by their
    whole names if they are of several repositories. What is there is brought up to date.

    A hard link is the store's own file: who writes to it, damages every image that
    has it. --mode reflink costs as little where the file system can share bytes, and
    is safe. See docs/links.md.
    """
    if flat and shared_blobs:
        raise click.UsageError("--flat and --shared-blobs exclude each other")
    ways = AUTO if mode == "auto" else (Way(mode),)
    linked: list[Linked] = []
    try:
        with (
            about(f"linking to {directory}"),
            ending_soon(),
            Display(progress or settings.progress) as display,
            Store.open(settings.store) as store,
        ):
            layouts = {layout.name: layout for layout in map(store.find, names)}
            links = Links(store.blobs, ways)
            where = places([*layouts], directory, flat=flat, shared=shared_blobs)
            for layout, place in zip(layouts.values(), where, strict=True):
                called = shown(layout.name)
                with about(f"linking {called} to {place.path}"):
                    linked.append(
                        link_image(
                            store,
                            layout,
                            place,
                            links,
                            platform=platform,
                            jobs=jobs or settings.jobs,
                            progress=display.track(called),
                        )
                    )
    finally:  # what was made is said, whatever became of the others
        if as_json:
            document({"mode": mode, "linked": [_members(one) for one in linked]})
        else:
            for one in linked:
                line(_said(one))
    if mode == Way.SYMLINK:
        click.echo(f"ocistow: warning: {_SYMLINKS}", err=True)
    for why in dict.fromkeys(links.obstacles.values()):
        kinds = [f"{WORDS[way]}s" for way, said in links.obstacles.items() if said == why]
        click.echo(printable(f"{directory}: no {' or '.join(kinds)}: {why}"), err=True)


def _said(one: Linked) -> str:
    blobs, size = _sum(one.ways)
    order = [*Way, None]
    parts = [_counted(way, one.ways[way][0]) for way in order if way in one.ways]
    where = f"{one.place.path}:{one.place.name}" if one.place.name else str(one.place.path)
    return (
        f"linked {shown(one.name)} to {printable(where)}: "
        f"{count(blobs, 'blob')}, {human(size)}: {', '.join(parts)}"
    )


def _counted(way: Way | None, number: int) -> str:
    if way is None:
        return f"{number} there before"
    return f"{number} copies" if way is Way.COPY and number != 1 else count(number, WORDS[way])


def _members(one: Linked) -> dict[str, object]:
    blobs, size = _sum(one.ways)
    return {
        "name": shown(one.name),
        "layout": str(one.place.path),
        "refName": one.place.name or None,
        "blobsDirectory": str(one.place.blobs),
        "digest": str(one.root.digest),
        "blobs": blobs,
        "bytes": size,
        "ways": {
            way or "present": {"blobs": number, "bytes": some}
            for way, (number, some) in one.ways.items()
        },
        "obstacles": dict(one.obstacles),
    }


def _sum(ways: Mapping[Way | None, tuple[int, int]]) -> tuple[int, int]:
    return sum(number for number, _ in ways.values()), sum(size for _, size in ways.values())
