import hashlib

import pytest
from blake3 import blake3

from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent

HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_prints_as_it_was_read() -> None:
    assert str(Digest.parse(f"sha256:{HEX}")) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(HEX, id="no algorithm"),
        pytest.param(f":{HEX}", id="empty algorithm"),
        pytest.param(f"sha256:{HEX.upper()}", id="upper case"),
        pytest.param(f"SHA256:{HEX}", id="algorithm in upper case"),
        pytest.param(f"sha256:{HEX[:-1]}", id="too short"),
        pytest.param(f"sha256:{HEX}0", id="too long"),
        pytest.param(f"sha512:{HEX}", id="length of another algorithm"),
        pytest.param(f"sha256:{HEX}\n", id="trailing newline"),
        pytest.param(f"sha256:{HEX[:-1]}\N{FULLWIDTH DIGIT ZERO}", id="other digits"),
        pytest.param("md5:d41d8cd98f00b204e9800998ecf8427e", id="unregistered"),
        pytest.param("sha256:../../../etc/passwd", id="path"),
    ],
)
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent, match="not a digest of sha256, sha512, blake3"):
        Digest.parse(text)


def test_every_registered_algorithm_is_that_of_its_name() -> None:
    assert Digest.of(b"a").encoded == hashlib.sha256(b"a").hexdigest()
    assert Digest.of(b"a", "sha512").encoded == hashlib.sha512(b"a").hexdigest()
    assert Digest.of(b"a", "blake3").encoded == blake3(b"a").hexdigest()
