"""`ocistow add --tree`: take in every image of a directory full of layouts."""

from __future__ import annotations

from pathlib import Path

import click

from ..oci.errors import OcistowError
from ..oci.wording import about, message_of, printable
from ..publish.copy import copy
from ..publish.layout import LayoutSource, StoreSink
from ..publish.tree import Found, images_below
from ..store.store import Store
from .config import Settings
from .exits import status_of
from .options import Transfer
from .output import document, line
from .progress import Display
from .report import Result, summary, transferred
from .signals import ending_soon


def add_tree(
    settings: Settings,
    how: Transfer,
    directory: Path,
    *,
    dry_run: bool,
    checksums: bool,
    as_json: bool,
) -> int:
    """Take in all images below a directory, and return the exit status of the first error.

    One that cannot be taken in does not stop the others. A dry run prints what they
    would be called.
    """
    with about(f"reading {directory}"):
        found = list(images_below(directory, _skipped))
    results: list[tuple[Found, Result]] = []
    if dry_run:
        results = [(image, _result(image)) for image in found]
    else:
        with (
            about(f"adding {directory} to {settings.store}"),
            ending_soon(),
            Display(how.progress) as display,
            Store.create(settings.store) as store,
        ):
            if checksums:
                store.record_checksums()
            results = [(image, _add(image, store, how, display)) for image in found]
    if as_json:
        document({"images": [_members(image, result) for image, result in results]})
    else:
        for image, result in results:
            if result.error is None and result.copied is None:
                line(f"{printable(image.source)} would be {result.name}")
            elif result.copied is not None:
                line(f"added {summary(result.name, result.copied, added=True)}")
    errors = [(image, result.error) for image, result in results if result.error is not None]
    for image, error in errors:
        click.echo(f"ocistow: {printable(image.source)}: {message_of(error)}", err=True)
    if not found:
        click.echo(f"there is no image layout below {printable(str(directory))}", err=True)
    return status_of(errors[0][1]) if errors else 0


def _add(image: Found, store: Store, how: Transfer, display: Display) -> Result:
    result = _result(image)
    if image.name is None:
        return result
    source = LayoutSource(image.layout, f"@{image.position}", how.platform)
    try:
        sink = StoreSink(store, image.name)
        progress = display.track(result.name)
        result.ends(copy(source, sink, jobs=how.jobs, progress=progress, leases=store.leases))
    except (OcistowError, OSError) as error:
        result.ends(error)
    return result


def _result(image: Found) -> Result:
    name = str(image.name or "")
    return Result(name, name, error=image.error)


def _members(image: Found, result: Result) -> dict[str, object]:
    outcome = transferred(result) if result.copied or result.error else {}
    return {"source": printable(image.source), "name": result.name or None, **outcome}


def _skipped(path: Path, why: str) -> None:
    click.echo(f"left alone: {printable(f'{path}: {why}')}", err=True)
