"""Programs that keep credentials: `docker-credential-NAME`.

Source: github.com/docker/docker-credential-helpers, "Development". A helper gets the
registry on stdin and answers on stdout, in JSON or with the words of an error.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from ...oci.document import parse_object, string
from ...oci.errors import InvalidContent, NotFound, RegistryError, RegistryUnavailable
from ...oci.wording import plain, quoted
from .credentials import Credentials, checked_token, helper_key

TIMEOUT = 60.0  # seconds; some ask a person for a passphrase, or a service of a cloud
MAX_OUTPUT = 64 << 10  # bytes

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TOKEN_USER = "<token>"  # noqa: S105  # the user name that says what the secret is
_NOTHING = ("credentials not found", "no credentials")  # how a helper's refusal then begins


def ask(
    name: str, registry: str, environment: Mapping[str, str], timeout: float = TIMEOUT
) -> Credentials | None:
    """Return what the credential helper `name` has for a registry.

    Raises:
        NotFound: there is no such program on PATH.
        InvalidContent: the name could be that of a path, or the answer is malformed.
        RegistryError: the helper refused or told too much.
        RegistryUnavailable: it took too long.
    """
    program = f"docker-credential-{name}"
    if _NAME.fullmatch(name) is None:
        raise InvalidContent(f"not the name of a credential helper: {quoted(name)}")
    path = shutil.which(program, path=environment.get("PATH", os.defpath))
    if path is None:
        raise NotFound(program)
    status, output = _run([path, "get"], helper_key(registry), environment, program, timeout)
    if status:
        words = plain(output.decode(errors="replace"))
        if words.startswith(_NOTHING):
            return None
        if "{" in words:  # an answer after all, perhaps, and so a secret
            words = ""
        raise RegistryError(program, 0, (), words or f"exit status {status}")
    return _parse(output, program)


def _parse(output: bytes, program: str) -> Credentials | None:
    what = f"answer of {program}"
    try:
        document = parse_object(output, what)
    except InvalidContent:  # whose words could be a secret
        raise InvalidContent(f"{what} is not a JSON object") from None
    user, secret = (string(document, member, what) for member in ("Username", "Secret"))
    if user == _TOKEN_USER:
        return Credentials(program, identity_token=checked_token(secret, what))
    return Credentials(program, user, secret) if user else None


def _run(
    command: list[str], text: str, environment: Mapping[str, str], program: str, timeout: float
) -> tuple[int, bytes]:
    """Return the exit status, and what came on stdout."""
    end = time.monotonic() + timeout
    with subprocess.Popen(  # noqa: S603  # the user's configuration names it
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it wants to know nothing
                process.stdin.write(text.encode())
                process.stdin.close()
            output = _read(process.stdout, end)
            if len(output) > MAX_OUTPUT:
                raise RegistryError(program, 0, (), f"it told over {MAX_OUTPUT} bytes")
            return process.wait(max(0.0, end - time.monotonic())), output
        except (TimeoutError, subprocess.TimeoutExpired):
            words = f"no answer came in {timeout:g} seconds"
            raise RegistryUnavailable(program, 0, (), words) from None
        finally:
            process.kill()


def _read(stream: IO[bytes], end: float) -> bytes:
    """Return what comes until the stream ends, or a byte more than `MAX_OUTPUT`."""
    output = b""
    while len(output) <= MAX_OUTPUT:
        ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError
        data = os.read(stream.fileno(), MAX_OUTPUT + 1 - len(output))
        if not data:
            break
        output += data
    return output
