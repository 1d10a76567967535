import subprocess
import sys
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.wording import MAX_WORDS, plain
from ocistow.publish.transports import open_sink, open_source, split_path
from ocistow.store.store import Store


@pytest.mark.parametrize("text", ["", "app", "ftp://x", "oci", "OCI:x", "-:", "--"])
def test_an_unknown_source_lists_the_known_ones(store: Store, text: str) -> None:
    with pytest.raises(InvalidContent, match="-, containerd:, docker://, docker-archive:,"):
        open_source(text, store)


@pytest.mark.parametrize("text", ["", "app", "-", "-:"])
def test_an_unknown_sink_lists_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidContent, match="containerd:, docker://, docker-daemon:"):
        open_sink(text)


@pytest.mark.parametrize("text", ["oci:", "docker-archive:", "docker-daemon:", "containerd:"])
def test_a_transport_alone_names_nothing(store: Store, text: str) -> None:
    for open_text in (lambda: open_source(text, store), lambda: open_sink(text)):
        with pytest.raises(InvalidContent, match=f"'{text}' names nothing after {text}"):
            open_text()


def test_an_image_is_not_pushed_to_a_tag_and_a_digest() -> None:
    """The tag would not be set, although it was named."""
    digest = f"sha256:{'0' * 64}"
    with (
        pytest.raises(InvalidContent, match="either a tag or a digest"),
        open_sink(f"docker://localhost:5000/app:1@{digest}"),
    ):
        pass
    with open_sink(f"docker://localhost:5000/app@{digest}"):
        pass


@pytest.mark.parametrize("text", ["docker:app", "docker:/app", "docker://", "docker://A B"])
def test_a_malformed_reference_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InvalidContent), open_source(text, store):
        pass
    with pytest.raises(InvalidContent), open_sink(text):
        pass


def test_a_path_that_exists_may_have_colons(tmp_path: Path) -> None:
    for name in ("a", "a:b", "c"):
        (tmp_path / name).mkdir()
    for text, path, rest in (
        ("a", "a", ""),
        ("a:b", "a:b", ""),
        ("a:x", "a", "x"),
        ("a:b:x:y", "a", "b:x:y"),
        ("c:docker.io/library/app:1", "c", "docker.io/library/app:1"),
        ("none:x:y", "none", "x:y"),
        ("none", "none", ""),
    ):
        assert split_path(f"{tmp_path}/{text}") == (tmp_path / path, rest)


def test_no_layout_is_written_into_the_store(store: Store, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(store.path)
    with (
        pytest.raises(InvalidContent, match="link/layouts/a lies in the store"),
        open_sink(f"oci:{link}/layouts/a", store),
    ):
        pass
    with open_sink(f"oci:{tmp_path}/beside", store):
        pass


def test_an_absent_file_is_named(store: Store, tmp_path: Path) -> None:
    with open_source(f"oci:{tmp_path}/none", store) as source, pytest.raises(NotFound):
        source.resolve()
    for transport in ("oci-archive", "docker-archive"):
        with (
            pytest.raises(FileNotFoundError, match="none"),
            open_source(f"{transport}:{tmp_path}/none", store),
        ):
            pass


def test_what_a_transport_does_not_need_is_not_imported() -> None:
    """A second publish to a daemon takes 0.1 s; importing requests would add a half of that."""
    code = (
        "import sys; from ocistow.publish.transports import open_sink\n"
        "with open_sink('docker-daemon:app'): pass\n"
        "assert 'requests' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_words_of_others_are_one_printable_line() -> None:
    assert plain("a\r\n\tb\x1b[1mc\0  d\u202e") == "a b [1mc d"
    assert len(plain("x" * 9999)) == MAX_WORDS + 1
