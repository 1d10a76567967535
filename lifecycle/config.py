"""An image's config as Go's lifecycle writes it, to the byte.

Source: image-spec, config.md; go-containerregistry, pkg/v1/config.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..oci.digest import Digest
from ..oci.document import Object


@dataclass(frozen=True, slots=True)
class History:
    """How one layer came to be."""

    created_by: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """How an image runs, and what its layers are uncompressed.

    Attributes:
        env: in its order, `NAME=value` each.
        labels: of the container.
        history: one entry a layer, unless the image says otherwise.
        container: the other members of `config`, by their names there.
    """

    architecture: str = "amd64"
    os: str = "linux"
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    author: str = ""
    docker_version: str = ""
    created: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    container: Object = field(default_factory=dict[str, object])
