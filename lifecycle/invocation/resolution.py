"""From a command line and the environment to the inputs of a phase.

Source: Go's lifecycle, platform/lifecycle_inputs.go and the `Args` of cmd/lifecycle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ...oci.errors import PhaseFailed
from ..golang.flags import Parsed, Value
from ..inputs import Inputs
from ..platform_api import Code, Version
from .arguments import ARGUMENTS, LAYERS, Phase

LAYOUT_DIR = "/oci"
CNB_ORDER = "/cnb/order.toml"


def inputs_of(
    phase: Phase, api: Version, parsed: Parsed, environ: Mapping[str, str]
) -> tuple[Inputs, str]:
    """Return what is asked for, and what the deprecated `-image` says.

    Of the file system only the order file is looked for.

    Raises:
        PhaseFailed: there are too many arguments after the flags, or too few.
    """
    _count(phase, parsed.positional)
    said = _Said(parsed, environ)
    return _collected(phase, api, said), said.text("image")


class _Said:
    """What flags and environment say, in the type that each value has."""

    def __init__(self, parsed: Parsed, environ: Mapping[str, str]) -> None:
        self.parsed = parsed
        self.environ = environ
        without = {each.name: each.value(environ) for each in ARGUMENTS}
        self._values: dict[str, Value] = {**without, **parsed.values}
        self._layers = self.text("layers")

    def text(self, name: str) -> str:
        value = self._values[name]
        assert isinstance(value, str)
        return value

    def switch(self, name: str) -> bool:
        return self._values[name] is True

    def number(self, name: str) -> int:
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._values[name]
        assert isinstance(value, tuple)
        return value

    def path(self, name: str) -> Path:
        """Return a path, with the layers directory in the place of its name."""
        layers = self._layers
        return Path(self.text(name).replace(LAYERS if layers else f"{LAYERS}/", layers, 1))

    def absolute(self, name: str) -> Path:
        return _absolute(self.path(name))

    def optional(self, name: str) -> Path | None:
        return self.path(name) if self.text(name) else None

    def given(self, *names: str) -> bool:
        """Tell whether any of these flags is there."""
        return not self.parsed.given.isdisjoint(names)


def _count(phase: Phase, positional: tuple[str, ...]) -> None:
    count = len(positional)
    if phase in (Phase.ANALYZE, Phase.CREATE):
        message = "" if count == 1 else f"received {count} arguments, but expected 1"
    elif phase in (Phase.EXPORT, Phase.REBASE, Phase.PUBLISH):
        message = "" if count else "at least one image argument is required"
    else:
        word = "Args" if phase is Phase.RESTORE else "arguments"
        message = f"received unexpected {word}" if count else ""
    if message:
        raise PhaseFailed(Code.INVALID_ARGS, f"failed to parse arguments: {message}")


def _collected(phase: Phase, api: Version, said: _Said) -> Inputs:
    image, *names = said.parsed.positional or ("",)
    layout, by_draft = _layout_mode(phase, said)
    cache_dir, launch_cache_dir = said.optional("cache-dir"), said.optional("launch-cache")
    return Inputs(
        platform_api=api,
        image=image,
        tags=(*names, *said.texts("tag")),
        analyzed_path=said.path("analyzed"),
        app_dir=said.absolute("app"),
        build_config_dir=said.absolute("build-config"),
        build_image=said.text("build-image"),
        buildpacks_dir=said.absolute("buildpacks"),
        cache_dir=_absolute(cache_dir) if cache_dir else None,
        cache_image=said.text("cache-image"),
        compression=said.text("compression"),
        daemon=said.switch("daemon"),
        exec_env=said.environ.get("CNB_EXEC_ENV") or "production",
        exported_path=said.optional("exported"),
        extensions_dir=said.absolute("extensions"),
        force_rebase=said.switch("force"),
        gid=said.number("gid"),
        uid=said.number("uid"),
        group_path=said.path("group"),
        image_digest_file=said.optional("image-digest-file"),
        image_refs=said.optional("image-refs"),
        insecure_registries=said.texts("insecure-registry"),
        jobs=said.number("jobs"),
        launch_cache_dir=_absolute(launch_cache_dir) if launch_cache_dir else None,
        launcher_path=said.path("launcher"),
        launcher_sbom_dir=said.path("launcher-sbom"),
        layers_dir=said.absolute("layers"),
        layout=layout,
        by_draft=by_draft,
        layout_dir=_layout_dir(by_draft, said) if layout else None,
        order_path=_order_path(said),
        parallel=said.switch("parallel"),
        plan_path=said.path("plan"),
        platform_dir=said.absolute("platform"),
        previous_image=said.text("previous-image"),
        process_type=said.text("process-type"),
        project_metadata_path=said.path("project-metadata"),
        publish=said.switch("publish"),
        push=said.switch("push"),
        report_path=said.path("report"),
        run_path=said.path("run"),
        run_image=said.text("run-image"),
        skip_layers=said.switch("skip-restore" if phase is Phase.CREATE else "skip-layers"),
        stack_path=said.path("stack"),
        store_path=said.optional("store"),
        system_path=said.path("system"),
        environ=said.environ,
    )


def _layout_mode(phase: Phase, said: _Said) -> tuple[bool, bool]:
    """Return whether images are in layouts, and whether that was asked for in the draft's words."""
    if phase is Phase.PUBLISH:
        return True, True
    if said.given("layout", "oci"):
        by_draft = said.given("oci") and said.switch("oci")
        return by_draft or (said.given("layout") and said.switch("layout")), by_draft
    if said.environ.get("CNB_USE_LAYOUT"):
        return said.switch("layout"), False
    return said.switch("oci"), said.switch("oci")


def _layout_dir(by_draft: bool, said: _Said) -> Path:
    names = ("oci-dir", "layout-dir") if by_draft else ("layout-dir", "oci-dir")
    given = [name for name in names if said.given(name)]
    texts = [said.text(name) for name in (*given, "layout-dir", "oci-dir")]
    return Path(os.path.normpath(next(filter(None, texts), LAYOUT_DIR)))


def _order_path(said: _Said) -> Path:
    path = said.path("order")
    is_default = said.text("order") == f"{LAYERS}/order.toml"
    return Path(CNB_ORDER) if is_default and not path.exists() else path


def _absolute(path: Path) -> Path:
    return Path("/", os.path.abspath(path).lstrip("/"))
