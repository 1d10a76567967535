"""`ocistow publish`: send an image out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ..oci.reference import Reference
from ..publish.access import Access
from ..publish.copy import copy
from ..publish.remote import store_source
from ..publish.transports import open_sink
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
@json_option
def publish(
    settings: Settings, how: Transfer, name: str, destinations: tuple[str, ...], as_json: bool
) -> None:
    """Send an image out of the store.

    DEST is docker://REF for a registry or docker-daemon:REF for the Docker daemon
    that DOCKER_HOST names. Manifests are sent byte for byte, and only what the
    other side lacks. Several destinations are served one after another; the first
    that refuses ends it.
    """
    _check(destinations, how.access)
    began = datetime.now(UTC)
    done: list[Result] = []
    with Store.open(settings.store) as store:
        layout = store.find(name)
        source = store_source(store, layout, how.platform, how.access)
        root = source.resolve()
        for destination in destinations:
            with (
                about(f"publishing {name} to {destination}"),
                open_sink(destination, store, access=how.access) as sink,
                Progress(how.progress) as bar,
            ):
                copied = copy(source, bar.watching(sink), jobs=how.jobs, progress=bar)
            done.append(Result(destination, name_at(destination, shown(layout.name)), copied))
            if not as_json:
                line(f"pushed {summary(destination, copied)}")
                if losses := lost(copied):
                    line(losses)
    write_records(how.records, shown(layout.name), root, began, done)
    if as_json:
        published = [
            {"destination": one.destination, **transferred(one.copied)}
            for one in done
            if one.copied is not None
        ]
        document({"name": shown(layout.name), "published": published})


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
