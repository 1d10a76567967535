"""`ocistow remote`: registries that have what the store lacks."""

from __future__ import annotations

import click

from ..oci.errors import InvalidContent
from ..oci.wording import about
from ..store.remotes import RepositoryName
from ..store.store import Store
from .config import Settings
from .options import json_option, pass_settings
from .output import document, line, table

_REGISTRY = "docker://"


@click.group()
def remote() -> None:
    """Name registries that have what the store lacks.

    Blobs that an image mentions and the store lacks are fetched from them when they are
    needed, checked, and kept. Without remotes nothing is fetched.
    """


@remote.command()
@click.argument("name")
@click.argument("repository", metavar="docker://HOST/REPO")
@pass_settings
def add(settings: Settings, name: str, repository: str) -> None:
    """Add a remote, which is asked after those before it.

    Credentials and certificates are looked for as for any registry, whenever it is
    asked; the store keeps none. A store that does not exist is made.
    """
    where = parse_repository(repository)
    with about(f"adding a remote to {settings.store}"), Store.create(settings.store) as store:
        store.remotes.add(name, where)
    line(f"added the remote {name}: {where}")


@remote.command()
@json_option
@pass_settings
def ls(settings: Settings, as_json: bool) -> None:
    """List the remotes in the order in which they are asked."""
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        remotes = store.remotes.list()
    if as_json:
        entries = [{"name": r.name, "repository": str(r.repository)} for r in remotes]
        document({"remotes": entries})
    else:
        rows = [[entry.name, f"{_REGISTRY}{entry.repository}"] for entry in remotes]
        table(("NAME", "REPOSITORY"), rows, right=[])


@remote.command()
@click.argument("name")
@pass_settings
def rm(settings: Settings, name: str) -> None:
    """Forget a remote; what it alone has cannot be fetched any more."""
    with about(f"removing a remote from {settings.store}"), Store.open(settings.store) as store:
        store.remotes.remove(name)
    line(f"removed the remote {name}")


def parse_repository(text: str) -> RepositoryName:
    """Read `docker://HOST/REPO`.

    Raises:
        InvalidContent: it is something else.
    """
    if not text.startswith(_REGISTRY):
        raise InvalidContent(f"{text[:300]!r} does not start with {_REGISTRY}")
    return RepositoryName.parse(text.removeprefix(_REGISTRY))
