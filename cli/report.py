"""What `add` and `publish` did: for reading, for scripts, and blob by blob for the record.

docs/publishing.md says what the members of a report mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.errors import OcistowError
from ..oci.reference import Reference
from ..oci.wording import message_of, printable
from ..publish.records import write_digest, write_record, write_references
from ..publish.sink import Action
from .output import SCHEMA_VERSION, count, human

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..publish.copy import Copied, Outcome

_NAMED = ("docker-daemon", "containerd", "podman")  # transports whose rest is a reference


@dataclass(frozen=True, slots=True)
class Records:
    """The files that a user asked for; None is one nobody wants.

    Attributes:
        digest: gets the digest of the image.
        references: gets `NAME@DIGEST` for each place that has the image now.
        report: gets what was done to each blob.
    """

    digest: Path | None = None
    references: Path | None = None
    report: Path | None = None


@dataclass(slots=True)
class Result:
    """What became of one destination: what was copied, or why not.

    Attributes:
        destination: as the user named it.
        name: the reference by which the image can be asked for there.
        error: why nothing was copied; or else, why what refers to it was not.
        referrers: the copies of what refers to it, or of lists of that; None if nobody asked.
    """

    destination: str
    name: str
    copied: Copied | None = None
    error: OcistowError | OSError | None = None
    referrers: tuple[Copied, ...] | None = None

    def ends(self, outcome: Copied | OcistowError | OSError) -> None:
        """Take what became of it; an error also takes the place of what was copied before."""
        if isinstance(outcome, OcistowError | OSError):
            self.copied, self.error = None, outcome
        else:
            self.copied = outcome


def write_records(
    records: Records, source: str, root: Descriptor, began: datetime, results: Sequence[Result]
) -> None:
    """Write the files that were asked for; each appears whole or not at all.

    `root` is the image as `source` has it. Without any success, only the report is written.

    Raises:
        OSError: one cannot be written.
    """
    done = [(r.name, r.copied.root.digest) for r in results if r.copied is not None]
    if records.digest is not None and done:
        write_digest(records.digest, root.digest)
    if records.references is not None and done:
        write_references(records.references, done)
    if records.report is not None:
        report = json.dumps(_report(source, root, began, results), indent=2)
        write_record(records.report, f"{report}\n")


def summary(name: str, copied: Copied, *, added: bool = False) -> str:
    """Return what a copy to a name did, for reading."""
    size = human(copied.size(Action.SENT))
    if added:
        parts = [f"{count(copied.sent, 'blob')} new ({size})", f"{copied.present} present"]
    else:
        parts = [f"{copied.sent} sent ({size})", f"{copied.present} present"]
        parts.append(f"{copied.mounted} mounted")
    if copied.absent:
        parts.append(f"{count(copied.absent, 'layer')} absent")
    return f"{name}: {', '.join(parts)}, digest {copied.root.digest}"


def more(one: Result) -> Iterator[str]:
    """Yield further lines: what was not kept, and what became of referrers."""
    if one.copied is not None and one.copied.losses:
        yield f"not kept by the daemon: {', '.join(map(printable, one.copied.losses))}"
    if one.referrers is not None:
        sent = sum(copied.sent for copied in one.referrers)
        size = sum(copied.size(Action.SENT) for copied in one.referrers)
        present = sum(copied.present for copied in one.referrers)
        yield f"referrers: {sent} sent ({human(size)}), {present} present"


def transferred(one: Result) -> dict[str, object]:
    """Return what became of a destination, for a JSON document."""
    copied = one.copied
    if copied is None:
        assert one.error is not None
        return {"error": message_of(one.error)}
    found: dict[str, object] = {
        "digest": str(copied.root.digest),
        "mediaType": copied.root.media_type,
        "sentBlobs": copied.sent,
        "sentBytes": copied.size(Action.SENT),
        "presentBlobs": copied.present,
        "presentBytes": copied.size(Action.PRESENT),
        "mountedBlobs": copied.mounted,
        "mountedBytes": copied.size(Action.MOUNTED),
        "absentLayers": copied.absent,
        "losses": list(copied.losses),
    }
    if one.error is not None:
        found["error"] = message_of(one.error)
    if one.referrers is not None:
        found["referrers"] = [str(referrer.root.digest) for referrer in one.referrers]
    return found


def name_at(destination: str, name: str) -> str:
    """Return the reference that a destination gives, else `name`, which the image has here.

    Raises:
        InvalidContent: it is malformed.
    """
    transport, _, rest = destination.partition(":")
    if transport == "docker":
        return str(Reference.parse(rest.removeprefix("//")))
    return str(Reference.parse(rest)) if transport in _NAMED else name


def _report(
    source: str, root: Descriptor, began: datetime, results: Iterable[Result]
) -> dict[str, object]:
    from ..oci.version import version

    return {
        "schemaVersion": SCHEMA_VERSION,
        "tool": {"name": "ocistow", "version": version()},
        "started": _timestamp(began),
        "finished": _timestamp(datetime.now(UTC)),
        "source": {"name": source, "digest": str(root.digest), "mediaType": root.media_type},
        "destinations": [_destination(one) for one in results],
    }


def _destination(one: Result) -> dict[str, object]:
    if one.copied is None:
        assert one.error is not None
        return {"destination": one.destination, "error": message_of(one.error)}
    copied = one.copied
    digest = str(copied.root.digest)
    failed = {} if one.error is None else {"error": message_of(one.error)}
    return {
        "destination": one.destination,
        "mediaType": copied.root.media_type,
        "digestIn": digest,
        "digestOut": None if copied.losses else digest,
        "seconds": round(copied.seconds, 6),
        "totals": {
            str(action): {"blobs": copied.count(action), "bytes": copied.size(action)}
            for action in Action
        },
        "losses": list(copied.losses),
        "blobs": [_blob(outcome) for outcome in copied.outcomes],
        "referrers": [
            {
                "digest": str(referrer.root.digest),
                "mediaType": referrer.root.media_type,
                "blobs": [_blob(outcome) for outcome in referrer.outcomes],
            }
            for referrer in one.referrers or ()
        ],
        **failed,
    }


def _blob(outcome: Outcome) -> dict[str, object]:
    size = outcome.descriptor.size
    return {
        "digest": str(outcome.descriptor.digest),
        "mediaType": outcome.descriptor.media_type,
        "size": size,
        "action": str(outcome.action),
        "bytes": size if outcome.action is Action.SENT else 0,
        "seconds": round(outcome.seconds, 6),
    }


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
