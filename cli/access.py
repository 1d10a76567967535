"""Options that say how to reach registries and daemons."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import click

from ..oci.wording import about
from ..publish.access import Access

MAX_PASSWORD = 64 << 10  # bytes; a token of a cloud has a few thousand

_R = TypeVar("_R")
_FILE = click.Path(path_type=Path)


def access_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """Call a command with `access`, made of the options that this adds."""

    @wraps(command)
    def decorated(
        *arguments: object,
        creds: str | None,
        password_stdin: bool,
        registry_token: str | None,
        authfile: Path | None,
        token_host: tuple[str, ...],
        cert_dir: Path | None,
        tls_verify: bool,
        no_tls_verify: bool,
        plain_http: bool,
        docker_host: str | None,
        containerd_address: str | None,
        namespace: str,
        **others: object,
    ) -> _R:
        if password_stdin and others.get("source") == "-":
            raise click.UsageError("--password-stdin and - both read standard input")
        if registry_token and creds:
            raise click.UsageError("--creds and --registry-token exclude each other")
        access = Access(
            credentials=_credentials(creds, password_stdin=password_stdin),
            registry_token=registry_token,
            authfile=authfile,
            token_hosts=frozenset(token_host),
            plain_http=True if plain_http else None,
            tls_verify=tls_verify and not no_tls_verify,
            cert_dir=cert_dir,
            docker_host=docker_host,
            containerd=containerd_address,
            namespace=namespace,
        )
        return command(*arguments, access=access, **others)

    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


docker_host_option = click.option(
    "--docker-host",
    metavar="URL",
    help="The Docker daemon, unix:///PATH or tcp://HOST:PORT.  "
    "[default: DOCKER_HOST, else that of docker's context]",
)
_OPTIONS = (
    click.option(
        "--creds",
        metavar="USER[:PASS]",
        help="Credentials for the registry; OCISTOW_CREDS keeps them out of `ps`.",
    ),
    click.option(
        "--password-stdin", is_flag=True, help="Read the password of --creds USER from stdin."
    ),
    click.option(
        "--registry-token",
        metavar="TOKEN",
        help="Bearer token for the registry; OCISTOW_REGISTRY_TOKEN keeps it out of `ps`.",
    ),
    click.option(
        "--authfile",
        type=_FILE,
        metavar="FILE",
        help="Look for credentials here only.  [default: where docker and podman keep them]",
    ),
    click.option(
        "--token-host",
        multiple=True,
        metavar="HOST",
        help="Let this token server see the credentials, too.  [default: the registry's own "
        "host and domain]",
    ),
    click.option(
        "--cert-dir",
        type=_FILE,
        metavar="DIR",
        help="CA (*.crt) and client certificates (*.cert, *.key).  "
        "[default: the registry's directory in certs.d]",
    ),
    click.option(
        "--tls-verify",
        type=bool,
        is_flag=False,
        flag_value=True,
        default=True,
        metavar="BOOL",
        help="Check the registry's certificate.  [default: true]",
    ),
    click.option("--no-tls-verify", is_flag=True, help="The same as --tls-verify=false."),
    click.option("--plain-http", is_flag=True, help="Speak HTTP with the registry."),
    docker_host_option,
    click.option(
        "--containerd-address",
        metavar="PATH",
        help="containerd's socket.  [default: CONTAINERD_ADDRESS, else "
        "/run/containerd/containerd.sock]",
    ),
    click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        default="default",
        show_default=True,
        envvar=["OCISTOW_NAMESPACE", "CONTAINERD_NAMESPACE"],
        help="containerd's namespace.",
    ),
)


def _credentials(creds: str | None, *, password_stdin: bool) -> tuple[str, str] | None:
    user, colon, password = (creds or "").partition(":")
    if password_stdin:
        if colon or not user:
            raise click.UsageError("--password-stdin: expected --creds USER")
        return user, _password()
    if creds is not None and (not colon or not user):
        raise click.UsageError("--creds: expected USER:PASS, or USER with --password-stdin")
    return (user, password) if colon else None


def _password() -> str:
    """Return what stdin holds, without the end of its line."""
    with about("standard input"):
        text = sys.stdin.read(MAX_PASSWORD + 1)
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(text) > MAX_PASSWORD or "\n" in password:
        raise click.UsageError("--password-stdin: expected one line on stdin")
    return password
