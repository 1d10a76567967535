"""`ocistow tag`: give an image another name."""

from __future__ import annotations

import click

from ..oci.reference import Reference
from ..oci.wording import about
from ..publish.kept import kept
from ..publish.layout import StoreSource
from ..publish.sink import check_name
from ..store.store import Store
from .config import Settings
from .options import json_option, name_argument, pass_settings
from .output import document, line, result


@click.command()
@name_argument()
@click.argument("newname")
@json_option
@pass_settings
def tag(settings: Settings, name: str, newname: str, as_json: bool) -> None:
    """Give an image another name.

    The image keeps the old one, and takes no more space. An image that had
    NEWNAME loses it.
    """
    reference = Reference.parse(newname)
    with (
        about(f"tagging in {settings.store}"),
        Store.open(settings.store) as store,
        kept(StoreSource(store.find(name)), store.leases) as source,
    ):
        root = source.resolve()
        check_name(reference, root)
        store.put(reference, root)
    if as_json:
        document({"name": str(reference), "digest": str(root.digest)})
    else:
        line(f"tagged {result(str(reference), root.digest)}")
