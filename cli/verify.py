"""`ocistow verify`: see whether everything still is what it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import PurePosixPath

import click

from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound
from ..oci.wording import about, message_of
from ..publish.access import Access
from ..publish.repair import Repair, Repairer, check_place, diff_id, open_places
from ..store.store import Store
from ..store.verification.findings import Finding, Severity
from ..store.verification.layouts import LayoutChecker
from ..store.verification.scrub import Pace
from ..store.verification.surroundings import Directory, check_rest, directories, directory_of
from ..store.verification.verifier import JOBS, Choice, Subset, Verifier
from .access import access_options
from .config import MAX_JOBS, PROGRESS, Settings
from .exits import FINDINGS
from .options import json_option, name_argument, pass_settings
from .output import SCHEMA_VERSION, count, document, human, line, shown, table
from .progress import Amount, Display
from .quantities import BytesType
from .signals import ending_soon
from .subset import SubsetType

_DRAWING = 0.2  # seconds between two looks at how much was read


@click.command()
@name_argument("names", many=True, required=False)
@click.option(
    "--repair",
    "places",
    multiple=True,
    envvar="OCISTOW_REPAIR",
    metavar="FROM",
    help="Fetch what is bad or absent from here; can be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Only tell; leave bad blobs where they are.")
@click.option(
    "--read-data-subset",
    "subset",
    type=SubsetType(),
    envvar="OCISTOW_READ_DATA_SUBSET",
    metavar="5%|N/M|SIZE",
    help="Read some of the blobs: a share or a size of those not read for longest, or a part.",
)
@click.option("--rate", type=BytesType(), metavar="BYTES/S", help="Read no faster, such as 50MB/s.")
@click.option(
    "--full", is_flag=True, help="Take each blob's own digest, also where a BLAKE3 is recorded."
)
@click.option("--deep", is_flag=True, help="Also inflate layers, and compare their diffIDs.")
@click.option(
    "--cached", is_flag=True, help="Believe what memory has of files instead of reading the disk."
)
@click.option("--restart", is_flag=True, help="Do not go on where a run was interrupted.")
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    metavar="N",
    default=JOBS,
    help=f"Read this many files at once; one suits disks that turn.  [default: {JOBS}]",
)
@click.option("--progress", type=click.Choice(PROGRESS), help="How to show it.  [default: auto]")
@click.option("--json-lines", is_flag=True, help="Print a JSON object a line, as it is found.")
@json_option
@access_options
@pass_settings
def verify(
    settings: Settings,
    names: tuple[str, ...],
    places: tuple[str, ...],
    dry_run: bool,
    subset: Subset | None,
    rate: int | None,
    full: bool,
    deep: bool,
    cached: bool,
    restart: bool,
    jobs: int,
    progress: str | None,
    json_lines: bool,
    as_json: bool,
    access: Access,
) -> int:
    """Read blobs again, and check images.

    Without NAME, the whole store. A bad blob is moved to `quarantine`, so that nothing reads it,
    and replaced if another layout of the store, or FROM, has it: docker://HOST/REPO or another
    source of `add`, the directory of another store, or `remotes`, those of this store.

    Exits with 4 if there was an error, also if it was repaired.
    """
    if places and dry_run:
        raise click.UsageError("--repair and --dry-run exclude each other")
    if as_json and json_lines:
        raise click.UsageError("--json and --json-lines exclude each other")
    for place in places:
        check_place(place)
    report = _Report(lines=json_lines)
    with (
        about(f"verifying {settings.store}"),
        ending_soon(),
        Display(progress or settings.progress) as display,
        Store.open(settings.store) as store,
    ):
        wanted = [store.find(name).name for name in names]
        found = [directory_of(store, name) for name in wanted] if names else None
        chosen = _contents(store, wanted) if names else None
        choice = Choice(chosen, subset, full, cached, restart, jobs)
        verifier = Verifier(store, choice, Pace(rate))
        checker = LayoutChecker(store, verifier, diff_id if deep else None)
        with _watched(verifier, display.amount("verifying")):
            _find(store, verifier, checker, found, report, dry_run=dry_run)
        if not dry_run:
            _mend(store, verifier, checker, places, access, report)
        report.end(store, verifier, checker)
    if as_json:
        document(report.members())
    elif not json_lines:
        report.show()
    return FINDINGS if report.count(Severity.ERROR) else 0


def _find(
    store: Store,
    verifier: Verifier,
    checker: LayoutChecker,
    found: list[Directory] | None,
    report: _Report,
    *,
    dry_run: bool,
) -> None:
    with closing(verifier.run()) as blobs:
        for finding in blobs:
            fate = "" if dry_run else _quarantine(store, verifier, finding)
            report.add(finding, fate)
    for directory in directories(store) if found is None else found:
        for finding in checker.check(directory):
            report.add(finding, "" if dry_run else _quarantine(store, verifier, finding))
    if found is None:
        for finding in check_rest(store):
            report.add(finding, "")


def _quarantine(store: Store, verifier: Verifier, finding: Finding) -> str:
    """Take a bad file from the pool at once; layouts follow at the end, in one go."""
    digest = finding.digest
    if digest is None or digest not in verifier.tally.bad:
        return ""
    try:
        for file in verifier.tally.bad[digest]:
            store.quarantine.take(digest, file, iter(()))
    except OSError as error:
        return f"stays: {message_of(error)}"
    return "quarantined"


def _mend(
    store: Store,
    verifier: Verifier,
    checker: LayoutChecker,
    places: tuple[str, ...],
    access: Access,
    report: _Report,
) -> None:
    for digest, files in verifier.tally.bad.items():
        for file in files:
            try:
                store.quarantine.take(digest, file, (d.name for d in directories(store)))
            except OSError as error:
                report.failed(f"{digest} stays in layouts: {message_of(error)}")
    with open_places(places, store, access) as opened:
        repairer = Repairer(store, checker.copies, opened)
        for name in checker.incomplete:
            try:
                for repair in repairer.complete(name):
                    report.repaired(repair)
            except OSError as error:
                report.failed(f"{shown(name)} is not repaired: {message_of(error)}")


class _Report:
    """What is said about all that was found."""

    def __init__(self, *, lines: bool) -> None:
        self._lines = lines
        self._findings: list[tuple[Finding, str]] = []
        self._counts = dict.fromkeys(Severity, 0)
        self._repairs: list[Repair] = []
        self._summary: dict[str, object] = {}
        self._said = ""

    def count(self, severity: Severity) -> int:
        return self._counts[severity]

    def add(self, finding: Finding, fate: str) -> None:
        self._counts[finding.severity] += 1
        if self._lines:
            _print({"type": "finding", **_finding(finding, fate)})
        else:
            self._findings.append((finding, fate))

    def repaired(self, repair: Repair) -> None:
        self._repairs.append(repair)
        if self._lines:
            _print({"type": "repair", **_repair(repair)})

    def failed(self, words: str) -> None:
        line(words, aside=True)

    def end(self, store: Store, verifier: Verifier, checker: LayoutChecker) -> None:
        tally = verifier.tally
        kept = list(store.quarantine)
        self._summary = {
            "blobs": tally.blobs,
            "bytes": verifier.pace.read,
            "skippedBlobs": tally.skipped,
            "images": checker.checked,
            **{f"{severity}s": self._counts[severity] for severity in Severity},
            "repairedBlobs": len({r.digest for r in self._repairs if r.origin}),
            "quarantinedFiles": len(kept),
            "quarantinedBytes": sum(each.size for each in kept),
        }
        if self._lines:
            _print({"type": "summary", **self._summary})
        parts = [f"{count(tally.blobs, 'blob')} read, {human(verifier.pace.read)}"]
        if tally.skipped:
            parts.append(f"{tally.skipped} found good before the interruption")
        parts.append(f"{count(checker.checked, 'image')} checked")
        parts += [count(self._counts[s], s) for s in Severity if self._counts[s]]
        if not any(self._counts.values()):
            parts.append("nothing found")
        self._said = ", ".join(parts)
        if kept:
            size = human(sum(each.size for each in kept))
            self._said += f"\nin {store.quarantine.path}: {count(len(kept), 'file')}, {size}"

    def members(self) -> dict[str, object]:
        return {
            "findings": [_finding(finding, fate) for finding, fate in self._findings],
            "repairs": [_repair(repair) for repair in self._repairs],
            "summary": self._summary,
        }

    def show(self) -> None:
        """Print a table, the worst first, what was repaired, and one line in the end."""
        order = list(Severity)
        rows = [
            [finding.severity, finding.kind, _where(finding), _detail(finding, fate)]
            for finding, fate in sorted(self._findings, key=lambda f: order.index(f[0].severity))
        ]
        if rows:
            table(("SEVERITY", "FOUND", "WHERE", "WHAT"), rows, right=[])
        came: dict[tuple[Digest, str], int] = {}
        for repair in self._repairs:
            if repair.origin:
                came[repair.digest, repair.origin] = came.get((repair.digest, repair.origin), 0) + 1
        for (digest, origin), images in came.items():
            line(f"repaired {digest} from {origin}, for {count(images, 'image')}")
        for digest, reasons in {r.digest: r.reasons for r in self._repairs if not r.origin}.items():
            line(f"not repaired: {digest} ({'; '.join(reasons) or 'no place to ask: --repair'})")
        line(self._said)


def _where(finding: Finding) -> str:
    layout = finding.layout
    return shown(layout) if layout and finding.where == str(layout) else finding.where


def _detail(finding: Finding, fate: str) -> str:
    return f"{finding.detail}; {fate}" if fate else finding.detail


def _finding(finding: Finding, fate: str) -> dict[str, object]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "where": finding.where,
        "detail": finding.detail,
        **({"digest": str(finding.digest)} if finding.digest else {}),
        **({"image": shown(finding.layout)} if finding.layout else {}),
        **({"size": finding.size} if finding.size else {}),
        **({"fate": fate} if fate else {}),
    }


def _repair(repair: Repair) -> dict[str, object]:
    return {
        "digest": str(repair.digest),
        "image": shown(repair.layout),
        "repaired": bool(repair.origin),
        **({"from": repair.origin} if repair.origin else {"reasons": list(repair.reasons)}),
    }


def _print(members: dict[str, object]) -> None:
    line(json.dumps({"schemaVersion": SCHEMA_VERSION, **members}))


def _contents(store: Store, names: list[PurePosixPath]) -> frozenset[Digest]:
    """Return what layouts have, and what they mention as far as that can be told."""
    from ..publish.layout import contents

    found = set[Digest]()
    for name in names:
        layout = store.layout(name)
        found.update(digest for digest, _ in layout.linked())
        try:
            found |= contents(layout)
        except (NotFound, InvalidContent):
            continue  # which is among the findings
    return frozenset(found)


@contextmanager
def _watched(verifier: Verifier, amount: Amount | None) -> Generator[None]:
    """Let a bar know how much was read, now and then."""
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while amount is not None and not ended.wait(_DRAWING):
            read = verifier.pace.read
            amount.begins(max(verifier.tally.total, read))
            amount.moves(read - seen)
            seen = read

    thread = threading.Thread(target=watch, name="amount", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
