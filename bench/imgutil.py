"""A phase that saves into a daemon what Go's lifecycle does: imgutil.py BLANK PROGRAM ARGUMENT...

imgutil's archive has every layer, but the BLANK lowest are empty: the run image's, which the daemon
has. It asks for no other. Source: imgutil, local/store.go, doSave and addLayersToTar.
"""

from __future__ import annotations

import os
import sys

from ..lifecycle.program import run
from ..oci.digest import Digest
from ..oci.garbage import collect_rarely
from ..publish.docker import classic
from ..publish.docker.parcel import Parcel


class AsImgutil(classic.ClassicStore):
    """A daemon that is sent all but the lowest layers, whatever it has."""

    def lacking(self) -> frozenset[Digest]:
        """Return which blobs it is sent."""
        manifest = self._wanted.manifest
        self._parcel = Parcel(self._engine, self._wanted)
        self._known = int(sys.argv[1])
        layers = manifest.layers[self._known :]
        return frozenset((manifest.config.digest, *(layer.digest for layer in layers)))


if __name__ == "__main__":
    collect_rarely()  # as the programs of the phases do
    setattr(classic, "ClassicStore", AsImgutil)  # noqa: B010  # which is what DaemonSink takes
    sys.exit(run(sys.argv[2], sys.argv[3:], os.environ))
