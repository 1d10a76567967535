"""`ocistow du`: what images cost on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import click

from ..audit.glance import glance
from ..audit.usage import usage
from ..oci.wording import about
from ..store.store import Store
from . import beside, costs
from .access import docker_host_option
from .config import Settings
from .options import bytes_option, json_option, name_argument, pass_settings
from .output import count, document, line, shown, sizes, table
from .progress import Display
from .quantities import DurationType

_HISTORY = 20  # runs that are shown


@click.command()
@name_argument("names", many=True, required=False)
@click.option(
    "--tree",
    "as_tree",
    is_flag=True,
    envvar="OCISTOW_TREE",
    help="By registry and repository.",
)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Of the tree: so many levels.")
@click.option(
    "--layers",
    "by_layer",
    is_flag=True,
    envvar="OCISTOW_LAYERS",
    help="By layer: who shares it, what made it.",
)
@click.option(
    "--images", type=click.IntRange(0), default=0, metavar="N", help="With --layers: name N images."
)
@click.option("--sort", type=click.Choice(costs.SORT), default="name", help="The largest first.")
@click.option("--exact", is_flag=True, help="Of a NAME: read the whole store, not link counts.")
@click.option("--record", is_flag=True, help="Also keep the numbers, for --since.")
@click.option(
    "--since", type=DurationType(), help="Only show what was recorded in this time, such as 30d."
)
@click.option(
    "--tree-of",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Only tell what `dedupe DIR` would save.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page for a browser instead of a table.",
)
@click.option("--daemon", is_flag=True, help="Put the Docker daemon's own account beside it.")
@docker_host_option
@click.option(
    "--potential", is_flag=True, help="Estimate what sharing files, or parts of them, would save."
)
@json_option
@bytes_option
@pass_settings
def du(
    settings: Settings,
    names: tuple[str, ...],
    as_tree: bool,
    depth: int | None,
    by_layer: bool,
    images: int,
    sort: str,
    exact: bool,
    record: bool,
    since: float | None,
    tree_of: Path | None,
    html: Path | None,
    daemon: bool,
    docker_host: str | None,
    potential: bool,
    as_json: bool,
    exactly: bool,
) -> int:
    """Tell what images cost on disk.

    Without NAME, all of them. APPARENT is the size of all files of an image. ON DISK is what
    they take: SHARED with other images of the store, or EXCLUSIVE. AMORTISED divides what is
    shared among those that share it. RECLAIMABLE is what `rm` and `gc` would free. In the
    total, what images share counts once. See docs/du.md.

    With NAME, link counts tell what others have, so that it takes as long in a store of any size;
    links that lie elsewhere then count as another image's.
    """
    ways = (as_tree, by_layer, since is not None, tree_of is not None)
    if sum(ways) > 1:
        raise click.UsageError("--tree, --layers, --since and --tree-of exclude each other")
    if record and (names or any(ways[1:])):
        raise click.UsageError("--record is about all images")
    if (html or daemon or potential) and any(ways[1:]):
        raise click.UsageError("--html, --daemon and --potential are about images")
    if depth is not None and not as_tree:
        raise click.UsageError("--depth needs --tree")
    if tree_of is not None:
        return _foreign(tree_of, as_json=as_json, exactly=exactly)
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        if since is not None:
            _print_history(store, time.time() - since, as_json=as_json, exactly=exactly)
            return 0
        wanted = {store.find(name).name for name in names} if names else None
        with _watching(settings) as watch:
            if by_layer:
                _print_layers(store, wanted, images, watch, as_json=as_json, exactly=exactly)
                return 0
            whole = exact or as_tree or daemon or potential or html is not None
            seen = glance(store, wanted) if wanted and not whole else None
            if seen is not None:
                if as_json:
                    total = costs.together_members(seen.layouts, seen.total)
                    costs.print_json(seen.layouts, {"total": total}, sort)
                else:
                    costs.print_table(seen.layouts, seen.total, sort, exactly=exactly)
                return 0
            found = usage(store, wanted, watch)
        if record:
            from ..audit import history

            history.record(store, history.run_of(found))
        compared = beside.compared_with(store, found, docker_host) if daemon else None
        saving = beside.estimated(store, found, settings.progress) if potential else None
        if html is not None:
            beside.write_page(html, store, found, compared, saving)
    more = {**beside.comparison_members(compared), **beside.potential_members(saving)}
    if html is not None and not as_json:
        return 0
    if as_tree:
        from ..audit.tree import tree

        top = tree(found)
        if as_json:
            shape = costs.tree_members(top, sort, depth)
            document({"tree": shape, "total": costs.total_members(found), **more})
        else:
            costs.print_tree(top, sort, depth, exactly=exactly)
    elif as_json:
        costs.print_json(found.layouts, {"total": costs.total_members(found), **more}, sort)
    else:
        costs.print_table(found.layouts, found.total, sort, exactly=exactly)
    if not as_json:
        costs.print_beside(found, exactly=exactly)
        beside.print_comparison(compared, sizes(exactly=exactly))
        beside.print_potential(saving, sizes(exactly=exactly))
    return 0


@contextmanager
def _watching(settings: Settings) -> Generator[Callable[[int, int], None]]:
    with Display(settings.progress) as display:
        progress = display.track("reading the store")

        def watch(images: int, files: int) -> None:
            if progress is not None:
                progress.stage(f"{count(images, 'image')}, {count(files, 'file')}")

        yield watch


def _print_layers(
    store: Store,
    wanted: set[PurePosixPath] | None,
    images: int,
    watch: Callable[[int, int], None] | None,
    *,
    as_json: bool,
    exactly: bool,
) -> None:
    from ..audit.layers import layers

    found = layers(store, wanted, watch)
    if as_json:
        document(
            {
                "layers": [
                    {
                        "digest": str(layer.digest),
                        "size": layer.size,
                        "onDisk": layer.on_disk,
                        "present": not layer.is_absent,
                        "imageCount": len(layer.images),
                        "images": [shown(name) for name in layer.images[:images]],
                        "createdBy": layer.created_by or None,
                    }
                    for layer in found
                ]
            }
        )
        return
    size = sizes(exactly=exactly)
    rows = [
        [
            str(layer.digest),
            size(layer.size),
            "absent" if layer.is_absent else size(layer.on_disk),
            str(len(layer.images)),
            " ".join(layer.created_by.split())[:80],
            *([" ".join(map(shown, layer.images[:images]))] if images else []),
        ]
        for layer in found
    ]
    names = ["NAMES"] if images else []
    columns = ("LAYER", "SIZE", "ON DISK", "IMAGES", "CREATED BY", *names)
    table(columns, rows, right=range(1, 4))


def _print_history(store: Store, since: float, *, as_json: bool, exactly: bool) -> None:
    from ..audit import history

    runs = [run for run in history.runs(store) if run.time >= since]
    if as_json:
        document({"runs": [history.members(run) for run in runs]})
        return
    size = sizes(exactly=exactly)
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M", time.localtime(run.time)),
            str(run.images),
            *map(size, (run.apparent, run.on_disk, run.separate, run.everything)),
        ]
        for run in runs[-_HISTORY:]
    ]
    columns = ("TIME", "IMAGES", "APPARENT", "ON DISK", "WITHOUT SHARING", "STORE")
    table(columns, rows, right=range(1, 6))
    if len(runs) > 1:
        line(f"on disk  {history.sparkline(run.on_disk for run in runs)}")


def _foreign(directory: Path, *, as_json: bool, exactly: bool) -> int:
    """Tell what `dedupe` would, in its own words, and return its exit status."""
    from .dedupe import dedupe

    status: object = click.get_current_context().invoke(
        dedupe,
        paths=(directory,),
        dry_run=True,
        mode="auto",
        undo=False,
        progress=None,
        as_json=as_json,
        exactly=exactly,
    )
    return status if isinstance(status, int) else 0
