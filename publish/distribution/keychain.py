"""Where credentials for a registry are looked for, and in which order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...oci.errors import InvalidContent, NotFound
from ..access import Access, home_of
from ..words import words_of
from .credentials import ANONYMOUS, AuthFile, Credentials, header_for, of_header, parse_headers

MAX_FILE = 1 << 20  # bytes

log = logging.getLogger(__name__)


class Keychain:
    """Every place with credentials. Nothing is kept: each call looks again. Thread-safe.

    The order is that of go-containerregistry, containers/image and lifecycle together:
    what the user gave with the command; CNB_REGISTRY_AUTH; DOCKER_AUTH_CONFIG; the files
    REGISTRY_AUTH_FILE, `containers/auth.json` and docker's `config.json`. The first that
    has something for the registry counts.
    """

    def __init__(self, access: Access, environment: Mapping[str, str]) -> None:
        self._access = access
        self._environment = environment

    def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials for a repository, or None when nobody has any.

        Raises:
            InvalidContent: something is malformed that had to be read.
            NotFound: the credential helper of this registry is not installed.
            RegistryError: a credential helper refused.
            OSError: a file cannot be read.
        """
        access = self._access
        if access.registry_token:
            return Credentials("the command line", registry_token=access.registry_token)
        if access.credentials:
            return Credentials("the command line", *access.credentials)
        if access.authfile is None:
            name = "CNB_REGISTRY_AUTH"
            headers = parse_headers(self._variable(name) or b"{}", name)
            if value := header_for(headers, registry, repository):
                return None if value == ANONYMOUS else of_header(value, name)
        for file in self._files():
            found = self._in_file(file, registry, repository)
            if found is not None:
                return found
        return None

    def _variable(self, name: str) -> bytes:
        return os.fsencode(self._environment.get(name, "").strip())

    def _files(self) -> Iterator[AuthFile]:
        """Read the files in their order, each when it is needed."""
        if self._access.authfile is not None:
            yield AuthFile.parse(_read(self._access.authfile), str(self._access.authfile))
            return
        name = "DOCKER_AUTH_CONFIG"
        if raw := self._variable(name):
            yield AuthFile.parse(raw, name)
        for path in auth_files(self._environment):
            try:
                raw = _read(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:  # perhaps of root, from before a `sudo`
                log.warning("%s is passed over: %s", path, words_of(error))
                continue
            if raw.strip():  # podman makes an empty one
                yield AuthFile.parse(raw, str(path), legacy=path.name == ".dockercfg")

    def _in_file(self, file: AuthFile, registry: str, repository: str) -> Credentials | None:
        from .credential_helper import ask  # subprocess takes 10 ms to import

        if helper := file.helper(registry):
            found = ask(helper, registry, self._environment)
            if found is not None:
                return found
        elif file.store:
            try:
                found = ask(file.store, registry, self._environment)
            except NotFound as error:  # docker's desktop is gone, its configuration is not
                log.warning("%s, which %s names", error, file.name)
                found = None
            if found is not None:
                return found
        return file.find(registry, repository)


def auth_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files that may have credentials, in their order; they need not exist."""
    home = home_of(environment)
    runtime = environment.get("XDG_RUNTIME_DIR")
    running = Path(runtime, "containers") if runtime else Path(f"/run/containers/{os.geteuid()}")
    config = environment.get("XDG_CONFIG_HOME") or (home and home / ".config")
    docker = environment.get("DOCKER_CONFIG") or (home and home / ".docker")
    files = [running / "auth.json"]
    files += [Path(config, "containers", "auth.json")] if config else []
    files += [Path(docker, "config.json")] if docker else []
    files += [home / ".dockercfg"] if home else []
    if given := environment.get("REGISTRY_AUTH_FILE"):
        files.insert(0, Path(given))
    return files


def _read(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InvalidContent: it is too large.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise InvalidContent(f"{path} has over {MAX_FILE} bytes")
    return raw
