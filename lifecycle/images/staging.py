"""Where the layers of an image wait that is being made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...store.blobs import BlobStore
from ...store.index.layers import Layer

if TYPE_CHECKING:
    from ...publish.recognition import Recognition


@dataclass(frozen=True, slots=True)
class Staging:
    """A pool for layers that are packed, and what is known of those that it has. Thread-safe.

    Attributes:
        blobs: where they are written, each as an ingest that the image's `save` commits.
        recognition: of the store whose pool that is; None where nothing is remembered.
    """

    blobs: BlobStore
    recognition: Recognition | None = None

    def known(self, diff_ids: Iterable[Digest]) -> dict[Digest, Descriptor]:
        """Return blobs of the pool that inflate to these, which need not be packed then."""
        return self.recognition.layers(diff_ids) if self.recognition else {}

    def note(self, layers: Iterable[Layer]) -> None:
        """Remember layers that were packed and then saved."""
        if self.recognition:
            self.recognition.note(layers)
