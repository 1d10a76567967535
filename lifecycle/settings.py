"""How an exported image starts: its environment, its entry point, and its labels.

Source: buildpacks/spec, platform.md, "Exporter"; Go's lifecycle, phase/exporter.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..oci.errors import InvalidContent
from .config import Config
from .console import Console
from .files.metadata import BuildMetadata
from .inputs import Inputs

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
    variables = _variables(inputs)
    for name, value in variables.items():
        console.debug(f"Setting {name}={value}")
    env = with_variables(config.env, variables)
    console.debug(f"Prepending {PROCESS_DIR} and {LIFECYCLE_DIR} to PATH")
    console.debug(f"Setting WORKDIR: '{inputs.app_dir}'")
    console.info(f"Setting default process type '{process}'" if process else _NO_PROCESS)
    entrypoint = f"{PROCESS_DIR}/{process}" if process else LAUNCHER
    console.debug(f"Setting ENTRYPOINT: '{entrypoint}'")
    return replace(
        config,
        labels=merged,
        env=with_path(env),
        working_dir=str(inputs.app_dir),
        entrypoint=(entrypoint,),
        cmd=(),
    )


def with_variables(env: Sequence[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Set variables: those that are there keep their places, others come last."""
    result = list(env)
    for name, value in variables.items():
        places = (n for n, setting in enumerate(result) if setting.partition("=")[0] == name)
        place = next(places, len(result))
        result[place : place + 1] = [f"{name}={value}"]
    return tuple(result)


def with_path(env: Sequence[str]) -> tuple[str, ...]:
    """Let the image's processes, and the launcher, be found first.

    A PATH that contains `=` is lost. Go's lifecycle does not see it either, and the images
    must be equal.
    """
    settings = (setting.split("=") for setting in env)
    path = next((s[1] for s in settings if len(s) == 2 and s[0] == "PATH"), "")
    return with_variables(env, {"PATH": f"{PROCESS_DIR}:{LIFECYCLE_DIR}:{path}"})


_NO_PROCESS = "no default process type"


def _variables(inputs: Inputs) -> dict[str, str]:
    return {
        "CNB_LAYERS_DIR": str(inputs.layers_dir),
        "CNB_APP_DIR": str(inputs.app_dir),
        "CNB_PLATFORM_API": str(inputs.platform_api),
        "CNB_DEPRECATION_MODE": "quiet",
    }
