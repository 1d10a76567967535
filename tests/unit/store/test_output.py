import os
import stat
from pathlib import Path

import pytest

from ocistow.store.output import write_whole

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give links away")


def test_a_link_of_ones_own_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a").symlink_to("there/b")
    (tmp_path / "there" / "b").symlink_to("c")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "there" / "c").read_bytes() == b"new"
    assert not (tmp_path / "there" / "c").is_symlink()


@needs_root
@pytest.mark.parametrize("target", ["secret", "absent", "/dev/null"])
def test_a_link_of_another_user_is_replaced(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_bytes(b"old")
    (tmp_path / "a").symlink_to(target)
    os.lchown(tmp_path / "a", 65534, 65534)
    write_whole(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "secret").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "secret"]


@needs_root
def test_a_link_of_another_user_behind_ones_own_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"old")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("secret")
    os.lchown(tmp_path / "b", 65534, 65534)
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "secret").read_bytes() == b"old"
    assert (tmp_path / "b").read_bytes() == b"new"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        write_whole(tmp_path / "a", b"new")


def test_what_is_no_file_is_written_in_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    reader = os.open(tmp_path / "a", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(tmp_path / "a", b"new")
        assert os.read(reader, 100) == b"new"
    finally:
        os.close(reader)


def test_a_fifo_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="No such device or address") as raised:
        write_whole(tmp_path / "a", b"new")
    assert raised.value.filename == str(tmp_path / "a")
    assert stat.S_ISFIFO((tmp_path / "a").stat().st_mode)
