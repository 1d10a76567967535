"""What there is for registries: files with credentials, helpers, and whom not to ask."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...oci.errors import InvalidContent
from ...oci.wording import message_of, quoted
from ...publish.distribution.credentials import AuthFile, parse_headers
from ...publish.distribution.keychain import MAX_FILE, auth_files
from ...publish.distribution.registries import Registries
from ..output import count
from .check import Check, fail, ok, warn

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def registries(environment: Mapping[str, str]) -> Iterator[Check]:
    """Look at each place with credentials, none of which is told, and at registries.conf."""
    found = [*_files(environment), *_variables(environment)]
    yield from found or [ok("credentials", "none, so registries are asked as anybody")]
    try:
        known = Registries.read(environment)
    except (InvalidContent, OSError) as error:
        advice = "no registry can be asked until it is right: containers-registries.conf(5)"
        yield fail("registries.conf", message_of(error), advice)
        return
    mirrors = sum(len(entry.mirrors) for entry in known.entries)
    entries = count(len(known.entries), "entry").replace("entrys", "entries")
    yield ok("registries.conf", f"{entries}, {count(mirrors, 'mirror')}")


def _files(environment: Mapping[str, str]) -> Iterator[Check]:
    for path in auth_files(environment):
        try:
            with path.open("rb") as file:
                mode, raw = os.fstat(file.fileno()).st_mode, file.read(MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield warn("credentials", message_of(error), "it is passed over")
            continue
        if not raw.strip():
            continue
        try:
            if len(raw) > MAX_FILE:
                raise InvalidContent(f"{path} has over {MAX_FILE} bytes")
            parsed = AuthFile.parse(raw, str(path), legacy=path.name == ".dockercfg")
        except InvalidContent as error:
            yield fail("credentials", str(error), "repair or remove it: no registry can be asked")
            continue
        yield _described(parsed, path if mode & _OTHERS else None)
        yield from _helpers(parsed, environment)


def _described(file: AuthFile, open_to_others: Path | None) -> Check:
    found = f"{file.name}: {count(len(file.entries), 'registry').replace('ys', 'ies')}"
    if open_to_others and file.entries:
        return warn("credentials", f"{found}, and others may read it", f"chmod 600 {file.name}")
    return ok("credentials", found)


def _helpers(file: AuthFile, environment: Mapping[str, str]) -> Iterator[Check]:
    path = environment.get("PATH", os.defpath)
    for name in sorted({*file.helpers.values(), *filter(None, [file.store])}):
        program = f"docker-credential-{name}"
        if "/" in name or (found := shutil.which(program, path=path)) is None:
            advice = f"install it, or take {quoted(name)} out of {file.name}"
            yield warn("credential helper", f"{quoted(program)} is not on PATH", advice)
        else:
            yield ok("credential helper", found)


def _variables(environment: Mapping[str, str]) -> Iterator[Check]:
    for name in ("CNB_REGISTRY_AUTH", "DOCKER_AUTH_CONFIG"):
        raw = os.fsencode(environment.get(name, "").strip())
        if not raw:
            continue
        try:
            if name == "CNB_REGISTRY_AUTH":
                parse_headers(raw, name)
            else:
                yield from _helpers(AuthFile.parse(raw, name), environment)
        except InvalidContent as error:
            yield fail("credentials", str(error), f"unset {name}, or make it right")
        else:
            yield ok("credentials", f"{name} is set")
