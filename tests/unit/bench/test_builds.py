"""Builds out of images that anybody may have made."""

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from ocistow.bench.builds import build_of, check_room, unpack
from ocistow.bench.comparison import Agreement
from ocistow.bench.daemon import Daemon, new_space
from ocistow.bench.selection import cannot_push, chosen
from ocistow.bench.servers import Missing
from ocistow.oci.digest import Digest
from ocistow.oci.errors import DigestMismatch, InvalidContent
from ocistow.publish.copy import read_image
from ocistow.publish.layout import LayoutSource
from ocistow.testing.images import image_layout

NEVER_ASKED = Daemon("tcp://192.0.2.1:2375", "ocistow-bench.invalid/x")


def tar(*entries: tuple[str, bytes, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(content), 0o6755
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = "/etc"
            archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def test_only_regular_files_below_the_directory_are_unpacked(tmp_path: Path) -> None:
    file = tarfile.REGTYPE
    layer = tar(
        ("link", tarfile.SYMTYPE, b""),
        ("link/passwd", file, b"inside"),
        ("../outside", file, b"no"),
        ("/root/it", file, b"absolute"),
        ("hard", tarfile.LNKTYPE, b""),
        ("device", tarfile.CHRTYPE, b""),
        ("root", file, b"a directory has this name"),
        ("root/it/below", file, b"a file is above"),
        (".wh.gone", file, b""),
    )
    assert unpack(layer, tmp_path / "tree", 1000) < 1000
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()}
    assert found == {"tree/link/passwd", "tree/root/it"}
    assert (tmp_path / "tree/root/it").stat().st_mode & 0o7777 == 0o755


def test_a_layer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    layer = tar(("a", tarfile.REGTYPE, b"x" * 600), ("b", tarfile.REGTYPE, b"x" * 600))
    with pytest.raises(InvalidContent, match="do not fit"):
        unpack(layer, tmp_path / "tree", 1000)
    assert not (tmp_path / "tree" / "b").exists()


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path, free // 2)
    with pytest.raises(Missing, match=r"has \d+ MiB free, and this needs about \d+ MiB"):
        check_room(tmp_path, 2 * free)


def test_an_image_is_cut_in_the_middle(tmp_path: Path) -> None:
    image = image_layout(tmp_path / "image", layers=4)
    made = tmp_path / "build"
    build = build_of(made, read_image(LayoutSource(image.path), lambda: None))
    assert build.path == made
    assert re.fullmatch(r"sha256:[0-9a-f]{12}…, 2 of 4 layers as run image", build.about)
    assert build.base_layers == 4  # and two small ones
    index = json.loads((build.images / "index.json").read_text())
    assert len(index["manifests"]) == 2
    for digest in image.layers[:2]:
        assert (build.images / "blobs/sha256" / digest.encoded).is_file()
    assert any(build.app.iterdir())
    assert len(list((build.layers / "bench_app").glob("*.toml"))) == 1
    build.begin()
    first = (build.app / "changed").read_bytes()
    build.change(2)
    assert first != (build.app / "changed").read_bytes()


@pytest.mark.parametrize("place", [0, 3])  # in the run image, and in what lies upon it
def test_a_damaged_layer_is_refused(tmp_path: Path, place: int) -> None:
    image = image_layout(tmp_path / "image", layers=4, compression="none")
    blob = tmp_path / "image" / "blobs/sha256" / image.layers[place].encoded
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1  # behind what ends the archive
    blob.write_bytes(content)
    with pytest.raises(DigestMismatch):
        build_of(tmp_path / "build", read_image(LayoutSource(image.path), lambda: None))


def test_a_daemon_has_time_to_name_what_it_was_sent() -> None:
    old, new = (Digest.of(b"1"),), (Digest.of(b"2"),)
    agreement = Agreement()
    assert agreement.wait("rebase", lambda: new) == new  # nobody knows better
    agreement.check("rebase", "ocistow", new)
    answers = iter([old, old, new, old])
    assert agreement.wait("rebase", lambda: next(answers)) == new


def test_ways_must_agree() -> None:
    agreement = Agreement()
    one, other = Digest.of(b"1"), Digest.of(b"2")
    agreement.check("first build", "layout", (one,))
    agreement.check("first build", "daemon", (one,))
    agreement.check("rebase", "daemon", (other,))
    with pytest.raises(InvalidContent, match="daemon made an image of 1 layers with other diffIDs"):
        agreement.check("first build", "daemon", (other,))
    with pytest.raises(InvalidContent):
        Agreement().check("first build", "layout", ())


def test_names_in_a_daemon_are_names_that_it_takes() -> None:
    name = re.compile(r"ocistow-bench\.invalid/[a-z0-9]+/run:latest")  # a separator ends no part
    names = {Daemon("unix:///nothing", new_space()).name("run") for _ in range(200)}
    assert len(names) == 200
    assert all(map(name.fullmatch, names))


def test_what_cannot_be_measured_is_left_out_with_its_reason() -> None:
    ways, left = chosen(NEVER_ASKED, ["daemon"])
    assert ways == ["ocistow", "daemon"]
    assert left["layout"] == "not asked for"
    _, left = chosen(NEVER_ASKED, [])
    assert left["registry"].startswith("the daemon is on another machine")
    assert cannot_push(NEVER_ASKED) == left["registry"]
    with pytest.raises(Missing, match="registry: the daemon is on another machine"):
        chosen(NEVER_ASKED, ["registry"])
    assert NEVER_ASKED.unseen() == "the daemon is on another machine"
