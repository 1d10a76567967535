"""What an image says of the phases that lie in it."""

from __future__ import annotations

import json

from ..oci.version import version
from .platform_api import BUILDPACK_APIS, PLATFORM_APIS


def image_labels() -> dict[str, str]:
    """Return what tells a platform, as labels of an image, which phases lie in its /cnb/lifecycle.

    Source: buildpacks/spec, "Builder" (extensions), "Labels"; platforms also expect them of images
    that have nothing but a lifecycle.
    """
    apis = {
        name: {"deprecated": [], "supported": [*map(str, versions)]}
        for name, versions in (("buildpack", BUILDPACK_APIS), ("platform", PLATFORM_APIS))
    }
    return {
        "io.buildpacks.lifecycle.apis": json.dumps(apis, separators=(",", ":")),
        "io.buildpacks.lifecycle.version": version(),
    }
