"""How full the pool's directory is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ocistow.cli.checks.check import State
from ocistow.cli.checks.names import has_large_dir, judged

FULL = 512 * 512 * 4096


@pytest.mark.skipif(not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin"), reason="no e2fsprogs")
@pytest.mark.parametrize("large", [True, False])
def test_the_superblock_tells_of_large_directories(tmp_path: Path, large: bool) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    feature = "large_dir" if large else "^large_dir"
    program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    subprocess.run([str(program), "-q", "-O", feature, image], check=True)
    assert has_large_dir(image) is large


def test_what_is_no_ext4_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    (tmp_path / "short").write_bytes(b"")
    for name in ("image", "short", "absent"):
        assert has_large_dir(tmp_path / name) is None


@pytest.mark.parametrize(
    ("size", "block", "large", "state"),
    [
        (0, 4096, False, State.OK),
        (FULL // 11, 4096, False, State.OK),
        (FULL // 9, 4096, False, State.WARN),
        (FULL // 9, 4096, None, State.WARN),
        (FULL // 9, 4096, True, State.OK),
        (FULL // 400, 1024, False, State.WARN),
    ],
)
def test_a_directory_may_be_nearly_full(
    size: int, block: int, large: bool | None, state: State
) -> None:
    assert judged(size, block, large).state is state
