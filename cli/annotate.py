"""`ocistow annotate`: say something about an image in its manifest."""

from __future__ import annotations

import click

from ..store.annotations import annotate as annotate_image
from ..store.store import Store
from .config import Settings
from .options import name_argument, pass_settings
from .output import about, line, result, shown


@click.command()
@name_argument()
@click.argument("annotations", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@pass_settings
def annotate(settings: Settings, name: str, annotations: tuple[str, ...]) -> None:
    """Set annotations of an image's manifest.

    KEY- removes one. The manifest then has another digest: annotate before you sign.
    What referred to the old one does not refer to the new one. Layers and config stay
    as they are. Do that between the exporter and the publisher, which sends the
    manifest as it is.
    """
    changes = dict(map(_change, annotations))
    with about(f"annotating in {settings.store}"), Store.open(settings.store) as store:
        layout = store.find(name)
        old, new = annotate_image(store, layout, changes)
    called = result(shown(layout.name), new)
    line(f"{called}, as before" if new == old else f"annotated {called}, was {old}")


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
