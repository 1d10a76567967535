"""Credentials, tokens and certificates with real registries, and skopeo with the same ones."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import RegistryError
from ocistow.oci.reference import Reference
from ocistow.publish.access import Access
from ocistow.publish.copy import Copied, copy
from ocistow.publish.layout import LayoutSource, StoreSink
from ocistow.publish.sink import Action
from ocistow.publish.source import Blob
from ocistow.publish.transports import open_sink, open_source
from ocistow.store.store import Store
from ocistow.testing.images import GeneratedImage, image_layout
from ocistow.testing.tokens import ANYBODY, Signer, TokenServer

from ..conftest import DockerRegistry, program, serving

pytestmark = pytest.mark.registry

PASSWORD = "secret-do-not-tell"
# "secret", by bcrypt, the only form that the registry takes
HTPASSWD = "user:$2b$04$cmOeYn.P5/R1YXJaDN8pY.gCgnY3biNtH4BzSPcmcJocccQFQXFCC\n"
ME = Access(("me", PASSWORD))


def openssl(*arguments: str | Path, directory: Path | None = None) -> None:
    command = [program("openssl"), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd=directory)


def publish(image: GeneratedImage, text: str, access: Access) -> Copied:
    with open_sink(text, access=access) as sink:
        return copy(LayoutSource(image.path), sink)


def skopeo_reads(image: GeneratedImage, text: str, *options: str) -> None:
    """Have skopeo see the same manifest."""
    command = [program("skopeo"), "inspect", "--raw", *options, text]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert raw == image.blob(image.manifest).read_bytes()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> GeneratedImage:
    return image_layout(tmp_path_factory.mktemp("image"), layers=3)


# Passwords, and where they are found.


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Generator[DockerRegistry]:
    """Run a registry that wants a password."""
    directory = tmp_path_factory.mktemp("locked")
    (directory / "htpasswd").write_text(HTPASSWD)
    more = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}"
    with serving(directory / "registry", more) as registry:
        yield registry


@pytest.mark.tools
def test_a_file_with_namespaces(
    tmp_path: Path, locked: DockerRegistry, image: GeneratedImage
) -> None:
    def entry(password: str) -> dict[str, str]:
        return {"username": "user", "password": password}

    authfile = tmp_path / "auth.json"
    right = {"auth": "dXNlcjpzZWNyZXQ="}
    auths = {locked.host: entry("wrong"), f"{locked.host}/team": right}
    authfile.write_text(json.dumps({"auths": auths}))
    access = Access(authfile=authfile)
    text = f"docker://{locked.host}/team/app:1"
    assert publish(image, text, access).sent == 5
    skopeo_reads(image, text, "--tls-verify=false", f"--authfile={authfile}")
    with pytest.raises(RegistryError, match=f"asked with the credentials of {authfile}"):
        publish(image, f"docker://{locked.host}/other/app:1", access)


def test_a_file_of_skopeo_login(
    tmp_path: Path, locked: DockerRegistry, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    authfile = tmp_path / "auth.json"
    command = [program("skopeo"), "login", "--tls-verify=false", "-u", "user", "--password-stdin"]
    subprocess.run(
        [*command, f"--authfile={authfile}", locked.host],
        input=b"secret",
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(authfile))
    assert publish(image, f"docker://{locked.host}/login:1", Access()).root.digest == image.manifest


def test_a_credential_helper(
    tmp_path: Path, locked: DockerRegistry, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    answer = '{"ServerURL": "%s", "Username": "user", "Secret": "secret"}'
    helper.write_text(
        f"#!/bin/sh\nread -r host\nprintf '{answer}\\n' \"$host\"\necho $1 >>$0.log\n"
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {locked.host: "test"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    text = f"docker://{locked.host}/helped:1"
    assert publish(image, text, Access()).sent == 5
    assert (tmp_path / "docker-credential-test.log").read_text() == "get\n"  # once
    skopeo_reads(image, text, "--tls-verify=false")


def test_a_header_of_lifecycle(
    locked: DockerRegistry, image: GeneratedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = {locked.host: "Basic dXNlcjpzZWNyZXQ="}
    monkeypatch.setenv("CNB_REGISTRY_AUTH", json.dumps(header))
    assert publish(image, f"docker://{locked.host}/lifecycle:1", Access()).sent == 5


# Tokens.


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    directory = tmp_path_factory.mktemp("signer")
    signer = Signer(directory / "key", directory / "certificate")
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens"
    openssl(*request.split(), "-keyout", signer.key, "-out", signer.certificate)
    return signer


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, signer: Signer
) -> Generator[tuple[DockerRegistry, TokenServer]]:
    """Run a registry that wants tokens of a server of ours."""
    directory = tmp_path_factory.mktemp("guarded")
    with TokenServer(signer) as tokens:
        more = (
            f"auth: {{token: {{realm: '{tokens.url}', service: registry, issuer: tokens, "
            f"rootcertbundle: {signer.certificate}}}}}"
        )
        with serving(directory / "registry", more) as registry:
            yield registry, tokens


@pytest.fixture
def tokens(guarded: tuple[DockerRegistry, TokenServer]) -> TokenServer:
    """Let the token server have no memory of other tests."""
    tokens = guarded[1]
    tokens.users = {"me": PASSWORD}
    tokens.identities, tokens.rights = {"an-identity": "me"}, []
    tokens.lifetime = tokens.told = 300
    tokens.requests.clear()
    tokens.expire()
    return tokens


@pytest.mark.tools
def test_tokens_that_a_registry_verifies(
    tmp_path: Path,
    guarded: tuple[DockerRegistry, TokenServer],
    tokens: TokenServer,
    image: GeneratedImage,
) -> None:
    text = f"docker://{guarded[0].host}/tokens/app:1"
    tokens.rights = [("me", "repository:tokens/app:pull,push")]
    assert publish(image, text, ME).sent == 5
    assert [r.scopes for r in tokens.requests] == [("repository:tokens/app:pull,push",)]
    skopeo_reads(image, text, "--tls-verify=false", f"--creds=me:{PASSWORD}")
    with Store.create(tmp_path / "store") as store:
        with open_source(text, store, access=ME) as source:
            name = Reference.parse("app")
            assert copy(source, StoreSink(store, name)).root.digest == image.manifest
        assert tokens.requests[-1].scopes == ("repository:tokens/app:pull",)
        with open_source(text, store) as source, pytest.raises(RegistryError) as raised:
            source.resolve()
        assert str(raised.value).endswith("asked anonymously (HTTP 401)")
        tokens.rights.append((ANYBODY, "repository:tokens/app:pull"))
        with open_source(text, store) as source:
            assert source.resolve().digest == image.manifest
    with pytest.raises(RegistryError, match="incorrect username or password, asked with"):
        publish(image, text, Access(("me", "wrong")))


def test_an_identity_token(
    tmp_path: Path,
    guarded: tuple[DockerRegistry, TokenServer],
    tokens: TokenServer,
    image: GeneratedImage,
) -> None:
    host = guarded[0].host
    (tmp_path / "a.json").write_text(
        json.dumps({"auths": {host: {"identitytoken": "an-identity"}}})
    )
    tokens.rights = [("me", "repository:identity:pull,push")]
    access = Access(authfile=tmp_path / "a.json")
    assert publish(image, f"docker://{host}/identity:1", access).sent == 5
    assert {request.method for request in tokens.requests} == {"POST"}


class Outliving(LayoutSource):
    """Opens its last layer when every token has ended that there was until then."""

    def __init__(self, image: GeneratedImage, tokens: TokenServer) -> None:
        super().__init__(image.path)
        self._last: Digest | None = image.layers[-1]
        self._tokens = tokens

    def open(self, descriptor: Descriptor) -> Blob:
        if descriptor.digest == self._last:
            self._last = None
            self._tokens.outlive()
        return super().open(descriptor)


def test_a_token_that_ends_in_the_middle_of_a_push(
    guarded: tuple[DockerRegistry, TokenServer], tokens: TokenServer, image: GeneratedImage
) -> None:
    tokens.rights = [("me", "repository:short:pull,push")]
    tokens.lifetime, tokens.told = 2.0, None  # seconds; the time in a token has no smaller unit
    with open_sink(f"docker://{guarded[0].host}/short:1", access=ME) as sink:
        assert copy(Outliving(image, tokens), sink).root.digest == image.manifest
    assert len(tokens.requests) > 1


def test_a_mount_needs_leave_of_both_repositories(
    tmp_path: Path,
    guarded: tuple[DockerRegistry, TokenServer],
    tokens: TokenServer,
) -> None:
    """Where it is not given, the layers are sent."""
    host = guarded[0].host
    image = image_layout(tmp_path / "large", seed=2, layers=2, layer_size=300_000)
    tokens.rights = [("me", "repository:from:pull,push"), ("me", "repository:to:pull,push")]
    with Store.create(tmp_path / "store") as store:

        def push(name: str) -> Copied:
            with open_sink(f"docker://{host}/{name}:1", store, access=ME) as sink:
                return copy(LayoutSource(image.path), sink)

        assert push("from").sent == 4
        tokens.requests.clear()
        outcomes = [outcome.action for outcome in push("to").outcomes]
        assert outcomes.count(Action.MOUNTED) == 3
        both = ("repository:from:pull", "repository:to:pull,push")
        assert [r.scopes for r in tokens.requests] == [("repository:to:pull,push",), both]
        tokens.rights = [("me", "repository:alone:pull,push")]
        outcomes = [outcome.action for outcome in push("alone").outcomes]
        assert outcomes.count(Action.MOUNTED) == 0
        assert outcomes.count(Action.SENT) == 4


@pytest.mark.parametrize("password", [PASSWORD, "wrong-do-not-tell"])
def test_nothing_secret_is_told_or_kept(
    tmp_path: Path,
    guarded: tuple[DockerRegistry, TokenServer],
    tokens: TokenServer,
    image: GeneratedImage,
    password: str,
) -> None:
    """Look through all that a command writes while it says every request."""
    tokens.users["me"] = PASSWORD
    tokens.rights = [("me", "repository:told:pull,push")]
    tokens.secrets.clear()
    pair = base64.b64encode(f"me:{password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded[0].host: {"auth": pair}}}))
    environ = {
        **os.environ,
        "DOCKER_CONFIG": str(tmp_path),
        "OCISTOW_STORE": str(tmp_path / "store"),
        "OCISTOW_CONFIG": os.devnull,
        "PYTHONPATH": ":".join(sys.path),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "ocistow.cli", "-vv", *arguments]
        return subprocess.run(command, env=environ, capture_output=True)

    run("add", f"oci:{image.path}", "app").check_returncode()
    text = f"docker://{guarded[0].host}/told:1"
    report = tmp_path / "report.json"
    done = run("publish", f"--report={report}", "app", text)
    right = password == PASSWORD
    assert done.returncode == (0 if right else os.EX_UNAVAILABLE), done.stderr
    assert bool(tokens.secrets) is right
    told = done.stdout + done.stderr
    assert f"GET {tokens.url}: {200 if right else 401}".encode() in told
    assert right or f"credentials of {tmp_path / 'config.json'}".encode() in told
    kept = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    for secret in (password, pair, *tokens.secrets):
        assert not any(secret.encode() in data for data in (told, *kept))
        assert not report.exists() or secret not in report.read_text()


# Certificates.


@dataclass(frozen=True, slots=True)
class Authority:
    """A private certificate authority, and what it signed."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        authority = cls(directory)
        request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority"
        openssl(*request.split(), "-keyout", directory / "ca.key", "-out", directory / "ca.pem")
        authority.sign("server", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        authority.sign("client", "extendedKeyUsage=clientAuth")
        return authority

    def sign(self, name: str, extension: str) -> None:
        at = self.directory
        (at / "extensions").write_text(extension)
        request = f"req -newkey rsa:2048 -nodes -subj /CN={name}"
        openssl(*request.split(), "-keyout", at / f"{name}.key", "-out", at / f"{name}.csr")
        command = f"x509 -req -in {name}.csr -out {name}.pem -CA ca.pem -CAkey ca.key"
        more = "-CAcreateserial -days 2 -extfile extensions"
        openssl(*command.split(), *more.split(), directory=at)

    def certificates(self, directory: Path, *, client: bool) -> Path:
        """Fill a directory as docker and containers have it."""
        directory.mkdir(parents=True)
        shutil.copy(self.directory / "ca.pem", directory / "ca.crt")
        if client:
            shutil.copy(self.directory / "client.pem", directory / "me.cert")
            shutil.copy(self.directory / "client.key", directory / "me.key")
        return directory


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=["server", "both"])
def certified(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Generator[tuple[DockerRegistry, bool]]:
    """Run a registry with a certificate of the authority, that wants one itself or not."""
    at = authority.directory
    client = request.param == "both"
    wanted = f", clientcas: [{at / 'ca.pem'}]" if client else ""
    tls = f"tls: {{certificate: {at / 'server.pem'}, key: {at / 'server.key'}{wanted}}}"
    with serving(tmp_path_factory.mktemp("certified") / "registry", http=tls) as registry:
        yield registry, client


@pytest.mark.tools
def test_a_private_authority_and_a_client_certificate(
    tmp_path: Path,
    certified: tuple[DockerRegistry, bool],
    authority: Authority,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, client = certified
    text = f"docker://{registry.host}/app:1"
    given = authority.certificates(tmp_path / "certs", client=client)
    assert publish(image, text, Access(cert_dir=given)).root.digest == image.manifest
    skopeo_reads(image, text, f"--cert-dir={given}")

    home = tmp_path / "home"
    certs = home / ".config/containers/certs.d" / registry.host
    authority.certificates(certs, client=client)
    monkeypatch.setenv("HOME", str(home))
    assert publish(image, text, Access()).present == 5

    with pytest.raises(RegistryError, match="unable to get local issuer certificate"):
        publish(image, text, Access(cert_dir=empty(tmp_path), plain_http=False))
    if client:
        (certs / "me.cert").unlink()
        (certs / "me.key").unlink()
        with pytest.raises(RegistryError, match=r"bad certificate|certificate required"):
            publish(image, text, Access())


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_system_wide_authority(
    certified: tuple[DockerRegistry, bool],
    authority: Authority,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, client = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.directory / "ca.pem"))
    if not client:
        text = f"docker://{registry.host}/system:1"
        assert publish(image, text, Access(plain_http=False)).sent == 5


def test_a_registry_that_is_not_to_be_checked(
    certified: tuple[DockerRegistry, bool],
    docker_registry: DockerRegistry,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether it speaks TLS is found out."""
    registry, client = certified
    hosts = [docker_registry.host] if client else [docker_registry.host, registry.host]
    for host in hosts:
        access = Access(tls_verify=False)
        text = f"docker://{host}/unchecked-{int(client)}:1"
        assert publish(image, text, access).sent == 5
        monkeypatch.setenv("CNB_INSECURE_REGISTRIES", f"other.example.org,{host}")
        assert publish(image, text, Access()).present == 5
        monkeypatch.delenv("CNB_INSECURE_REGISTRIES")


# Mirrors.


def test_mirrors_are_pulled_from_and_not_pushed_to(
    tmp_path: Path,
    docker_registry: DockerRegistry,
    image: GeneratedImage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = tmp_path / "registries.conf"
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    with serving(tmp_path / "mirror") as mirror:
        conf.write_text(
            f"""
            [[registry]]
            location = "{docker_registry.host}/mirrored"
            [[registry.mirror]]
            location = "{mirror.host}/nothing"
            [[registry.mirror]]
            location = "{mirror.host}/copy"
            """
        )
        text = f"docker://{docker_registry.host}/mirrored/app:1"
        publish(image, text, Access())
        assert not (mirror.root / "docker").exists()
        with Store.create(tmp_path / "store") as store:

            def pull() -> Copied:
                with open_source(text, store) as source:
                    return copy(source, StoreSink(store, Reference.parse("app")))

            assert pull().root.digest == image.manifest  # the second mirror has nothing yet
            assert caplog.text.count("a mirror is passed over") == 2
            other = image_layout(tmp_path / "other", seed=9, layers=1)
            publish(other, f"docker://{mirror.host}/copy/app:1", Access())
            assert pull().root.digest == other.manifest
