import errno
import hashlib
import os
import random
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from ocistow.oci.errors import InvalidContent
from ocistow.store.hashing import Hashing
from ocistow.testing.descriptors import open_files

CONTENT = random.Random(1).randbytes(20 << 20)
PIECE = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Generator[int]:
    file = os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY)
    yield file
    os.close(file)


def write(file: int, hashing: Hashing, content: bytes) -> None:
    for offset in range(0, len(content), PIECE):
        hashing.change(offset)
        os.pwrite(file, content[offset : offset + PIECE], offset)
        hashing.follow(file, min(len(content), offset + PIECE))


def finish(file: int, hashing: Hashing) -> list[str]:
    readable = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    try:
        return list(hashing.finish(readable, os.fstat(file).st_size))
    finally:
        os.close(readable)


def test_what_is_followed_is_hashed_by_each_algorithm(file: int) -> None:
    seen: list[tuple[int, int]] = []
    hashing = Hashing(["sha256", "sha512"], lambda _, offset, size: seen.append((offset, size)))
    write(file, hashing, CONTENT)
    assert finish(file, hashing) == [
        hashlib.sha256(CONTENT).hexdigest(),
        hashlib.sha512(CONTENT).hexdigest(),
    ]
    assert all(offset == sum(size for _, size in seen[:n]) for n, (offset, _) in enumerate(seen))


@pytest.mark.parametrize("lacks", ["files", "threads"])
def test_without_a_thread_all_is_read_in_the_end(
    file: int, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "no more") if lacks == "files" else RuntimeError("no more")

    hashing, before = Hashing(["sha256"]), open_files()
    with monkeypatch.context() as poor:
        if lacks == "files":
            poor.setattr(os, "open", refuse)
        else:
            poor.setattr(threading.Thread, "start", refuse)
        write(file, hashing, CONTENT)
        hashing.stop()
    assert open_files() <= before
    assert finish(file, hashing) == [hashlib.sha256(CONTENT).hexdigest()]


def test_bytes_that_are_changed_after_they_were_read_are_read_again(file: int) -> None:
    hashing = Hashing(["sha256"])
    write(file, hashing, CONTENT)
    finish(file, hashing)
    hashing.change(3)
    os.pwrite(file, b"new", 3)
    write(file, hashing, b"")
    expected = CONTENT[:3] + b"new" + CONTENT[6:]
    assert finish(file, hashing) == [hashlib.sha256(expected).hexdigest()]


def test_a_file_that_ends_early_is_no_end_of_the_thread_that_reads_it(file: int) -> None:
    hashing = Hashing(["sha256"])
    hashing.follow(file, len(CONTENT))
    hashing.stop()
    os.pwrite(file, CONTENT, 0)
    assert finish(file, hashing) == [hashlib.sha256(CONTENT).hexdigest()]


def test_a_file_that_is_shorter_than_it_was_is_refused(file: int) -> None:
    hashing = Hashing(["sha256"])
    readable = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    with pytest.raises(InvalidContent, match="ended at byte 0 of 1"):
        hashing.finish(readable, 1)
    os.close(readable)


def test_a_stopped_one_holds_no_file(file: int) -> None:
    before = open_files()
    hashing = Hashing(["sha256"])
    write(file, hashing, CONTENT)
    hashing.stop()
    assert open_files() <= before


class Noted(Hashing):
    pieces = 0

    def take(self, data: bytes | memoryview) -> None:
        self.pieces += 1
        super().take(data)


def test_small_writes_are_hashed_many_at_once(file: int) -> None:
    hashing, content, piece = Noted(["sha256"]), CONTENT[: 4 << 20], 16 << 10
    for offset in range(0, len(content), piece):
        os.pwrite(file, content[offset : offset + piece], offset)
        hashing.follow(file, offset + piece)
        hashlib.sha256(CONTENT[:PIECE])  # the writer is slower than who reads behind
    assert finish(file, hashing) == [hashlib.sha256(content).hexdigest()]
    assert hashing.pieces < 64  # of 256 writes; 256 KiB at a time are 16
