"""`ocistow publish`: send an image out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

import click

from ..oci.descriptor import Descriptor
from ..oci.errors import InvalidContent, OcistowError
from ..oci.reference import Reference
from ..oci.wording import about, message_of, printable
from ..publish.access import Access
from ..publish.copy import Copied
from ..publish.layout import contents
from ..publish.remote import store_source
from ..publish.several import Place, copy_to_each
from ..publish.sink import Sink
from ..publish.transports import check_sink, is_archive, open_sink, writes_to_stdout
from ..store.layout import Layout
from ..store.store import Store
from .config import Settings
from .exits import status_of
from .options import Transfer, json_option, name_argument, transfer_options
from .output import document, line, shown
from .progress import Display
from .report import Result, more, name_at, summary, transferred, write_records
from .signals import ending_soon

_REGISTRY = "docker://"


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
    that DOCKER_HOST names, containerd:REF, podman:REF, oci:DIR[:TAG] for a layout, or
    oci-archive:FILE[:TAG] and docker-archive:FILE[:REF] for archives; the FILE - is
    stdout. Manifests are sent byte for byte, and only what the other side lacks.
    Several destinations are served at once; one that refuses does not stop the
    others, but makes the exit status that of its error.
    """
    aside = _check(destinations, how.access)
    if how.referrers and not all(place.startswith(_REGISTRY) for place in destinations):
        raise click.UsageError("--referrers is for docker://")
    if without and not all(map(is_archive, destinations)):
        raise click.UsageError("--without is for oci-archive: and docker-archive:")
    began = datetime.now(UTC)
    results: list[Result] = []
    with (
        _said_when_interrupted(results, aside=as_json or aside),
        ending_soon(),
        Display(how.progress) as display,
        Store.open(settings.store) as store,
        ExitStack() as closing,
    ):
        layout = store.find(name)
        called = shown(layout.name)
        source = closing.enter_context(store_source(store, layout, how.platform, how.access))
        root = source.resolve()
        left_out = frozenset(d for base in without for d in contents(store.find(base)))
        names = [name_at(destination, called) for destination in destinations]
        results += [Result(*both) for both in zip(destinations, names, strict=True)]

        @contextmanager
        def opened(one: Result) -> Generator[Sink]:
            place = one.destination
            with (
                about(f"publishing {name} to {place}"),
                open_sink(place, store, access=how.access, without=left_out) as sink,
            ):
                yield sink
            if how.referrers:
                try:
                    with about(f"publishing what refers to {name} to {place}"):
                        one.referrers = _referrers(layout, root, place, store, how)
                except (OcistowError, OSError) as error:
                    one.error = error  # the image is there all the same

        places = [
            Place(partial(opened, one), one.ends, display.track(one.destination)) for one in results
        ]
        copy_to_each(source, places, jobs=how.jobs, leases=store.leases)
    try:
        write_records(how.records, called, root, began, results)
    finally:  # what was changed is said, whatever became of its record
        if as_json:
            published = [{"destination": one.destination, **transferred(one)} for one in results]
            document({"name": called, "published": published}, aside=aside)
        else:
            _say(results, aside=aside)
    return _refused(results)


def _referrers(
    layout: Layout, root: Descriptor, place: str, store: Store, how: Transfer
) -> tuple[Copied, ...]:
    from ..publish.referrers import publish_referrers

    name = Reference.from_path(layout.name)
    if name is None:
        raise InvalidContent(f"{layout.name}: without a reference it has no referrers")
    where = Reference.parse(place.removeprefix(_REGISTRY))
    sent = publish_referrers(store, name, root, where, access=how.access, jobs=how.jobs)
    return sent.copied


@contextmanager
def _said_when_interrupted(results: Sequence[Result], *, aside: bool) -> Generator[None]:
    """Print what was done before the block was interrupted; a document would not be whole."""
    try:
        yield
    except BaseException:
        _say(results, aside=aside)
        raise


def _say(results: Sequence[Result], *, aside: bool) -> None:
    """Print what was sent to where."""
    for one in results:
        if one.copied is not None:
            for text in (f"pushed {summary(one.destination, one.copied)}", *more(one)):
                line(text, aside=aside)


def _refused(results: Sequence[Result]) -> int:
    """Print errors, and return the status of the first."""
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
        Reference.parse(destination.removeprefix(_REGISTRY)).registry
        for destination in destinations
        if destination.startswith(_REGISTRY)
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
