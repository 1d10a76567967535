"""`ocistow publish`: send an image out."""

from __future__ import annotations

import click

from ..publish.copy import copy
from ..publish.layout import StoreSource
from ..publish.transports import open_sink
from ..store.store import Store
from .add import summary, transferred
from .config import Settings
from .options import Transfer, json_option, name_argument, transfer_options
from .output import about, document, line, shown
from .progress import Progress


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
    done: list[dict[str, object]] = []
    with Store.open(settings.store) as store:
        layout = store.find(name)
        for destination in destinations:
            with (
                about(f"publishing {name} to {destination}"),
                open_sink(destination, store, access=how.access) as sink,
                Progress(how.progress) as bar,
            ):
                copied = copy(
                    StoreSource(layout, how.platform),
                    bar.watching(sink),
                    jobs=how.jobs,
                    progress=bar,
                )
            if as_json:
                done.append({"destination": destination, **transferred(copied)})
            else:
                line(f"published {summary(destination, copied, 'sent')}")
    if as_json:
        document({"name": shown(layout.name), "published": done})
