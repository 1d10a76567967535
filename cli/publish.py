"""`ocistow publish`: send an image out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ..oci.reference import Reference
from ..publish.access import Access
from ..publish.copy import copy
from ..publish.layout import contents
from ..publish.remote import store_source
from ..publish.transports import is_archive, open_sink, writes_to_stdout
from ..store.store import Store
from .config import Settings
from .options import Transfer, json_option, name_argument, transfer_options
from .output import about, document, line, shown
from .progress import Progress
from .report import Result, lost, name_at, summary, transferred, write_records


@click.command()
@name_argument()
@click.argument("destinations", nargs=-1, required=True, metavar="DEST...")
@transfer_options
@click.option(
    "--without",
    multiple=True,
    metavar="NAME",
    help="Leave out of archives the blobs that this image of the store has too.",
)
@json_option
def publish(
    settings: Settings,
    how: Transfer,
    name: str,
    destinations: tuple[str, ...],
    without: tuple[str, ...],
    as_json: bool,
) -> None:
    """Send an image out of the store.

    DEST is docker://REF for a registry, docker-daemon:REF for the Docker daemon
    that DOCKER_HOST names, oci:DIR[:TAG] for a layout, or oci-archive:FILE[:TAG] and
    docker-archive:FILE[:REF] for archives; the FILE - is stdout. Manifests are sent
    byte for byte, and only what the other side lacks. Several destinations are
    served one after another; the first that refuses ends it.
    """
    _check(destinations, how.access)
    aside = _takes_stdout(destinations)
    if without and not all(map(is_archive, destinations)):
        raise click.UsageError("--without is for oci-archive: and docker-archive:")
    began = datetime.now(UTC)
    done: list[Result] = []
    with Store.open(settings.store) as store:
        layout = store.find(name)
        source = store_source(store, layout, how.platform, how.access)
        root = source.resolve()
        left_out = frozenset(d for base in without for d in contents(store.find(base)))
        for destination in destinations:
            with (
                about(f"publishing {name} to {destination}"),
                open_sink(destination, store, access=how.access, without=left_out) as sink,
                Progress(how.progress) as bar,
            ):
                copied = copy(source, bar.watching(sink), jobs=how.jobs, progress=bar)
            done.append(Result(destination, name_at(destination, shown(layout.name)), copied))
            if not as_json:
                line(f"pushed {summary(destination, copied)}", aside=aside)
                if losses := lost(copied):
                    line(losses, aside=aside)
    write_records(how.records, shown(layout.name), root, began, done)
    if as_json:
        published = [
            {"destination": one.destination, **transferred(one.copied)}
            for one in done
            if one.copied is not None
        ]
        document({"name": shown(layout.name), "published": published}, aside=aside)


def _takes_stdout(destinations: Sequence[str]) -> bool:
    """Tell whether an archive goes to stdout, and refuse two."""
    count = sum(map(writes_to_stdout, destinations))
    if count > 1:
        raise click.UsageError("only one archive can go to standard output")
    return count == 1


def _check(destinations: Sequence[str], access: Access) -> None:
    """Refuse a destination named twice, and a password that several registries would see."""
    for destination in destinations:
        if destinations.count(destination) > 1:
            raise click.UsageError(f"{destination} is named twice")
    registries = {
        Reference.parse(destination.removeprefix("docker://")).registry
        for destination in destinations
        if destination.startswith("docker://")
    }
    if len(registries) > 1 and (access.credentials or access.registry_token):
        raise click.UsageError(
            f"--creds and --registry-token are for one registry, not for {len(registries)}: "
            "use --authfile"
        )
