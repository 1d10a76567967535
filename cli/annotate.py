"""`ocistow annotate`: say something about an image in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import click

from ..lifecycle.targets.layout import LayoutTarget
from ..oci.digest import Digest
from ..oci.errors import NotFound
from ..oci.reference import Reference
from ..oci.wording import about
from ..publish.attached import find_attached
from ..publish.moved import moved
from ..publish.referrer import fallback_tag
from ..store.annotations import annotate as annotate_image
from ..store.layout import Layout
from ..store.store import Store
from .config import Settings
from .options import name_argument, pass_settings
from .output import line, result, shown


@click.command()
@name_argument()
@click.argument("annotations", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@pass_settings
def annotate(settings: Settings, name: str, annotations: tuple[str, ...]) -> None:
    """Set annotations of an image's manifest.

    KEY- removes one. The manifest then has another digest: annotate before you sign.
    Artifacts with a tag of their own follow the image, and have other digests, too;
    signatures cannot. Layers and config stay as they are. Do that between the
    exporter and the publisher, which sends the manifest as it is.
    """
    changes = dict(map(_change, annotations))
    with about(f"annotating in {settings.store}"), Store.open(settings.store) as store:
        layout = store.find(name)
        old, new = annotate_image(store, layout, changes)
        left = _move_artifacts(store, layout, old) if new != old else ()
    called = result(shown(layout.name), new)
    line(f"{called}, as before" if new == old else f"annotated {called}, was {old}")
    for digest in left:
        click.echo(f"still about {old}, and not published with {new}: {digest}", err=True)


def _move_artifacts(store: Store, layout: Layout, old: Digest) -> Sequence[Digest]:
    """Attach to the image what was attached to what it was; return what cannot be."""
    reference = Reference.from_path(layout.name)
    if reference is None:
        return ()
    directory = store.layouts / reference.registry / reference.repository
    attached = find_attached([old], store.layouts / layout.name, directory)
    root = layout.index().manifests[0]
    successors, left = moved(attached, old, root)
    if successors.tagged:
        LayoutTarget(store.layouts, store=store).attach(reference, root.digest, successors)
        if not {one.root.digest for one in attached.referrers[old]}.intersection(left):
            listing = replace(reference, tag=fallback_tag(old), digest=None)
            with suppress(NotFound):  # they may lie in the image's own layout
                store.layout(listing.path).remove()
    return left


def _change(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not equals and key.endswith("-"):
        key, removed = key[:-1], True
    else:
        removed = False
    if not key or not (equals or removed) or not _is_unicode(text):
        raise click.UsageError(f"expected KEY=VALUE, or KEY- to remove it: {text!r}")
    return key, None if removed else value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
