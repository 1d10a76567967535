"""An image in Podman's storage as sink: Podman reads a layout directory, and takes what it lacks.

The directory has documents of its own and symbolic links to the blobs, wherever they are,
so that nothing is copied for it. Podman derives a name from the directory's name, which has
to be one that it accepts, so the directory is named relative to the one above.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import InvalidContent, NotFound, RegistryError
from ..oci.image_layout import BLOBS, INDEX, MARKER, MARKER_CONTENT, blob_path
from ..oci.manifest import Index
from ..oci.platform import Platform
from ..oci.reference import Reference
from .command import Command
from .sink import Action, Image, host_platform
from .source import Source

TIMEOUT = 900.0  # seconds; while layers are unpacked nothing is said

_UNKNOWN = "image not known"  # how podman says that it has no image of a name
_ABSENT = re.compile(r"/blobs/([a-z0-9]+)/([0-9a-f]+): no such file")
_DIGESTS = "{{.Digest}}{{range .RepoDigests}} {{.}}{{end}}"
_FILES = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")  # variables with paths
_NO_CREDENTIALS = {"REGISTRY_AUTH_FILE": "", "DOCKER_CONFIG": ""}  # it would insist on the files


class PodmanSink:
    """A name in the storage that `podman` uses here; its environment chooses another.

    Leaving the block removes the directory.
    """

    sparse = False

    def __init__(self, reference: Reference) -> None:
        if reference.digest is not None:
            raise InvalidContent(f"{reference}: podman gives names by tag only")
        self._name = reference.canonical
        self._above = tempfile.TemporaryDirectory(prefix="ocistow-")
        self._layout = Path(self._above.name, f"ocistow-{secrets.token_hex(8)}")
        files = {key: os.path.abspath(os.environ[key]) for key in _FILES if os.environ.get(key)}
        environment = {**files, **_NO_CREDENTIALS}
        self._podman = Command(("podman",), "podman", TIMEOUT, environment, self._layout.parent)
        self._unchanged = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._above.cleanup()

    def platform(self) -> Platform:
        """Return what this machine runs: Podman keeps one image of an index."""
        return host_platform()

    def begin(self, image: Image) -> None:
        """Find out whether Podman has the image, and describe it in the directory."""
        self._unchanged = self._has(image.root.digest)
        for algorithm in {node.descriptor.digest.algorithm for node in image.nodes}:
            (self._layout / BLOBS / algorithm).mkdir(parents=True)
        (self._layout / MARKER).write_bytes(MARKER_CONTENT)
        (self._layout / INDEX).write_bytes(Index.of([image.root]).raw)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether Podman has the whole image; it does not tell what else it has."""
        return self._unchanged

    def put_blob(self, descriptor: Descriptor, source: Source) -> Action:
        """Let the directory have the blob; one that is absent here must be in Podman's storage."""
        try:
            blob = source.open(descriptor)
        except NotFound:
            return Action.PRESENT
        with blob:
            if blob.file is None:
                raise InvalidContent(f"{descriptor.digest} is in no file that podman could read")
            path = os.readlink(f"/proc/self/fd/{blob.file}")
            if not os.path.samestat(os.stat(path), os.fstat(blob.file)):
                raise NotFound(descriptor.digest)
        (self._layout / blob_path(descriptor.digest)).symlink_to(path)
        return Action.SENT

    def put_manifest(self, descriptor: Descriptor, raw: bytes) -> None:
        """Let the directory have the manifest."""
        (self._layout / blob_path(descriptor.digest)).write_bytes(raw)

    def tag(self, root: Descriptor) -> None:
        """Let Podman read the directory, and give the image its name.

        Raises:
            NotFound: neither this side nor Podman has a layer; `name` is its digest.
        """
        if self._unchanged:
            return
        try:
            identity = self._podman.run("pull", "--quiet", f"oci:{self._layout.name}")
        except RegistryError as error:
            if absent := _ABSENT.search(error.message):
                raise NotFound(Digest(absent[1], absent[2])) from error
            raise
        found = identity.decode(errors="replace").split()[-1]
        try:
            self._podman.run("tag", found, self._name)
        finally:
            with suppress(RegistryError):  # not every release names what it pulls
                self._podman.run("untag", found, f"localhost/{self._layout.name}:latest")
        if not self._has(root.digest):
            raise RegistryError("podman", 0, (), f"{self._name} is not {root.digest}")

    def losses(self) -> Sequence[str]:
        """Podman keeps the manifest as it is, and layers unpacked."""
        return ()

    def _has(self, digest: Digest) -> bool:
        """Tell whether the name stands for the image with this manifest."""
        try:
            said = self._podman.run("image", "inspect", "--format", _DIGESTS, self._name)
        except RegistryError as error:
            if error.message.endswith(_UNKNOWN):
                return False
            raise
        return any(word.endswith(str(digest)) for word in said.decode().split())
