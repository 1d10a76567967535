"""`ocistow reindex`: put in order what the store knows beside its images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import click

from ..oci.descriptor import Descriptor
from ..oci.errors import NotFound
from ..oci.wording import about
from ..publish.recognition import Recognition
from ..store.blobs import BlobStore
from ..store.reindex import Reindexed
from ..store.reindex import reindex as put_in_order
from ..store.store import Store
from .config import PROGRESS, Settings
from .options import json_option, pass_settings
from .output import count, document, line, table
from .progress import Amount, Display

AT_ONCE = 64  # blobs; what was learnt of them is noted together


@click.command()
@click.option("--layers", is_flag=True, help="Also inflate every layer that nobody inflated yet.")
@click.option("--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]")
@json_option
@pass_settings
def reindex(settings: Settings, layers: bool, progress: str | None, as_json: bool) -> None:
    """Put the index database in order.

    No image depends on it, and what it lacks is found out again when it is needed. If it is
    damaged, it is made anew with all that can be read; what is about blobs that are gone goes.

    With --layers it learns of every layer what that inflates to, so that what comes from a
    daemon or an archive is recognised at once.
    """
    learnt: int | None = None
    with about(f"indexing {settings.store}"), Store.open(settings.store) as store:
        done = put_in_order(store.index, store.blobs)
        if layers:
            with Display(progress or settings.progress) as display:
                learnt = _learn(store, display.amount("inflating layers"))
    if as_json:
        document(_members(done, learnt))
    else:
        _print(done, learnt)


def _learn(store: Store, heard: Amount | None) -> int:
    recognition = Recognition(store)
    if heard is not None:
        heard.begins(sum(blob.size for blob in _blobs(store.blobs)))
    learnt = 0
    blobs = _blobs(store.blobs)
    while batch := list(islice(blobs, AT_ONCE)):
        learnt += recognition.learn(batch)
        if heard is not None:
            heard.moves(sum(blob.size for blob in batch))
    return learnt


def _blobs(pool: BlobStore) -> Iterator[Descriptor]:
    """Yield all blobs of the pool, of whatever type they are."""
    for digest in pool:
        with suppress(NotFound):  # removed meanwhile
            yield Descriptor("", digest, pool.stat(digest).st_size)


def _print(done: Reindexed, learnt: int | None) -> None:
    if done.damage:
        line(f"the database was damaged, and is made anew: {done.damage}")
    rows = [[name, str(rows.kept), str(rows.dropped)] for name, rows in done.tables.items()]
    table(("TABLE", "KEPT", "DROPPED"), rows, right=[1, 2])
    if learnt is not None:
        line(f"learnt what {count(learnt, 'layer')} inflate to")


def _members(done: Reindexed, learnt: int | None) -> dict[str, object]:
    return {
        "damage": done.damage or None,
        "tables": {
            name: {"kept": rows.kept, "dropped": rows.dropped} for name, rows in done.tables.items()
        },
        **({} if learnt is None else {"layersLearnt": learnt}),
    }
