"""What is wrong with a store, in words that a person and a script can both act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from ...oci.digest import Digest


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"  # some image is not what it was, or cannot be read
    WARNING = "warning"  # it works here, but somebody should look
    NOTE = "note"  # nothing is broken


class Kind(StrEnum):
    """What was found. Scripts compare these words: one may be added, none is changed."""

    BAD_BLOB = "bad-blob"  # its content is not what its name says
    UNREADABLE_BLOB = "unreadable-blob"  # the disk refuses
    UNREADABLE = "unreadable"  # a directory that the disk refuses
    UNSTEADY_BLOB = "unsteady-blob"  # read wrong once, and right again
    NO_MARKER = "no-marker"  # a layout without a good oci-layout
    BAD_INDEX = "bad-index"  # an index.json that is none
    BAD_DOCUMENT = "bad-document"  # a manifest or config that contradicts its descriptor or schema
    ABSENT_DOCUMENT = "absent-document"  # a manifest or config that is nowhere
    ABSENT_LAYER = "absent-layer"
    WRONG_SIZE = "wrong-size"  # another one than its descriptor announces
    WRONG_LAYERS = "wrong-layers"  # a config that counts other layers than its manifest
    WRONG_DIFF_ID = "wrong-diff-id"  # a layer that does not inflate to what the config says
    UNKNOWN_TYPE = "unknown-type"  # a media type that the image-spec does not know
    NOT_LINKED = "not-linked"  # the pool has it, the layout that mentions it does not
    NOT_SHARED = "not-shared"  # a layout's file is another than the pool's
    WRITABLE = "writable"  # a blob that somebody may write to
    OWNER = "owner"  # a blob that belongs to somebody else than the store
    STRAY = "stray"  # a name where only blobs should be
    UNFINISHED = "unfinished"  # a layout without an index
    DATABASE = "database"  # index.sqlite, which is a cache


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        where: the layout, or the path in the store.
        detail: expected and actual, where there are such.
        digest: of the blob that it is about.
        layout: the path of the layout that it is about.
        size: bytes that are wasted or wrong, if they can be told.
    """

    severity: Severity
    kind: Kind
    where: str
    detail: str
    digest: Digest | None = None
    layout: PurePosixPath | None = None
    size: int = 0
