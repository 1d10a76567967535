from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from ocistow.lifecycle.layers.extract import Misplaced, extract
from ocistow.oci.errors import InvalidContent
from ocistow.testing.descriptors import open_files


def tar(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


def entry(path: str | Path, kind: bytes, mode: int = 0o755, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(str(path))
    info.type, info.mode, info.linkname = kind, mode, target
    return info


def directory(path: str | Path, mode: int = 0o755) -> tarfile.TarInfo:
    return entry(path, tarfile.DIRTYPE, mode)


def file(
    path: str | Path, content: bytes = b"x", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    return entry(path, tarfile.REGTYPE, mode), content


def link(path: str | Path, target: str) -> tarfile.TarInfo:
    return entry(path, tarfile.SYMTYPE, 0o777, target)


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    path = tmp_path / "layers"
    path.mkdir()
    return path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_files_directories_and_links_get_their_places(layers: Path) -> None:
    extract(
        tar(
            directory("/", 0o700),
            directory(layers.parent, 0o700),
            directory(layers, 0o700),
            directory(layers / "bp", 0o750),
            file(layers / "bp" / "one", b"1" * 3_000_000, 0o640),
            link(layers / "bp" / "two", "one"),
        ),
        layers,
    )
    assert (layers / "bp" / "one").read_bytes() == b"1" * 3_000_000
    assert os.readlink(layers / "bp" / "two") == "one"
    assert mode_of(layers / "bp") == 0o750
    assert mode_of(layers / "bp" / "one") == 0o640
    assert mode_of(layers) == 0o755  # it was there


def test_modes_do_not_depend_on_the_umask(layers: Path) -> None:
    before = os.umask(0o077)
    try:
        extract(
            tar(
                directory(layers / "bp", 0o3775),
                file(layers / "bp" / "a", mode=0o4777),
                file(layers / "bp" / "below" / "b"),
            ),
            layers,
        )
    finally:
        os.umask(before)
    assert mode_of(layers / "bp") == 0o3775
    assert mode_of(layers / "bp" / "a") == 0o4777
    assert mode_of(layers / "bp" / "below") & 0o777 == 0o700  # the archive does not say


def test_a_directory_may_forbid_what_is_in_it(layers: Path) -> None:
    extract(tar(directory(layers / "a", 0o500), file(layers / "a" / "b", mode=0o400)), layers)
    assert mode_of(layers / "a") == 0o500
    os.chmod(layers / "a", 0o700)


def test_what_is_there_is_replaced_or_kept(layers: Path) -> None:
    (layers / "a").mkdir(mode=0o700)
    (layers / "a" / "file").write_bytes(b"old")
    os.link(layers / "a" / "file", layers / "other")
    os.symlink("nowhere", layers / "a" / "link")
    extract(
        tar(
            directory(layers / "a", 0o755),
            file(layers / "a" / "file", b"new"),
            link(layers / "a" / "link", "file"),
        ),
        layers,
    )
    assert mode_of(layers / "a") == 0o700
    assert (layers / "a" / "file").read_bytes() == b"new"
    assert (layers / "other").read_bytes() == b"old"
    assert os.readlink(layers / "a" / "link") == "file"


def test_a_link_may_lead_anywhere(layers: Path) -> None:
    extract(tar(link(layers / "sh", "/bin/sh"), link(layers / "up", "../../..")), layers)
    assert os.readlink(layers / "sh") == "/bin/sh"
    assert os.readlink(layers / "up") == "../../.."


def test_a_link_is_never_followed(layers: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(InvalidContent, match="'bp' is no directory"):
        extract(tar(link(layers / "bp", str(outside)), file(layers / "bp" / "x")), layers)
    with pytest.raises(InvalidContent, match="'bp' is no directory"):
        extract(tar(directory(layers / "bp"), file(layers / "bp" / "x")), layers)
    assert not list(outside.iterdir())


def test_a_file_is_written_where_a_link_was_not_through_it(layers: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    extract(tar(link(layers / "x", str(target)), file(layers / "x", b"new")), layers)
    assert target.read_bytes() == b"precious"
    assert (layers / "x").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["/a/../../etc/passwd", "/../x", "/layers/a/../b"])
def test_a_name_does_not_lead_up(layers: Path, name: str) -> None:
    with pytest.raises(InvalidContent, match="is no name"):
        extract(tar(file(f"{layers}{name}")), layers)


def test_what_lies_elsewhere_is_refused(layers: Path, tmp_path: Path) -> None:
    for info in (file("/etc/ocistow"), directory(tmp_path / "layers2"), file(tmp_path / "layers")):
        with pytest.raises(Misplaced, match=r"lies outside of '.*layers'"):
            extract(tar(info), layers)
    assert [path.name for path in tmp_path.iterdir()] == ["layers"]


@pytest.mark.parametrize("kind", [b"1", b"3", b"4", b"6", b"S", b"9"])
def test_other_kinds_are_refused_as_go_words_it(layers: Path, kind: bytes) -> None:
    with pytest.raises(InvalidContent, match=f"^unknown file type in tar {kind[0]}$"):
        extract(tar(entry(layers / "x", kind, target=str(layers / "y"))), layers)


def test_a_damaged_archive_is_noticed(layers: Path) -> None:
    whole = tar(file(layers / "x", b"1" * 10_000)).getvalue()
    with pytest.raises(InvalidContent, match="ends"):
        extract(io.BytesIO(whole[:6_000]), layers)
    with pytest.raises(InvalidContent, match="there is no tar header"):
        extract(io.BytesIO(b"1" * 1024), layers)


def test_it_reads_to_the_end(layers: Path) -> None:
    stream = io.BytesIO(tar(file(layers / "x")).getvalue() + bytes(5_000_000))
    extract(stream, layers)
    assert not stream.read(1)


def test_no_descriptor_stays_open(layers: Path) -> None:
    before = open_files()
    deep = layers.joinpath(*["d"] * 200)
    extract(tar(file(deep / "x"), file(layers / "y"), directory(deep / "z")), layers)
    with pytest.raises(InvalidContent):
        extract(tar(file(deep / "x"), entry(layers / "y", b"6")), layers)
    assert open_files() <= before


def test_a_layer_stays_in_its_own_directory(layers: Path) -> None:
    extract(tar(directory(layers / "bp"), file(layers / "bp" / "x" / "y")), layers, "bp", "x")
    assert (layers / "bp" / "x" / "y").read_bytes() == b"x"
    extract(tar(link(layers / "bp" / "z", "x")), layers, "bp", "z")
    assert (layers / "bp" / "z" / "y").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["group.toml", "bp/x.toml", "other/x/env/PATH", "bp/xy/file"])
def test_a_layer_writes_nothing_beside_itself(layers: Path, name: str) -> None:
    with pytest.raises(Misplaced):
        extract(tar(file(layers / name)), layers, "bp", "x")
    assert not list(layers.iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE])
def test_a_layer_takes_no_place_of_a_directory_above_it(layers: Path, kind: bytes) -> None:
    with pytest.raises(Misplaced):
        extract(tar(entry(layers / "bp", kind, target="/")), layers, "bp", "x")
    assert not list(layers.iterdir())
