"""Wrong ways to start a phase as root, and how Go's lifecycle v0.21.17 ends then, word for word.

What it says is held equal to the program's by tests/integration/cnb/test_real_inputs.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_CACHE = "Warning: No cached data will be used, no cache specified."
IGNORED = "Warning: Ignoring -launch-cache, only intended for use with -daemon"
EXPERIMENTAL = "Platform requested experimental feature 'export to OCI layout format'"
FORBIDDEN = "ERROR: experimental features are disabled by CNB_EXPERIMENTAL_MODE=error"
NO_RUN = 'No run metadata found at path "/cnb/run.toml"'
DIGEST = f"sha256:{'a' * 64}"
API = {"CNB_PLATFORM_API": "0.12"}


@dataclass(frozen=True)
class Invocation:
    """A command line, and what comes of it.

    Attributes:
        code: the exit status.
        said: the lines on stdout, without colours.
        environ: all of the environment that matters.
        files: written into the working directory before, by their names.
    """

    arguments: str
    code: int
    said: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: API)
    files: Mapping[str, str] = field(default_factory=dict[str, str])


def _fails(arguments: str, code: int, *said: str, **files: str) -> Invocation:
    named = {name.replace("_", "."): text for name, text in files.items()}
    return Invocation(arguments, code, (*said[:-1], f"ERROR: failed to {said[-1]}"), files=named)


def _with(environ: Mapping[str, str], arguments: str, code: int, *said: str) -> Invocation:
    return Invocation(arguments, code, said, {**API, **environ})


def _api(version: str, arguments: str, message: str) -> Invocation:
    said = (f"ERROR: failed to {message}",)
    return Invocation(arguments, 11, said, {"CNB_PLATFORM_API": version})


_PLEASE = "please set 'CNB_PLATFORM_API' to specify the desired platform API version"
_RESOLVE = "resolve inputs: "
_PARSE = "parse arguments: "
_RUN_IMAGE_REQUIRED = f"{_RESOLVE}-run-image is required when there is no run metadata available"
_ANALYZED = f'[run-image]\nreference = "cnb/run@{DIGEST}"\n'

INVOCATIONS = (
    # the platform API
    _api("", "analyzer -h", f"get platform API version; {_PLEASE}"),
    _api(" ", "builder", f"get platform API version; {_PLEASE}"),
    _api("0.x", "exporter", "parse platform API '0.x'"),
    _api(
        "0.6",
        "creator",
        "set platform API: platform API version '0.6' is incompatible with the lifecycle",
    ),
    _api(
        "0.16",
        "rebaser",
        "set platform API: platform API version '0.16' is incompatible with the lifecycle",
    ),
    _api(
        "1",
        "restorer",
        "set platform API: platform API version '1' is incompatible with the lifecycle",
    ),
    _api("", "lifecycle detect", f"get platform API version; {_PLEASE}"),
    # the multicall program
    Invocation("lifecycle", 3, ("ERROR: failed to parse arguments",)),
    # how many arguments
    _fails("analyzer", 3, f"{_PARSE}received 0 arguments, but expected 1"),
    _fails("analyzer aa bb", 3, f"{_PARSE}received 2 arguments, but expected 1"),
    _fails("creator", 3, f"{_PARSE}received 0 arguments, but expected 1"),
    _fails(
        "creator aa -tag bb",
        3,
        "Warning: Warning: unconsumed flag-like positional arg: ",
        "\t-tag",
        "\t This will not be interpreted as a flag.",
        "\t Did you mean to put this before the first positional argument?",
        f"{_PARSE}received 3 arguments, but expected 1",
    ),
    _fails("exporter", 3, f"{_PARSE}at least one image argument is required"),
    _fails("rebaser", 3, f"{_PARSE}at least one image argument is required"),
    _fails("detector aa", 3, f"{_PARSE}received unexpected arguments"),
    _fails("builder aa", 3, f"{_PARSE}received unexpected arguments"),
    _fails("restorer aa", 3, f"{_PARSE}received unexpected Args"),
    _fails("lifecycle analyze", 3, f"{_PARSE}received 0 arguments, but expected 1"),
    # levels and colours
    Invocation("analyzer -log-level loud", 1, ("ERROR: failed to parse log level: invalid level",)),
    _fails(
        "analyzer -log-level debug -no-color",
        3,
        "Starting analyzer...",
        "Parsing inputs...",
        f"{_PARSE}received 0 arguments, but expected 1",
    ),
    _fails(
        "lifecycle rebase -log-level=DEBUG",
        3,
        "Starting rebase...",
        "Parsing inputs...",
        f"{_PARSE}at least one image argument is required",
    ),
    Invocation("analyzer -log-level fatal", 3),
    _with({"CNB_LOG_LEVEL": "fatal", "CNB_NO_COLOR": "true"}, "builder xx", 3),
    _with(
        {"CNB_LOG_LEVEL": "debug"},
        "builder -log-level error xx",
        3,
        f"ERROR: failed to {_PARSE}received unexpected arguments",
    ),
    # images
    _fails("analyzer ''", 3, f"{_RESOLVE}image argument is required"),
    _fails("exporter '' bb", 3, f"{_RESOLVE}image argument is required"),
    _fails("analyzer -run-image bb a", 3, f"{_RESOLVE}could not parse reference: a"),
    _fails("analyzer a", 3, f"{_RESOLVE}could not parse reference: a"),
    _fails("analyzer -run-image BB aa", 3, f"{_RESOLVE}could not parse reference: BB"),
    _fails("analyzer -run-image bb -tag a: aa", 3, f"{_RESOLVE}could not parse reference: a:"),
    _fails(
        "analyzer -run-image bb -previous-image a.b/c aa",
        3,
        f"{_RESOLVE}could not parse reference: a.b/c",
    ),
    _fails(
        "analyzer -run-image bb -cache-image a@sha256:1 aa",
        3,
        f"{_RESOLVE}could not parse reference: a@sha256:1",
    ),
    _fails(
        "analyzer -run-image bb -tag gcr.io/aa aa",
        3,
        f"{_RESOLVE}writing to multiple registries is unsupported",
    ),
    _fails("analyzer aa", 3, NO_RUN, _RUN_IMAGE_REQUIRED),
    _fails("creator aa", 3, NO_RUN, _RUN_IMAGE_REQUIRED),
    _fails(
        "analyzer -run run.toml aa",
        3,
        f"{_RESOLVE}missing run image metadata (-run-image)",
        run_toml="[[images]]\n",
    ),
    _fails("analyzer -run run.toml -daemon aA", 3, f"{_RESOLVE}could not parse reference: aA"),
    _fails(
        "creator -run-image bb -tag gcr.io/aa aa",
        3,
        NO_CACHE,
        f"{_RESOLVE}writing to multiple registries is unsupported",
    ),
    _fails(
        "creator -run-image bb -launch-cache /none -tag X aa",
        3,
        NO_CACHE,
        IGNORED,
        f"{_RESOLVE}could not parse reference: X",
    ),
    _fails(
        "rebaser -run-image bb -image cc aa",
        3,
        f"{_RESOLVE}supply only one of -run-image or (deprecated) -image",
    ),
    _fails(
        "rebaser -run-image bb aa gcr.io/aa",
        3,
        f"{_RESOLVE}writing to multiple registries is unsupported",
    ),
    _fails("rebaser -image bB aa", 3, f"{_RESOLVE}could not parse reference: bB"),
    _fails("exporter -run-image bb aa", 3, f"{_RESOLVE}-run-image is unsupported"),
    _fails("exporter -image bb aa", 3, f"{_RESOLVE}-image is unsupported"),
    _fails(
        "exporter -analyzed analyzed.toml aa",
        3,
        f"{_RESOLVE}run image not found in analyzed metadata",
        analyzed_toml="[run-image]\n",
    ),
    _fails(
        "exporter -analyzed analyzed.toml aa gcr.io/aa",
        3,
        NO_CACHE,
        f"{_RESOLVE}writing to multiple registries is unsupported",
        analyzed_toml=_ANALYZED,
    ),
    _fails(
        "exporter -analyzed analyzed.toml -cache-dir /none a",
        3,
        f"{_RESOLVE}could not parse reference: a",
        analyzed_toml=_ANALYZED,
    ),
    # layout mode as it was shipped
    _with(
        {},
        "analyzer -layout -layout-dir x -run-image bb aa",
        1,
        f"ERROR: {EXPERIMENTAL}",
        FORBIDDEN,
    ),
    _with(
        {"CNB_USE_LAYOUT": "t", "CNB_EXPERIMENTAL_MODE": "error"},
        "creator -run-image bb aa",
        1,
        NO_CACHE,
        f"ERROR: {EXPERIMENTAL}",
        FORBIDDEN,
    ),
)
# those that get as far as root's privileges
PRIVILEGED = (
    Invocation("detector", 1, ("ERROR: failed to detect: refusing to run as root",)),
    Invocation("builder -layers /none", 1, ("ERROR: failed to build: refusing to run as root",)),
    Invocation(
        "creator -uid 54321 -gid 0 -layers /none -run-image bb aa",
        1,
        (NO_CACHE, "ERROR: failed to set environment for user 54321: user: unknown userid 54321"),
    ),
    Invocation(
        "analyzer -uid 54321 -layers /proc/self/status -run-image bb aa",
        1,
        ("ERROR: failed to chown volumes: open /proc/self/status: not a directory",),
    ),
)
