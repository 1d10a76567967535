"""How an exported image starts: its environment, its entry point, and its labels.

Source: buildpacks/spec, platform.md, "Exporter"; Go's lifecycle, phase/exporter.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...oci.errors import InvalidContent
from ..console import Console
from ..files.metadata import BuildMetadata
from ..inputs import Inputs
from .config import Config

LAUNCHER = "/cnb/lifecycle/launcher"
PROCESS_DIR = "/cnb/process"
LIFECYCLE_DIR = "/cnb/lifecycle"


def default_process(metadata: BuildMetadata, asked: str) -> str:
    """Return the type of process that the image starts; empty for none.

    Raises:
        InvalidContent: the build has none of the type that was asked for.
    """
    if asked and all(process.type != asked for process in metadata.processes):
        raise InvalidContent(f"tried to set {asked} to default but it doesn't exist")
    return asked or metadata.default_process


def configured(
    config: Config,
    inputs: Inputs,
    process: str,
    labels: Iterable[tuple[str, str]],
    console: Console,
) -> Config:
    """Return the run image's config with what makes it start a process of the application.

    Of labels with the same name the last one counts.
    """
    merged = dict(config.labels)
    for name, value in labels:
        console.info(f"Adding label '{name}'")
        merged[name] = value
    for name, value in _variables(inputs).items():
        console.debug(f"Setting {name}={value}")
        config = config.with_variable(name, value)
    console.debug(f"Prepending {PROCESS_DIR} and {LIFECYCLE_DIR} to PATH")
    path = f"{PROCESS_DIR}:{LIFECYCLE_DIR}:{config.variable('PATH')}"
    console.debug(f"Setting WORKDIR: '{inputs.app_dir}'")
    console.info(f"Setting default process type '{process}'" if process else _NO_PROCESS)
    entrypoint = f"{PROCESS_DIR}/{process}" if process else LAUNCHER
    console.debug(f"Setting ENTRYPOINT: '{entrypoint}'")
    return replace(
        config.with_variable("PATH", path),
        labels=merged,
        working_dir=str(inputs.app_dir),
        entrypoint=(entrypoint,),
        cmd=(),
    )


_NO_PROCESS = "no default process type"


def _variables(inputs: Inputs) -> dict[str, str]:
    return {
        "CNB_LAYERS_DIR": str(inputs.layers_dir),
        "CNB_APP_DIR": str(inputs.app_dir),
        "CNB_PLATFORM_API": str(inputs.platform_api),
        "CNB_DEPRECATION_MODE": "quiet",
    }
