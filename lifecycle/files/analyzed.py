"""analyzed.toml: what the analyzer found out about the previous image and the run image.

Source: buildpacks/spec, platform.md, "analyzed.toml".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..labels import LifecycleMetadata


@dataclass(frozen=True, slots=True)
class Target:
    """What an image was built for; an empty variant or distribution fits all."""

    os: str = ""
    arch: str = ""
    arch_variant: str = ""
    distro_name: str = ""
    distro_version: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class AnalyzedRunImage:
    """The run image.

    Attributes:
        reference: its identifier; empty if it was not found.
        image: its name as it was given; from API 0.12 on.
        target: from API 0.12 on.
    """

    reference: str = ""
    image: str = ""
    extend: bool = False
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Analyzed:
    """The whole file.

    Attributes:
        previous_image: identifier of the image of the last build; empty without one.
        build_image: likewise, when the restorer was told of one.
    """

    previous_image: str = ""
    build_image: str = ""
    run_image: AnalyzedRunImage | None = None
    metadata: LifecycleMetadata = field(default_factory=LifecycleMetadata)
