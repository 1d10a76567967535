import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.tarball import MAX_RECORD, Tarball

NAMES = st.from_regex(r"[a-zé]{1,120}(/[a-z0-9]{1,90}){0,3}", fullmatch=True)


def write(
    path: Path,
    files: dict[str, bytes],
    form: int = tarfile.PAX_FORMAT,
    mode: Literal["w", "w:gz"] = "w",
) -> Path:
    with tarfile.open(path, mode, format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.booleans(),
)
def test_all_files_are_found_in_what_the_standard_library_writes(
    files: dict[str, bytes], form: int, packed: bool
) -> None:
    with TemporaryDirectory() as directory:
        path = write(Path(directory) / "a.tar", files, form, "w:gz" if packed else "w")
        with Tarball.open(path, links=False) as tar:
            for name, content in files.items():
                assert tar.size(name) == len(content)
                assert tar.read(name, 1500) == content


@given(st.binary(max_size=3000))
@example(bytes(1024))
def test_any_bytes_are_an_archive_or_refused(data: bytes) -> None:
    check_accepted_or_refused(data)


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=30))
def test_any_change_of_a_header_is_accepted_or_refused(at: int, change: bytes) -> None:
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("é" * 120))
    data = bytearray(base.getvalue())
    data[at : at + len(change)] = change
    for block in range(0, 2048, 512):
        seal(data, block)
    check_accepted_or_refused(bytes(data))


def check_accepted_or_refused(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        path.write_bytes(data)
        try:
            Tarball.open(path, links=True).close()
        except InvalidContent as refused:
            str(refused).encode()  # it can be printed


def seal(data: bytearray, block: int) -> None:
    """Make the checksum of a header right."""
    data[block + 148 : block + 156] = b" " * 8
    data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (member("/etc/passwd"), "leads out"),
        (member("../x"), "leads out"),
        (member("a/../../x"), "leads out"),
        (member("/etc/", tarfile.DIRTYPE), "leads out"),
        (member("x", tarfile.LNKTYPE, "blobs/a"), "a hard link"),
        (member("x", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (member("x", tarfile.CHRTYPE), "a character device"),
        (member("x", tarfile.BLKTYPE), "a block device"),
        (member("x", tarfile.FIFOTYPE), "a FIFO"),
        (member("x", tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (member("x", b"Q"), "unknown type"),
        (member("blobs/a"), "twice"),
        (member("./blobs//a"), "twice"),
    ],
)
def test_what_could_not_be_unpacked_safely_is_refused(
    tmp_path: Path, info: tarfile.TarInfo, why: str
) -> None:
    path = write(tmp_path / "a.tar", {"blobs/a": b"content"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(info)
    with pytest.raises(InvalidContent, match=why):
        Tarball.open(path, links=False)


def links(tmp_path: Path, **targets: str) -> Tarball:
    path = write(tmp_path / "a.tar", {"d/file": b"content"})
    with tarfile.open(path, "a") as tar:
        for name, target in targets.items():
            tar.addfile(member(f"d/{name}", tarfile.SYMTYPE, target))
    return Tarball.open(path, links=True)


def test_links_lead_to_other_members(tmp_path: Path) -> None:
    with links(tmp_path, a="file", b="../d/a", c="./b") as tar:
        assert tar.read("d/c", 9) == b"content"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "/d/file"])
def test_links_out_of_the_archive_are_refused(tmp_path: Path, target: str) -> None:
    with links(tmp_path, a=target) as tar, pytest.raises(InvalidContent, match="out of"):
        tar.read("d/a", 9)


def test_links_to_each_other_are_refused(tmp_path: Path) -> None:
    with links(tmp_path, a="b", b="a") as tar, pytest.raises(InvalidContent, match="links away"):
        tar.read("d/a", 9)


def test_links_to_nothing_are_not_found(tmp_path: Path) -> None:
    with links(tmp_path, a="none") as tar, pytest.raises(NotFound, match="'d/none'"):
        tar.read("d/a", 9)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_a_huge_header_is_not_read(
    tmp_path: Path, kind: bytes, wrap: Callable[[bytes], bytes]
) -> None:
    info = member("x", kind)
    info.size = MAX_RECORD + 1
    path = tmp_path / "a.tar"
    path.write_bytes(wrap(info.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 10)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidContent, match="at most 1048576"):
            Tarball.open(path, links=False)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "record",
    [
        b"0 a=b\n",
        b"99 a=b\n",
        b"6 a=b\n\0",
        b"6 abb\n",
        b"x",
        b"-6 a=b\n",
        b"9" * 1000,
        b"22 GNU.sparse.major=1\n",
    ],
)
def test_a_malformed_pax_record_is_refused(tmp_path: Path, record: bytes) -> None:
    info = member("x", tarfile.XHDTYPE)
    info.size = len(record)
    path = tmp_path / "a.tar"
    blocks = info.tobuf() + record.ljust(-(-len(record) // 512) * 512, b"\0")
    path.write_bytes(blocks + member("y").tobuf() + bytes(1024))
    with pytest.raises(InvalidContent):
        Tarball.open(path, links=False)


@pytest.mark.parametrize("field", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-1\0", b"9\0", b"0x1\0"])
def test_a_size_must_be_one(tmp_path: Path, field: bytes) -> None:
    header = bytearray(member("x").tobuf())
    header[124 : 124 + len(field)] = field
    seal(header, 0)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(InvalidContent, match="the number"):
        Tarball.open(path, links=False)


def test_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocistow.publish.tarball.MAX_MEMBERS", 2)
    path = write(tmp_path / "a.tar", {"a": b"", "b": b"", "c": b""})
    with pytest.raises(InvalidContent, match="over 2 members"):
        Tarball.open(path, links=False)


def test_a_file_that_is_cut_off_reads_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"a": b"x" * 600})
    with path.open("r+b") as file:
        file.truncate(900)
    with Tarball.open(path, links=False) as tar:
        assert len(tar.read("a", 600)) == 388


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidContent, match="not a regular file"):
        Tarball.open(tmp_path, links=False)
    with pytest.raises(FileNotFoundError):
        Tarball.open(tmp_path / "none", links=False)
