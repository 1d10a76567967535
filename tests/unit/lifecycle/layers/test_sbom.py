import os
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.sbom import copy_lifecycle_sboms, sbom_dir

OWN = "buildpacksio_lifecycle"


def unheard(text: str) -> None: ...


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    path = tmp_path / "cnb"
    path.mkdir()
    for name in ("lifecycle.sbom.cdx.json", "launcher.sbom.spdx.json", "launcher"):
        (path / name).write_text(name)
    return path


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_sboms_of_lifecycle_and_launcher_lie_beside_those_of_buildpacks(
    tmp_path: Path, shipped: Path
) -> None:
    said: list[str] = []
    for _ in range(2):  # as the next build finds them
        said.clear()
        copy_lifecycle_sboms(tmp_path / "layers", shipped, said.append, shipped=shipped)
    assert files(tmp_path / "layers" / "sbom") == {
        f"build/{OWN}/sbom.cdx.json": "lifecycle.sbom.cdx.json",
        f"launch/{OWN}/launcher/sbom.spdx.json": "launcher.sbom.spdx.json",
    }
    assert said == [
        f"Did not find SBOM lifecycle.sbom.spdx.json in {shipped}",
        f"Did not find SBOM lifecycle.sbom.syft.json in {shipped}",
        f"Did not find SBOM launcher.sbom.cdx.json in {shipped}",
        f"Did not find SBOM launcher.sbom.syft.json in {shipped}",
    ]


def test_the_umask_decides_nothing(tmp_path: Path, shipped: Path) -> None:
    old = os.umask(0o077)
    try:
        copy_lifecycle_sboms(tmp_path / "layers", shipped, unheard, shipped=shipped)
    finally:
        os.umask(old)
    for path in (tmp_path / "layers" / "sbom").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_without_any_sbom_no_directory_is_made(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    copy_lifecycle_sboms(tmp_path / "layers", empty, unheard, shipped=empty)
    assert not (tmp_path / "layers").exists()


def test_all_sboms_of_another_launcher_are_taken_by_their_names(
    tmp_path: Path, shipped: Path
) -> None:
    own = tmp_path / "own"
    (own / "directory.sbom.cdx.json").mkdir(parents=True)
    for name in ("my.sbom.cdx.json", "sbom.syft.json", "sbom.xml"):
        (own / name).write_text(name)
    copy_lifecycle_sboms(tmp_path / "layers", own, unheard, shipped=shipped)
    assert files(tmp_path / "layers" / "sbom" / "launch") == {
        f"{OWN}/launcher/my.sbom.cdx.json": "my.sbom.cdx.json",
        f"{OWN}/launcher/sbom.syft.json": "sbom.syft.json",
    }


def test_a_directory_of_sboms_that_is_not_there_is_named(tmp_path: Path, shipped: Path) -> None:
    said: list[str] = []
    absent = tmp_path / "absent"
    with pytest.raises(FileNotFoundError):
        copy_lifecycle_sboms(tmp_path / "layers", absent, said.append, shipped=shipped)
    assert said[-1] == f"Failed to list contents of directory {absent}"


def test_trees_of_sboms_are_found(tmp_path: Path) -> None:
    assert sbom_dir(tmp_path, "launch") is None
    (tmp_path / "sbom" / "launch").mkdir(parents=True)
    assert sbom_dir(tmp_path, "launch") == tmp_path / "sbom" / "launch"


@pytest.mark.parametrize("above", ["sbom", "sbom/launch"])
def test_a_link_that_a_buildpack_left_leads_nowhere(
    tmp_path: Path, shipped: Path, above: str
) -> None:
    secret = tmp_path / "secret"
    (secret / "launch").mkdir(parents=True)
    (tmp_path / "layers" / above).parent.mkdir(parents=True)
    (tmp_path / "layers" / above).symlink_to(secret)
    with pytest.raises(NotADirectoryError):
        sbom_dir(tmp_path / "layers", "launch")
    with pytest.raises(NotADirectoryError):
        copy_lifecycle_sboms(tmp_path / "layers", shipped, unheard, shipped=shipped)
    assert files(secret) == {}
