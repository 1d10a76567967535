"""`ocistow gc`: free what no image needs."""

from __future__ import annotations

from datetime import timedelta

import click

from ..oci.wording import about
from ..publish.remote import evict as evict_layers
from ..store.gc import GRACE, Collector
from ..store.store import Store
from ..store.sweep import Collected
from .config import Settings
from .durations import DurationType
from .options import json_option, pass_settings
from .output import count, document, human, line


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
    "--evict", is_flag=True, help="Also drop layers that a remote has; they come back when needed."
)
@json_option
@pass_settings
def gc(settings: Settings, dry_run: bool, grace: float, evict: bool, as_json: bool) -> None:
    """Remove blobs that nobody needs.

    What images mention stays, and what a mount or a command that runs relies on. An index
    that is malformed stops it: what that needs is unknown. Anything else may go on meanwhile.
    """
    evicted = Collected()
    with about(f"collecting garbage in {settings.store}"), Store.open(settings.store) as store:
        collector = Collector(store, grace=grace)
        collected = collector.collect(dry_run=dry_run)
        if not as_json:
            line(_said(collected, "blob", "would remove" if dry_run else "removed"))
        if evict:
            evicted = evict_layers(store, collector, dry_run=dry_run)
            if not as_json:
                line(_said(evicted, "layer", "would evict" if dry_run else "evicted"))
    if as_json:
        document(
            {
                "dryRun": dry_run,
                **_members(collected),
                **({"evicted": _members(evicted)} if evict else {}),
            }
        )


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
