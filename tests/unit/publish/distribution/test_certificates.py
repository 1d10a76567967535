"""Directories of certificates."""

import subprocess
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.publish.distribution.certificates import Certificates, find_certificates


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return a certificate and its key."""
    directory = tmp_path_factory.mktemp("pair")
    files = [str(directory / "cert"), str(directory / "key")]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    subprocess.run(
        [*command.split(), "-subj", "/CN=x", "-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return Path(files[0]).read_bytes(), Path(files[1]).read_bytes()


def fill(directory: Path, **files: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("_", ".")).write_bytes(content)
    return directory


def test_what_a_directory_has(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    cert, key = pair
    directory = fill(tmp_path / "x", b_crt=cert, a_crt=cert, me_cert=cert, me_key=key, note_txt=b"")
    found = Certificates.read(directory)
    assert found.authorities == (directory / "a.crt", directory / "b.crt")
    assert found.own == (directory / "me.cert", directory / "me.key")
    assert Certificates.read(fill(tmp_path / "empty")) == Certificates()


def test_the_users_directory_comes_before_those_of_the_system(
    tmp_path: Path, pair: tuple[bytes, bytes]
) -> None:
    system = (tmp_path / "containers", tmp_path / "docker")
    environment = {"HOME": str(tmp_path / "home")}

    def found(host: str, cert_dir: Path | None = None) -> list[Path]:
        certificates = find_certificates(host, cert_dir, environment, system)
        return [path.relative_to(tmp_path) for path in certificates.authorities]

    assert found("h:5000") == []
    fill(tmp_path / "docker/h:5000", ca_crt=pair[0])
    assert found("h:5000") == [Path("docker/h:5000/ca.crt")]
    fill(tmp_path / "containers/h:5000", ca_crt=pair[0])
    assert found("h:5000") == [Path("containers/h:5000/ca.crt")]
    fill(tmp_path / "home/.config/containers/certs.d/h:5000", ca_crt=pair[0])
    assert found("h:5000") == [Path("home/.config/containers/certs.d/h:5000/ca.crt")]
    assert found("h") == found("h:5001") == []
    assert found("h", fill(tmp_path / "given", x_crt=pair[0])) == [Path("given/x.crt")]
    with pytest.raises(FileNotFoundError, match="absent"):
        found("h", tmp_path / "absent")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("me_cert",), r"me\.cert has no me\.key beside it"),
        (("me_key",), r"me\.key has no me\.cert beside it"),
        (("bad_crt",), r"bad\.crt is no certificate in PEM"),
        (("me_cert", "other_key"), r"me\.cert has no me\.key beside it"),
        (("bad_cert", "bad_key"), r"bad\.cert and bad\.key are no certificate and its key"),
    ],
)
def test_what_is_malformed_is_named(
    tmp_path: Path, pair: tuple[bytes, bytes], files: tuple[str, ...], words: str
) -> None:
    content = {name: b"x" if name.startswith("bad") else pair[name != "me_cert"] for name in files}
    with pytest.raises(InvalidContent, match=words):
        Certificates.read(fill(tmp_path / "x", **content))


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"]
    locked = subprocess.run(command, input=pair[1], check=True, capture_output=True).stdout
    with pytest.raises(InvalidContent, match="are no certificate and its key"):
        Certificates.read(fill(tmp_path / "x", me_cert=pair[0], me_key=locked))
