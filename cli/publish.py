"""`ocistow publish`: send an image out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import click

from ..oci.digest import Digest
from ..oci.errors import OcistowError
from ..oci.reference import Reference
from ..oci.wording import printable
from ..publish.access import Access
from ..publish.copy import Copied
from ..publish.layout import contents
from ..publish.remote import store_source
from ..publish.several import Place, copy_to_each
from ..publish.sink import Sink
from ..publish.transports import check_sink, is_archive, open_sink, writes_to_stdout
from ..store.store import Store
from .config import Settings
from .exits import message_of, status_of
from .options import Transfer, json_option, name_argument, transfer_options
from .output import about, document, line, shown
from .progress import Display
from .report import Result, lost, name_at, summary, transferred, write_records
from .signals import terminable


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
) -> int:
    """Send an image out of the store.

    DEST is docker://REF for a registry, docker-daemon:REF for the Docker daemon
    that DOCKER_HOST names, containerd:REF, oci:DIR[:TAG] for a layout, or
    oci-archive:FILE[:TAG] and docker-archive:FILE[:REF] for archives; the FILE - is
    stdout. Manifests are sent byte for byte, and only what the other side lacks.
    Several destinations are served at once; one that refuses does not stop the
    others, but makes the exit status that of its error.
    """
    aside = _check(destinations, how.access)
    if without and not all(map(is_archive, destinations)):
        raise click.UsageError("--without is for oci-archive: and docker-archive:")
    began = datetime.now(UTC)
    with (
        terminable(),
        Display(how.progress) as display,
        Store.open(settings.store) as store,
    ):
        layout = store.find(name)
        called = shown(layout.name)
        source = store_source(store, layout, how.platform, how.access)
        root = source.resolve()
        left_out = frozenset(d for base in without for d in contents(store.find(base)))
        names = [name_at(destination, called) for destination in destinations]
        places = [
            Place(partial(_open, called, place, store, how.access, left_out), display.track(place))
            for place in destinations
        ]
        outcomes = copy_to_each(source, places, jobs=how.jobs, leases=store.leases)
    results = list(map(_result, destinations, names, outcomes))
    write_records(how.records, called, root, began, results)
    if as_json:
        published = [_members(one) for one in results]
        document({"name": called, "published": published}, aside=aside)
    return _say(results, as_json=as_json, aside=aside)


@contextmanager
def _open(
    name: str, place: str, store: Store, access: Access, without: frozenset[Digest]
) -> Generator[Sink]:
    with (
        about(f"publishing {name} to {place}"),
        open_sink(place, store, access=access, without=without) as sink,
    ):
        yield sink


def _result(place: str, name: str, outcome: Copied | OcistowError | OSError) -> Result:
    if isinstance(outcome, Copied):
        return Result(place, name, copied=outcome)
    return Result(place, name, error=outcome)


def _members(one: Result) -> dict[str, object]:
    if one.error is not None:
        return {"destination": one.destination, "error": message_of(one.error)}
    assert one.copied is not None
    return {"destination": one.destination, **transferred(one.copied)}


def _say(results: Sequence[Result], *, as_json: bool, aside: bool) -> int:
    """Print what became of each, and return the status of the first error."""
    for one in results:
        if one.copied is not None and not as_json:
            line(f"pushed {summary(one.destination, one.copied)}", aside=aside)
            if losses := lost(one.copied):
                line(losses, aside=aside)
    errors = [one.error for one in results if one.error is not None]
    if len(results) == 1 and errors:
        raise errors[0]
    for one in results:
        if one.error is not None:
            place = printable(one.destination)
            click.echo(f"ocistow: {place}: {message_of(one.error)}", err=True)
    return status_of(errors[0]) if errors else 0


def _check(destinations: Sequence[str], access: Access) -> bool:
    """Refuse destinations that do not go together; tell whether one of them is stdout."""
    for destination in destinations:
        check_sink(destination)
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
    streams = sum(map(writes_to_stdout, destinations))
    if streams > 1:
        raise click.UsageError("only one archive can go to standard output")
    return streams == 1
