import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ocistow.fusefs.attributes import Presentation


@given(umask=st.integers(0, 0o777))
def test_directories_have_all_permissions_but_those_masked(umask: int) -> None:
    shown = Presentation(1, 2, umask).of_directory(os.stat("/"), 7)
    assert stat.S_ISDIR(shown.mode)
    assert stat.S_IMODE(shown.mode) == 0o777 & ~umask
    assert (shown.uid, shown.gid) == (1, 2)


def test_blobs_are_shown_writable_since_their_content_decides(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    (tmp_path / "blob").chmod(0o444)
    status = (tmp_path / "blob").stat()
    shown = Presentation(1, 2, 0).of_blob(status, 7)
    assert shown.mode == stat.S_IFREG | 0o644
    assert (shown.inode, shown.size, shown.mtime_ns) == (
        7,
        status.st_size,
        status.st_mtime_ns,
    )
    assert shown.attr_timeout > 3600


def test_what_changes_is_asked_for_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    status, shown = (tmp_path / "file").stat(), Presentation(1, 2, 0)
    assert shown.of_guarded(status, 7).entry_timeout == 0
    staged = shown.of_staged(status, 1 << 62, 0o600, 99)
    assert (staged.inode, staged.size, staged.links, staged.attr_timeout) == (1 << 62, 99, 1, 0)
    assert stat.S_IMODE(staged.mode) == 0o600
    assert 0 < shown.of_file(status, 7).entry_timeout <= 1


def test_links_are_shown_as_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    status = (tmp_path / "link").lstat()
    assert stat.S_ISLNK(Presentation(1, 2, 0).of_file(status, 7).mode)
