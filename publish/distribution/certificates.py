"""Certificates for one registry: whom to trust, and how to show who we are.

Source: containers-certs.d(5), which is docker's layout too: a directory per `host[:port]`
with `*.crt` of authorities, and `*.cert` and `*.key` of our own certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...oci.errors import InvalidContent
from ..access import home_of

SYSTEM_DIRECTORIES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files for the connections to one host.

    Attributes:
        authorities: certificates trusted besides those of the system.
        own: our certificate and its key.
    """

    authorities: tuple[Path, ...] = ()
    own: tuple[Path, Path] | None = None

    @classmethod
    def read(cls, directory: Path) -> Certificates:
        """Return what a directory has; it is checked that OpenSSL takes it.

        Raises:
            InvalidContent: a certificate has no key, a key no certificate, or a file is malformed.
            OSError: the directory cannot be read.
        """
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
        authorities = tuple(path for path in files if path.suffix == ".crt")
        certificates = [path for path in files if path.suffix == ".cert"]
        for path in files:
            other = {".cert": ".key", ".key": ".cert"}.get(path.suffix)
            if other and path.with_suffix(other) not in files:
                raise InvalidContent(f"{path} has no {path.stem}{other} beside it")
        own = next(((path, path.with_suffix(".key")) for path in certificates), None)
        _check(authorities, own)
        return cls(authorities, own)


def find_certificates(
    host: str,
    cert_dir: Path | None,
    environment: Mapping[str, str],
    system: Iterable[Path] = SYSTEM_DIRECTORIES,
) -> Certificates:
    """Return the certificates for `host[:port]`: of `cert_dir`, or of the usual directories.

    Of these the first that has a directory for the host counts, the user's own before
    the system's.

    Raises:
        InvalidContent: there is something malformed.
        OSError: the directory cannot be read, or there is no `cert_dir`.
    """
    if cert_dir is not None:
        return Certificates.read(cert_dir)
    home = home_of(environment)
    user = [home / ".config" / "containers" / "certs.d"] if home else []
    for directory in (*user, *system):
        try:
            return Certificates.read(directory / host)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return Certificates()


def _check(authorities: Iterable[Path], own: tuple[Path, Path] | None) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in authorities:
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise InvalidContent(f"{path} is no certificate in PEM") from error
    if own is None:
        return
    try:
        # without a password OpenSSL would ask the terminal for it
        context.load_cert_chain(*own, password=lambda: "")
    except ssl.SSLError as error:
        raise InvalidContent(
            f"{own[0]} and {own[1].name} are no certificate and its key"
        ) from error
