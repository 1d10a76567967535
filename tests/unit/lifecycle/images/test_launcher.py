from pathlib import Path

import pytest

from ocistow.lifecycle.files.metadata import LauncherMetadata
from ocistow.lifecycle.images.launcher import UNKNOWN, launcher_metadata

FLAGS = (
    b'\nbuild\t-compiler=gc\nbuild\t-ldflags="-s -w'
    b" -X 'github.com/buildpacks/lifecycle/cmd.SCMRepository=https://example.com/r'"
    b" -X 'github.com/buildpacks/lifecycle/cmd.SCMCommit=4bd4b13e'"
    b" -X 'github.com/buildpacks/lifecycle/cmd.Version=0.21.17'\"\nbuild\tGOOS=linux\n"
)


@pytest.mark.parametrize("before", [0, 100, (1 << 20) - 60, 3 << 20])
def test_the_version_is_found_wherever_it_is(tmp_path: Path, before: int) -> None:
    file = tmp_path / "launcher"
    file.write_bytes(b"\x7fELF" + bytes(before) + FLAGS + bytes(1 << 20))
    expected = LauncherMetadata("0.21.17", "https://example.com/r", "4bd4b13e")
    assert launcher_metadata(file) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", UNKNOWN),
        (b"#!/bin/sh\n", UNKNOWN),
        (b'build\t-ldflags="-s -w"\n', UNKNOWN),
        (
            b'build\t-ldflags="-X github.com/buildpacks/lifecycle/cmd.Version=1.2"\n',
            LauncherMetadata("1.2"),
        ),
    ],
)
def test_what_is_not_said_is_unknown(
    tmp_path: Path, content: bytes, expected: LauncherMetadata
) -> None:
    file = tmp_path / "launcher"
    file.write_bytes(content)
    assert launcher_metadata(file) == expected
