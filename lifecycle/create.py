"""The creator: all the phases of a build, one after the other, in one process.

Source: buildpacks/spec, platform.md, "creator"; Go's lifecycle, cmd/lifecycle/creator.go.
"""

from __future__ import annotations

from importlib import import_module

from .analyze import analyze
from .build import build_group
from .caches.opening import open_cache
from .console import Console
from .detect import detected, refuse_extensions
from .export import export
from .failures import failing
from .images.image import Target
from .inputs import Inputs
from .platform_api import Code, Version
from .restore import restore_layers


def create(inputs: Inputs, target: Target, console: Console) -> None:
    """Build an image, and with `-push` publish it from where it was exported to.

    Raises:
        PhaseFailed: a phase did, with the status that it has alone.
    """
    console.phase("ANALYZING")
    with failing(Code.ANALYZE, "analyze"):
        analyzed = analyze(inputs, target, console)
    console.phase("DETECTING")
    group, plan = detected(inputs, console)
    refuse_extensions(group, "creator")
    if not inputs.skip_layers or inputs.platform_api >= Version(0, 10):  # stores are never skipped
        console.phase("RESTORING")
        with failing(Code.RESTORE, "restore"), open_cache(inputs) as cache:
            restore_layers(inputs, analyzed.metadata, group, cache, console)
    console.phase("BUILDING")
    build_group(inputs, group, plan, analyzed, console)
    console.phase("EXPORTING")
    with failing(Code.EXPORT, "export"):
        export(inputs, target, console, analyzed)
    if inputs.push:
        console.phase("PUBLISHING")
        import_module(".publish", __package__).publish(inputs, console)
