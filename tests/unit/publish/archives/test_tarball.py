"""Archives, read in place from a file and in one pass from a stream."""

import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.archives.archive import Archive, read_member
from ocistow.publish.archives.entries import MAX_RECORD
from ocistow.publish.archives.spool import SMALL, Spool, never, open_archive
from ocistow.store.blobs import BlobStore
from ocistow.testing.descriptors import open_files

NAMES = st.from_regex(r"[a-zé]{1,120}(/[a-z0-9]{1,90}){0,3}", fullmatch=True)
WAYS = ["file", "stream"]
both_ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobStore]:
    with BlobStore(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


@contextmanager
def opened(path: Path, pool: BlobStore, way: str, *, links: bool = False) -> Generator[Archive]:
    if way == "file":
        with open_archive(path, pool, links=links, packs=never) as tar:
            yield tar
    else:
        with path.open("rb") as stream, Spool(str(path), pool) as spool:
            spool.fill(stream, links=links, packs=never)
            yield spool


def check(path: Path, pool: BlobStore, way: str) -> None:
    with opened(path, pool, way):
        pass


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
    st.sampled_from(WAYS),
)
def test_all_files_are_found_in_what_the_standard_library_writes(
    pool: BlobStore, files: dict[str, bytes], form: int, packed: bool, way: str
) -> None:
    with TemporaryDirectory() as directory:
        path = write(Path(directory) / "a.tar", files, form, "w:gz" if packed else "w")
        with opened(path, pool, way) as tar:
            for name, content in files.items():
                assert tar.size(name) == len(content)
                assert read_member(tar, name, 1500) == content


@given(st.binary(max_size=3000))
@example(bytes(1024))
def test_any_bytes_are_an_archive_or_refused(pool: BlobStore, data: bytes) -> None:
    check_accepted_or_refused(pool, data)


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=30))
def test_any_change_of_a_header_is_accepted_or_refused(
    pool: BlobStore, at: int, change: bytes
) -> None:
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("é" * 120))
    data = bytearray(base.getvalue())
    data[at : at + len(change)] = change
    for block in range(0, 2048, 512):
        seal(data, block)
    check_accepted_or_refused(pool, bytes(data))


def check_accepted_or_refused(pool: BlobStore, data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        path.write_bytes(data)
        accepted: list[str] = []
        for way in WAYS:
            try:
                check(path, pool, way)
                accepted.append(way)
            except InvalidContent as refused:
                str(refused).encode()  # it can be printed
    assert accepted in ([], WAYS)


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_a_stream_that_is_cut_off_reads_whole_files_or_is_refused(
    pool: BlobStore, cut: int, size: int
) -> None:
    whole = io.BytesIO()
    content = os.urandom(size)
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(content))
    with Spool("it", pool) as spool:
        try:
            spool.fill(io.BytesIO(whole.getvalue()[:cut]), links=False, packs=never)
        except InvalidContent:
            return
        for name in ("a", "b"):
            try:
                assert read_member(spool, name, size) == content
            except NotFound:
                continue


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
@both_ways
def test_what_could_not_be_unpacked_safely_is_refused(
    tmp_path: Path, pool: BlobStore, way: str, info: tarfile.TarInfo, why: str
) -> None:
    path = write(tmp_path / "a.tar", {"blobs/a": b"content"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(info)
    with pytest.raises(InvalidContent, match=why):
        check(path, pool, way)


@contextmanager
def links(path: Path, pool: BlobStore, way: str, **targets: str) -> Generator[Archive]:
    write(path, {"d/file": b"content"})
    with tarfile.open(path, "a") as tar:
        for name, target in targets.items():
            tar.addfile(member(f"d/{name}", tarfile.SYMTYPE, target))
    with opened(path, pool, way, links=True) as archive:
        yield archive


@both_ways
def test_links_lead_to_other_members(tmp_path: Path, pool: BlobStore, way: str) -> None:
    with links(tmp_path / "a.tar", pool, way, a="file", b="../d/a", c="./b") as tar:
        assert read_member(tar, "d/c", 9) == b"content"


@both_ways
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "/d/file"])
def test_links_out_of_the_archive_are_refused(
    tmp_path: Path, pool: BlobStore, way: str, target: str
) -> None:
    with (
        links(tmp_path / "a.tar", pool, way, a=target) as tar,
        pytest.raises(InvalidContent, match="out of"),
    ):
        read_member(tar, "d/a", 9)


@both_ways
def test_links_to_each_other_are_refused(tmp_path: Path, pool: BlobStore, way: str) -> None:
    with (
        links(tmp_path / "a.tar", pool, way, a="b", b="a") as tar,
        pytest.raises(InvalidContent, match="links away"),
    ):
        read_member(tar, "d/a", 9)


@both_ways
def test_links_to_nothing_are_not_found(tmp_path: Path, pool: BlobStore, way: str) -> None:
    with (
        links(tmp_path / "a.tar", pool, way, a="none") as tar,
        pytest.raises(NotFound, match="'d/none'"),
    ):
        read_member(tar, "d/a", 9)


@both_ways
@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_a_huge_header_is_not_read(
    tmp_path: Path, pool: BlobStore, way: str, kind: bytes, wrap: Callable[[bytes], bytes]
) -> None:
    info = member("x", kind)
    info.size = MAX_RECORD + 1
    path = tmp_path / "a.tar"
    path.write_bytes(wrap(info.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 10)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidContent, match="at most 1048576"):
            check(path, pool, way)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_stream_is_never_in_memory(pool: BlobStore) -> None:
    """Not even when it is a thousand times as long as what is sent."""
    info = member("blobs/sha256/x")
    info.size = 100 << 20
    packed = subprocess.run(
        ["gzip", "-1"],
        input=info.tobuf() + bytes(info.size + 1024),
        capture_output=True,
        check=True,
    ).stdout
    tracemalloc.start()
    try:
        with Spool("it", pool) as spool:
            spool.fill(io.BytesIO(packed), links=False, packs=never)
            assert spool.size("blobs/sha256/x") == 100 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
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
@both_ways
def test_a_malformed_pax_record_is_refused(
    tmp_path: Path, pool: BlobStore, way: str, record: bytes
) -> None:
    info = member("x", tarfile.XHDTYPE)
    info.size = len(record)
    path = tmp_path / "a.tar"
    blocks = info.tobuf() + record.ljust(-(-len(record) // 512) * 512, b"\0")
    path.write_bytes(blocks + member("y").tobuf() + bytes(1024))
    with pytest.raises(InvalidContent):
        check(path, pool, way)


@pytest.mark.parametrize("field", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-1\0", b"9\0", b"0x1\0"])
@both_ways
def test_a_size_must_be_one(tmp_path: Path, pool: BlobStore, way: str, field: bytes) -> None:
    header = bytearray(member("x").tobuf())
    header[124 : 124 + len(field)] = field
    seal(header, 0)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(InvalidContent, match="the number"):
        check(path, pool, way)


@both_ways
def test_many_members_are_refused(
    tmp_path: Path, pool: BlobStore, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocistow.publish.archives.tarball.MAX_MEMBERS", 2)
    path = write(tmp_path / "a.tar", {"a": b"", "b": b"", "c": b""})
    with pytest.raises(InvalidContent, match="over 2 members"):
        check(path, pool, way)


@both_ways
def test_what_is_cut_off_is_refused(tmp_path: Path, pool: BlobStore, way: str) -> None:
    path = write(tmp_path / "a.tar", {"a": b"x" * 600, "b": b"y"})
    os.truncate(path, 900)
    with pytest.raises(InvalidContent, match=r"a\.tar: it ends 212 bytes before the end of 'a'"):
        check(path, pool, way)


def test_a_size_that_is_a_lie_ends_with_the_stream(pool: BlobStore) -> None:
    info = member("a")
    info.size = 1 << 60
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(5 << 20)
    with Spool("it", pool) as spool, pytest.raises(InvalidContent, match="before the end of 'a'"):
        spool.fill(io.BytesIO(raw), links=False, packs=never)


def test_a_stream_that_goes_on_after_its_end_is_refused(pool: BlobStore) -> None:
    with Spool("it", pool) as spool, pytest.raises(InvalidContent, match="goes on after its end"):
        spool.fill(io.BytesIO(bytes(2 << 20)), links=False, packs=never)


def test_many_files_share_few_descriptors(
    tmp_path: Path, pool: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocistow.publish.archives.spool.MAX_FILES", 2)
    files = {str(number): os.urandom(SMALL + number) for number in range(5)} | {"s": b"small"}
    path = write(tmp_path / "a.tar", files)
    before = open_files()
    with opened(path, pool, "stream") as tar:
        assert len(open_files() - before) <= 4
        for name, content in files.items():
            assert read_member(tar, name, 1 << 20) == content


def test_what_is_no_file_is_refused(tmp_path: Path, pool: BlobStore) -> None:
    with pytest.raises(InvalidContent, match="goes on after its end"):
        check(Path("/dev/zero"), pool, "file")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        check(tmp_path, pool, "file")
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "none", pool, "file")


def test_a_pipe_is_an_archive(tmp_path: Path, pool: BlobStore) -> None:
    archive = write(tmp_path / "a.tar", {"a": b"content"})
    os.mkfifo(tmp_path / "pipe")
    with (
        subprocess.Popen(["cp", str(archive), str(tmp_path / "pipe")]),
        opened(tmp_path / "pipe", pool, "file") as tar,
        closing(tar.open("a")) as stream,
    ):
        assert stream.read(99) == b"content"
