import os
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given

from ocistow.lifecycle.files.document import parse_toml, read_toml, write_toml
from ocistow.oci.document import MAX_TABLE, flag, inner, inners
from ocistow.oci.errors import InvalidContent
from ocistow.oci.wording import message_of
from ocistow.testing.tables import tables, texts_like


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "a.toml"
    write_toml(path, {"a": {"b": [1, "x"]}})
    assert read_toml(path) == {"a": {"b": [1, "x"]}}
    assert os.listdir(path.parent) == ["a.toml"]


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_toml(tmp_path / "a.toml") is None


def test_members_are_found_in_any_case_and_kept_as_they_are() -> None:
    document = parse_toml(b"[Types]\nLAUNCH = true\nlaunch = false\n[[A]]\nB = 1\n", "it")
    types = inner(document, "types", "it")
    assert types == {"LAUNCH": True, "launch": False}
    assert flag(types, "launch", "it") is False
    assert [each.get("b") for each in inners(document, "a", "it")] == [1]
    assert document.get("absent") is None


def test_a_byte_order_mark_means_nothing() -> None:
    assert parse_toml(b"\xef\xbb\xbfa = 1\n", "it") == {"a": 1}


def test_a_message_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\nb = ?\n")
    with pytest.raises(InvalidContent, match=rf"^{path} is not TOML: .* \(at line 2, column 5\)$"):
        read_toml(path)


def test_modes_are_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_toml(tmp_path / "below" / "a.toml", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "below").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "below" / "a.toml").stat().st_mode) == 0o640


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("old = true\n")
    with path.open() as reader:
        write_toml(path, {"new": True})
        assert reader.read() == "old = true\n"
    assert read_toml(path) == {"new": True}


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    (path := tmp_path / "a.toml").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as refused:
        write_toml(path, {"a": 1})
    assert message_of(refused.value) == "/dev/full: No space left on device"


def test_what_cannot_be_written_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("old = true\n")
    with pytest.raises(InvalidContent):
        write_toml(path, {"a": object()})
    assert path.read_text() == "old = true\n"


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.toml")
    with pytest.raises(InvalidContent, match="is not a regular file"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"#" * (MAX_TABLE + 1), f"over {MAX_TABLE} bytes"),
        (b"a = 9223372036854775808", "an integer of over 64 bits"),
        (b"a = {b = [-9223372036854775809]}", "an integer of over 64 bits"),
        (b"a." * 500_000 + b"a = 1", "keys with too many parts"),
        (b"[" + b'"\\"" . ' * 100_000 + b"a]", "keys with too many parts"),
        (b"x = {y = 1, " + b"'a'." * 100_000 + b"a = 1}", "keys with too many parts"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
        (b"a = " + b"{a=" * 100_000, "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"a = " + b"[" * 70 + b"]" * 70, "has over 64 levels"),
    ],
    ids=range(10),
)
def test_hostile_documents_are_refused_at_once(text: bytes, message: str) -> None:
    start = time.thread_time()
    with pytest.raises(InvalidContent, match=message):
        parse_toml(text, "it")
    assert time.thread_time() - start < 5  # seconds


@given(texts_like(["a", "b"]))
def test_any_bytes_are_a_document_or_refused(raw: bytes) -> None:
    with suppress(InvalidContent):
        assert isinstance(parse_toml(raw, "it"), dict)


@given(tables())
def test_documents_survive_a_file(document: dict[str, object]) -> None:
    path = Path("/dev/shm") / f"ocistow-{os.getpid()}.toml"
    try:
        write_toml(path, document)
        assert read_toml(path) == document
    finally:
        path.unlink()
