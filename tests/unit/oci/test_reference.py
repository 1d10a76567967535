from pathlib import PurePosixPath

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.oci.reference import Reference

H = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("my-app", "index.docker.io/library/my-app/latest"),
        ("cnb/run:bionic", "index.docker.io/cnb/run/bionic"),
        ("docker.io/foo/bar", "index.docker.io/foo/bar/latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b/c"),
        (f"my-registry.com/x@sha256:{H}", f"my-registry.com/x/sha256/{H}"),
        (f"x:tag@sha256:{H}", f"index.docker.io/library/x/sha256/{H}"),
        ("docker.io/foo", "index.docker.io/library/foo/latest"),
        ("index.docker.io/foo", "index.docker.io/library/foo/latest"),
        ("localhost/foo", "localhost/foo/latest"),
        ("localhost", "index.docker.io/library/localhost/latest"),
        ("localhost:5000", "index.docker.io/library/localhost/5000"),
        ("[::1]:5000/a:b", "[::1]:5000/a/b"),
        ("foo/bar", "index.docker.io/foo/bar/latest"),
        ("gcr.io/foo", "gcr.io/foo/latest"),
        (f"x@blake3:{H}", f"index.docker.io/library/x/blake3/{H}"),
        (f"x:{H}", f"index.docker.io/library/x/{H}"),
    ],
)
def test_the_path_of_a_reference(text: str, path: str) -> None:
    reference = Reference.parse(text)
    assert str(reference.path) == path
    assert Reference.from_path(PurePosixPath(path)) == reference


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("/a", id="absolute"),
        pytest.param("//a", id="absolute twice"),
        pytest.param("a.b/", id="no repository"),
        pytest.param("a.b//c", id="empty element"),
        pytest.param("a/b/", id="empty last element"),
        pytest.param("a/../b", id="dot dot"),
        pytest.param("a.b/../../b", id="dot dot after the registry"),
        pytest.param("a/./b", id="dot"),
        pytest.param("../a", id="dot dot as registry"),
        pytest.param("./a", id="dot as registry"),
        pytest.param("..", id="dot dot alone"),
        pytest.param("a:..", id="dot dot as tag"),
        pytest.param("a:.", id="dot as tag"),
        pytest.param("a:", id="empty tag"),
        pytest.param("a:b:c", id="two tags"),
        pytest.param("a:b/c", id="slash in the tag"),
        pytest.param("a:" + "t" * 129, id="long tag"),
        pytest.param("a/" + "b" * 255, id="long repository"),
        pytest.param("a." + "b" * 254 + "/c", id="long registry"),
        pytest.param("a.b" + ":123456/c", id="long port"),
        pytest.param("a.b:x/c", id="port of letters"),
        pytest.param("[" + ":" * 260 + "]/c", id="long address"),
        pytest.param("a\0b", id="NUL"),
        pytest.param("a:b\n", id="newline in the tag"),
        pytest.param("a\n", id="newline"),
        pytest.param("a.b\x1b/c", id="control character in the registry"),
        pytest.param("a b", id="space"),
        pytest.param("A/b", id="upper case"),
        pytest.param("\N{LATIN SMALL LETTER E WITH ACUTE}", id="not ASCII"),
        pytest.param("a@", id="empty digest"),
        pytest.param(f"a@sha256:{H[:-1]}", id="short digest"),
        pytest.param(f"a@sha256:{H}@sha256:{H}", id="two digests"),
        pytest.param(f"a:@sha256:{H}", id="empty tag before a digest"),
        pytest.param("a@md5:00", id="unknown algorithm"),
        pytest.param("sha256:" + H, id="tag that is a digest"),
        pytest.param("a/sha256:" + H, id="tag whose path is that of a digest"),
        pytest.param("https://a.b/c", id="URL"),
        pytest.param("a/blobs:sha256", id="tag that lies among blobs"),
        pytest.param("a/blobs/sha256:b", id="repository that lies among blobs"),
        pytest.param(f"a/blobs@sha256:{H}", id="digest that lies among blobs"),
    ],
)
def test_what_is_not_a_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent):
        Reference.parse(text)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a.b",
        "a.b/c",
        "docker.io/library/a/b",
        "foo/a/b",
        "index.docker.io/a/b",
        "a.b/c/d:e",
        "a.b/c@d/e",
        "/a.b/c/d",
        "a.b/../c/d",
        f"a.b/sha256/{H}",
        f"a.b/md5/{H}/",
    ],
)
def test_a_path_that_no_reference_has(path: str) -> None:
    found = Reference.from_path(PurePosixPath(path))
    assert found is None or found.path == PurePosixPath(path)
    if path != f"a.b/md5/{H}/":
        assert found is None


def test_an_identifier_is_the_tag_or_the_digest() -> None:
    assert Reference.parse("a:b").identifier == "b"
    assert Reference.parse(f"a:b@sha256:{H}").identifier == f"sha256:{H}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("app", "docker.io/library/app:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        (f"app@sha256:{0:064x}", f"docker.io/library/app@sha256:{0:064x}"),
    ],
)
def test_the_name_that_other_tools_write(text: str, canonical: str) -> None:
    assert Reference.parse(text).canonical == canonical
