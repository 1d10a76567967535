"""What `du` tells beside the costs of images: a page, a daemon's account, what could be saved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.wording import about, printable
from .output import count, human, line, shown, table
from .progress import Display
from .signals import ending_soon

if TYPE_CHECKING:  # most who ask what images cost need none of these
    from ..audit.daemon import Comparison
    from ..audit.potential import Level, Potential
    from ..audit.usage import Usage
    from ..store.store import Store

Sizes = Callable[[int], str]

_COLUMNS = ("NAME", "ON DISK", "EXCLUSIVE", "DAEMON", "UNIQUE", "DIFFERENCE")
_SKIPPED = 5  # lines about what could not be read


def write_page(
    file: Path,
    store: Store,
    found: Usage,
    compared: Comparison | None,
    saving: Potential | None,
) -> None:
    """Write the page of these numbers, all of it or nothing."""
    from ..audit.history import runs
    from ..audit.layers import layers
    from ..audit.page import Facts, page
    from ..store.output import write_whole

    whole = len(found.layouts) == len(found.names)
    facts = Facts(
        store=store.path,
        taken=datetime.now(UTC),
        usage=found,
        layers=layers(store, None if whole else [cost.name for cost in found.layouts]),
        runs=runs(store) if whole else (),
        comparison=compared,
        potential=saving,
    )
    content = page(facts, human).encode()
    with about(f"writing {file}"):
        write_whole(file, content)
    line(f"wrote {file}: {human(len(content))}", aside=True)


def compared_with(store: Store, found: Usage, docker_host: str | None) -> Comparison:
    """Ask a Docker daemon, and put its account beside ours."""
    from ..audit.daemon import TIMEOUT, account, compare
    from ..publish.access import Access
    from ..publish.docker.engine import Engine
    from ..publish.docker.host import find_host

    access = Access(docker_host=docker_host)
    with Engine(find_host(access), (access.timeout[0], TIMEOUT)) as engine:
        return compare(store, found, account(engine))


def estimated(store: Store, found: Usage, progress: str) -> Potential:
    """Estimate what finer sharing would save among these images."""
    from ..audit.potential import potential

    with ending_soon(), Display(progress) as display:
        watch = display.amount("reading layers")
        return potential(store, [cost.name for cost in found.layouts], watch)


def print_comparison(compared: Comparison | None, size: Sizes) -> None:
    """Print what a daemon says about the images that both have, if it was asked."""
    if compared is None:
        return
    rows = [
        [
            shown(row.cost.name),
            size(row.cost.on_disk),
            size(row.cost.exclusive),
            size(row.size),
            "" if row.unique is None else _signed(row.unique, size),
            _signed(row.size - row.cost.on_disk, size),
        ]
        for row in compared.rows
    ]
    line("")
    line(f"beside the {printable(compared.account.daemon)}, by its own account")
    table(_COLUMNS, rows, right=range(1, 6))
    both, theirs = count(len(rows), "image"), count(len(compared.account.images), "image")
    line(f"here, what both have takes {size(compared.together)} ({both})")
    line(f"there, by its account, all it has takes {size(compared.account.total)} ({theirs})")
    if compared.others:
        line(f"the daemon has {count(compared.others, 'image')} that the store lacks")


def comparison_members(compared: Comparison | None) -> dict[str, object]:
    """Return the same for a JSON document."""
    if compared is None:
        return {}
    told: dict[str, object] = {
        "host": compared.account.daemon,
        "images": [
            {
                "name": shown(row.cost.name),
                "ids": [str(image.identifier) for image in row.images],
                "onDisk": row.cost.on_disk,
                "exclusive": row.cost.exclusive,
                "daemonSize": row.size,
                "daemonUnique": row.unique,
            }
            for row in compared.rows
        ],
        "onDisk": compared.together,
        "daemonImages": len(compared.account.images),
        "daemonTotal": compared.account.total,
        "others": compared.others,
    }
    return {"daemon": told}


def print_potential(saving: Potential | None, size: Sizes) -> None:
    """Print what images take, and would take, if that was estimated."""
    if saving is None:
        return

    def row(what: str, stored: int, plain: int) -> list[str]:
        share = f"{1 - stored / saving.stored:.1%}" if saving.stored else ""
        return [what, size(stored), size(plain), share]

    line("")
    table(
        ("STORED ONCE", "STORED", "INFLATED", "SAVED"),
        [
            row("each layer", saving.stored, saving.plain),
            row("each file", saving.by_file.stored, saving.by_file.plain),
            row("each chunk", saving.by_chunk.stored, saving.by_chunk.plain),
        ],
        right=range(1, 4),
    )
    rate = human(round(saving.plain / saving.seconds)) if saving.seconds else "0 B"
    line(
        f"an estimate from {count(saving.layers, 'layer')} with {count(saving.files, 'file')}, "
        f"read at {rate}/s"
    )
    if saving.deviation:
        line(f"from a sample: the standard deviation is {saving.deviation:.2%}")
    if saving.absent:
        line(f"without {count(saving.absent, 'layer')} that the store lacks")
    for what, why in saving.skipped[:_SKIPPED]:
        line(printable(f"not counted: {what}: {why.removeprefix(f'{what}: ')}"), aside=True)
    if len(saving.skipped) > _SKIPPED:
        line(f"not counted: {len(saving.skipped) - _SKIPPED} more", aside=True)


def potential_members(saving: Potential | None) -> dict[str, object]:
    """Return the same for a JSON document."""
    if saving is None:
        return {}

    def members(level: Level) -> dict[str, int]:
        return {"stored": level.stored, "inflated": level.plain}

    told: dict[str, object] = {
        "layers": saving.layers,
        "files": saving.files,
        "fileBytes": saving.contents,
        "byLayer": {"stored": saving.stored, "inflated": saving.plain},
        "byFile": members(saving.by_file),
        "byChunk": members(saving.by_chunk),
        "deviation": round(saving.deviation, 6),
        "absentLayers": saving.absent,
        "skipped": [{"what": what, "why": why} for what, why in saving.skipped],
        "seconds": round(saving.seconds, 3),
    }
    return {"potential": told}


def _signed(number: int, size: Sizes) -> str:
    return f"-{size(-number)}" if number < 0 else size(number)
