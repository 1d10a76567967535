import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from ocistow.oci.wording import about, message_of
from ocistow.store.disk import Disk
from ocistow.store.reading import open_directory


def test_an_error_of_a_link_names_what_it_is_about_once(tmp_path: Path) -> None:
    """Not `/proc/self/fd/7`, and not the name of a blob twice."""
    disk, elsewhere = Disk(), Path("/dev/shm")
    if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    here, there = open_directory(tmp_path), open_directory(elsewhere)
    (tmp_path / "blob").touch()
    file = disk.create(here)
    attempts: list[Callable[[], object]] = [
        lambda: disk.name(file, there, "blob"),
        lambda: disk.link(here, "blob", there, "blob"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Invalid cross-device link") as caught, about("adding"):
            attempt()
        assert caught.value.errno == errno.EXDEV
        assert message_of(caught.value) == "adding: blob: Invalid cross-device link"
    for descriptor in (here, there, file):
        disk.close(descriptor)
