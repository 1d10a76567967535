"""`ocistow gc`: free what no image needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from ..oci.wording import about
from ..store.collection.collector import GRACE, Collector
from ..store.collection.reasons import Reasons, reasons, resolve
from ..store.collection.retention import Outdated, Rule, drop, outdated
from ..store.collection.sweep import Collected
from ..store.store import Store
from .config import Settings
from .options import json_option, pass_settings
from .output import count, document, human, line, shown
from .progress import Display
from .quantities import DurationType


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option(
    "--grace",
    type=DurationType(),
    default=GRACE,
    help="Keep what changed in this time, such as 90s, 2h or 1d.  "
    f"[default: {timedelta(seconds=GRACE) // timedelta(hours=1)}h]",
)
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    metavar="N",
    help="First remove names: all but the N of each repository that the store got last.",
)
@click.option(
    "--older-than",
    type=DurationType(),
    help="First remove names that the store got longer ago; with --keep-last, only these.",
)
@click.option(
    "--match",
    multiple=True,
    metavar="PATTERN",
    help="Count and remove only such names, as in `ocistow ls PATTERN`; repeatable.",
)
@click.option(
    "--evict", is_flag=True, help="Also drop layers that a remote has; they come back when needed."
)
@click.option(
    "--explain",
    metavar="DIGEST",
    help="Remove nothing; tell what keeps a blob. How its digest begins is enough.",
)
@json_option
@pass_settings
def gc(
    settings: Settings,
    dry_run: bool,
    grace: float,
    keep_last: int | None,
    older_than: float | None,
    match: tuple[str, ...],
    evict: bool,
    explain: str | None,
    as_json: bool,
) -> None:
    """Remove blobs that nobody needs.

    What images mention stays, and what a mount or a command that runs relies on. An index
    that is malformed stops it: what that needs is unknown. Anything else may go on meanwhile.

    Images are removed only by --keep-last and --older-than, and then for good.
    """
    rule = Rule(keep_last, older_than)
    if match and rule == Rule():
        raise click.UsageError("--match needs --keep-last or --older-than")
    if explain is not None:
        if dry_run or evict or rule != Rule():
            raise click.UsageError("--explain removes nothing: only --grace and --json go with it")
        _explain(settings, explain, grace, as_json=as_json)
        return
    names: list[Outdated] = []
    evicted = Collected()
    with (
        about(f"collecting garbage in {settings.store}"),
        Display(settings.progress) as display,
        Store.open(settings.store) as store,
    ):
        track = display.track("gc")
        if rule != Rule():
            names = drop(store, outdated(store, rule, match), dry_run=dry_run)
            if not as_json:
                _print_names(names, dry_run=dry_run)
        collector = Collector(store, grace=grace, watch=track.stage if track else _silent)
        collected = collector.collect(dry_run=dry_run)
        if evict:
            from ..publish.remote import evict as evict_layers

            evicted = evict_layers(store, collector, dry_run=dry_run)
    if as_json:
        document(
            {
                "dryRun": dry_run,
                **_members(collected),
                **({"names": list(map(_name_members, names))} if rule != Rule() else {}),
                **({"evicted": _members(evicted)} if evict else {}),
            }
        )
        return
    line(_said(collected, "blob", "would remove" if dry_run else "removed"))
    if evict:
        line(_said(evicted, "layer", "would evict" if dry_run else "evicted"))


def _explain(settings: Settings, text: str, grace: float, *, as_json: bool) -> None:
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        found = reasons(store, resolve(store, text))
    until = found.changed + grace if found.changed is not None and not found.is_kept else None
    if as_json:
        document(_reason_members(found, until))
        return
    where = f"{human(found.size)} in the pool" if found.size is not None else "not in the pool"
    line(f"{found.digest}: {where}")
    for use in found.uses:
        way = " > ".join(map(str, use.way[:-1]))
        line(f"needed by {shown(use.name)}" + (f": index.json > {way}" if way else ""))
    for holder in found.holders:
        line(
            f"leased until {_when(holder.expires)} by process {holder.pid} ({holder.program}) "
            f"on {holder.host}"
        )
    for name in found.links:
        line(f"{shown(name)} has a name for it, and does not mention it")
    if found.is_quarantined:
        line("a bad file of this name is in quarantine")
    if until is not None and found.changed is not None:
        line(f"nothing needs it; last touched {_when(found.changed)}")
        line("gc takes it now" if until < time.time() else f"gc takes it from {_when(until)} on")


def _print_names(names: Sequence[Outdated], *, dry_run: bool) -> None:
    for one in names:
        done = "would remove" if dry_run else "removed"
        line(f"{done} {shown(one.name)}, got {_when(one.got)}")


def _silent(_: str) -> None:
    pass


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _said(collected: Collected, noun: str, done: str) -> str:
    parts = [
        f"{done} {count(collected.blobs, noun)} and {count(collected.links, 'link')}",
        f"{human(collected.freed)} freed",
    ]
    if collected.recent:
        parts.append(f"{count(collected.recent, 'recent one')} kept")
    if collected.leased:
        parts.append(f"{collected.leased} in use")
    return ", ".join(parts)


def _members(collected: Collected) -> dict[str, object]:
    return {
        "blobs": collected.blobs,
        "links": collected.links,
        "freedBytes": collected.freed,
        "recentBlobs": collected.recent,
        "leasedBlobs": collected.leased,
    }


def _name_members(one: Outdated) -> dict[str, object]:
    return {"name": shown(one.name), "path": str(one.name), "got": _when(one.got)}


def _reason_members(found: Reasons, until: float | None) -> dict[str, object]:
    return {
        "digest": str(found.digest),
        "size": found.size,
        "kept": found.is_kept,
        "uses": [
            {"name": shown(use.name), "path": str(use.name), "way": list(map(str, use.way))}
            for use in found.uses
        ],
        "leases": [
            {
                "pid": holder.pid,
                "host": holder.host,
                "program": holder.program,
                "expires": _when(holder.expires),
            }
            for holder in found.holders
        ],
        "links": [shown(name) for name in found.links],
        "changed": None if found.changed is None else _when(found.changed),
        "collectable": None if until is None else _when(until),
        "quarantined": found.is_quarantined,
    }
