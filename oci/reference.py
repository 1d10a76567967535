"""Image references, and the directory each one names below a layout root."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from .digest import HEX_LENGTHS, Digest, is_encoded
from .errors import InvalidContent

DEFAULT_REGISTRY = "index.docker.io"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_REGISTRY = re.compile(r"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9_\-./]{1,255}")
_TAG = re.compile(r"[A-Za-z0-9_\-.]{1,128}")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A registry, a repository in it, and a tag or a digest.

    Docker's defaults are filled in, as go-containerregistry's weak validation
    does. When text has both, tag and digest, the digest names the content and the
    tag is dropped.

    >>> str(Reference.parse("alpine"))
    'index.docker.io/library/alpine:latest'
    >>> str(Reference.parse("localhost:5000/a/b:c").path)
    'localhost:5000/a/b/c'
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[registry/]repository[:tag][@digest]`.

        Raises:
            InvalidContent: `text` is malformed, or its path would leave the layout
                root (`..`, `.` and empty elements), be that of a digest (a tag of
                64 hex digits in a repository that ends in `/sha256`), or lie where a
                layout has its blobs (`/blobs/sha256`).
        """
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        first, slash, rest = name.partition("/")
        if slash and is_registry(first):
            registry, name = first, rest
        else:
            registry = DEFAULT_REGISTRY
        repository, colon, tag = name.partition(":")
        if registry in ("docker.io", DEFAULT_REGISTRY):
            registry = DEFAULT_REGISTRY
            if "/" not in repository:
                repository = f"{DEFAULT_NAMESPACE}/{repository}"
        if colon or digest is None:
            tag = tag if colon else DEFAULT_TAG
            if _TAG.fullmatch(tag) is None:
                raise _malformed(text, f"the tag {tag[:200]!r} is not [A-Za-z0-9_.-]{{1,128}}")
        reference = cls(registry, repository, "" if digest else tag, digest)
        _check(text, reference)
        return reference

    @property
    def identifier(self) -> str:
        """The tag, or the digest as text: what distribution-spec calls the reference."""
        return str(self.digest) if self.digest else self.tag

    @property
    def canonical(self) -> str:
        """The name as containerd and Podman write it: docker.io is what they call Docker Hub."""
        text = str(self)
        if self.registry != DEFAULT_REGISTRY:
            return text
        return f"docker.io{text.removeprefix(DEFAULT_REGISTRY)}"

    @property
    def path(self) -> PurePosixPath:
        """The directory below a layout root: `registry/repository/tag` or `…/algorithm/hex`."""
        last = (self.digest.algorithm, self.digest.encoded) if self.digest else (self.tag,)
        return PurePosixPath(self.registry, self.repository, *last)

    @classmethod
    def from_path(cls, path: PurePosixPath) -> Reference | None:
        """Return the reference whose `path` this is, or None if there is no such reference."""
        parts = path.parts
        if len(parts) < 3:
            return None
        if is_encoded(parts[-2], parts[-1]):
            repository, identifier = parts[1:-2], f"@{parts[-2]}:{parts[-1]}"
        else:
            repository, identifier = parts[1:-1], f":{parts[-1]}"
        try:
            reference = cls.parse(f"{parts[0]}/{'/'.join(repository)}{identifier}")
        except InvalidContent:
            return None
        return reference if reference.path == path else None

    def __str__(self) -> str:
        separator = "@" if self.digest else ":"
        return f"{self.registry}/{self.repository}{separator}{self.identifier}"


def is_registry(component: str) -> bool:
    """Tell whether what stands before the first slash of a name is a registry, as for Docker."""
    return component == "localhost" or "." in component or ":" in component


def _check(text: str, reference: Reference) -> None:
    if _REGISTRY.fullmatch(reference.registry) is None:
        raise _malformed(text, f"{reference.registry[:200]!r} is not a registry host")
    if _REPOSITORY.fullmatch(reference.repository) is None:
        raise _malformed(text, "a repository is [a-z0-9_./-]{1,255}")
    elements = (
        reference.registry,
        *reference.repository.split("/"),
        *filter(None, [reference.tag]),
    )
    for element in elements:
        if element in ("", ".", ".."):
            raise _malformed(text, f"{element!r} is not a path element")
        if len(element) > 255:
            raise _malformed(text, "a path element has at most 255 bytes")
    last = reference.repository.rsplit("/", 1)[-1]
    if is_encoded(last, reference.tag):
        raise _malformed(text, "its path is that of a digest")
    for above, below in pairwise(reference.path.parts):
        if above == "blobs" and below in HEX_LENGTHS:
            raise _malformed(text, "its path is that of blobs")


def _malformed(text: str, why: str) -> InvalidContent:
    return InvalidContent(f"not an image reference: {text[:300]!r}: {why}")
