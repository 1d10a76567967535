"""`ocistow add`: take an image in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ..oci.descriptor import REF_NAME
from ..oci.errors import InvalidContent
from ..oci.reference import Reference
from ..oci.wording import about
from ..publish.copy import Copied, copy
from ..publish.layout import StoreSink
from ..publish.remote import LazySink, LazySource
from ..publish.source import Source
from ..publish.transports import check_source, open_source
from ..store.remotes import RepositoryName
from ..store.store import Store
from .config import Settings
from .options import Transfer, json_option, transfer_options
from .output import document, line
from .progress import Display, reading
from .report import Records, Result, more, summary, transferred, write_records
from .signals import ending_soon

_REGISTRY = "docker://"


@click.command()
@click.argument("source", required=False)
@click.argument("name", required=False)
@click.option(
    "--tree",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take in every image of the layouts at and below DIR, called as these call them.",
)
@click.option("--dry-run", is_flag=True, help="With --tree, only print what would be added.")
@click.option("--lazy", is_flag=True, help="Leave layers in the registry until they are needed.")
@click.option(
    "--checksums",
    is_flag=True,
    help="Also record a BLAKE3 of each blob, so that `verify` is quick the first time.",
)
@transfer_options
@json_option
def add(
    settings: Settings,
    how: Transfer,
    source: str | None,
    name: str | None,
    tree: Path | None,
    dry_run: bool,
    lazy: bool,
    checksums: bool,
    as_json: bool,
) -> int:
    """Take an image into the store.

    SOURCE is docker://REF, docker-daemon:REF, containerd:REF, oci:DIR[:TAG],
    oci-archive:FILE[:TAG] or docker-archive:FILE[:REF]; - is an archive on stdin.
    Without NAME the image is called as in the registry or daemon it comes from, or as
    the layout or archive calls it if that is a whole reference such as
    example.com/app:1.

    With --tree, all images of a directory full of layouts are taken in: pack's layout-repo-dir,
    where the path is the name, or a registry's root such as zot's, where it is the
    repository. One that cannot be does not stop the others, but makes the exit status that of
    its error.

    Blobs that the store has are not read again. A store that does not exist is
    made.
    """
    if tree is not None:
        if source is not None or lazy or how.referrers or how.records != Records():
            raise click.UsageError("--tree takes neither SOURCE nor --lazy, --referrers or records")
        from .tree import add_tree

        checksums = checksums or settings.checksums
        return add_tree(settings, how, tree, dry_run=dry_run, checksums=checksums, as_json=as_json)
    if source is None:
        raise click.UsageError("missing argument 'SOURCE'")
    if dry_run:
        raise click.UsageError("--dry-run goes with --tree")
    check_source(source)
    began = datetime.now(UTC)
    for option, given in (("--lazy", lazy), ("--referrers", how.referrers)):
        if given and not source.startswith(_REGISTRY):
            raise click.UsageError(f"{option}: {source} is not docker://REF")
    reference = Reference.parse(name) if name is not None else None
    with (
        about(f"adding {source} to {settings.store}"),
        ending_soon(),
        Display(how.progress) as display,
        Store.create(settings.store) as store,
    ):
        if checksums or settings.checksums:
            store.record_checksums()
        progress = display.track(source)
        with open_source(
            source,
            store,
            platform=how.platform,
            access=how.access,
            watch=reading(progress),
        ) as image:
            reference = reference or default_name(source, image)
            sink = StoreSink(store, reference)
            if lazy:
                image = LazySource(image)
                sink = LazySink(store, reference, _origin(source))
            copied = copy(image, sink, jobs=how.jobs, progress=progress, leases=store.leases)
        referrers = _referrers(source, store, reference, copied, how) if how.referrers else None
    added = Result(str(reference), str(reference), copied, referrers=referrers)
    try:
        write_records(how.records, source, copied.root, began, [added])
    finally:  # what was taken in is said, whatever became of its record
        if as_json:
            document({"name": str(reference), **transferred(added)})
        else:
            for text in (f"added {summary(str(reference), copied, added=True)}", *more(added)):
                line(text)
    return 0


def _referrers(
    source: str, store: Store, name: Reference, copied: Copied, how: Transfer
) -> tuple[Copied, ...]:
    from ..publish.referrers import take_referrers

    where = Reference.parse(source.removeprefix(_REGISTRY))
    taken = take_referrers(where, store, name, copied.root, access=how.access, jobs=how.jobs)
    return taken.copied


def _origin(source: str) -> RepositoryName:
    return RepositoryName.of(Reference.parse(source.removeprefix(_REGISTRY)))


def default_name(text: str, source: Source) -> Reference:
    """Return what an image is called where it comes from.

    Raises:
        UsageError: it has no name that says which registry or repository it is of.
    """
    if text.startswith(_REGISTRY):
        return Reference.parse(text.removeprefix(_REGISTRY))
    name = source.resolve().annotations.get(REF_NAME, "")
    if "/" in name:
        try:
            return Reference.parse(name)
        except InvalidContent:
            pass
    called = f"is called {name!r}, which is no whole name" if name else "has no name"
    raise click.UsageError(f"{text}: the image {called}; give one: ocistow add {text} NAME")
