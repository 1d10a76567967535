"""What leaves the pool is heard of, in whatever way it goes."""

from pathlib import Path

import pytest
import trio

from ocistow.fusefs import watch as module
from ocistow.fusefs.watch import Watch
from ocistow.oci.digest import Digest

MOST = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    path = tmp_path / "blobs"
    (path / "sha256").mkdir(parents=True)
    return path


def put(pool: Path, digest: Digest) -> Path:
    file = pool / "sha256" / digest.encoded
    file.touch()
    return file


async def next_of(watch: Watch) -> frozenset[Digest] | None:
    with trio.fail_after(20):
        return await watch.next()


async def test_what_is_removed_or_moved_away_is_gone(pool: Path) -> None:
    one, other, neither = put(pool, A), put(pool, B), pool / "sha256" / ".ocistow-spare"
    neither.touch()
    with Watch(pool) as watch:
        assert watch.covers("sha256")
        neither.unlink()
        one.unlink()
        other.rename(pool / "quarantined")
        put(pool, A)
        assert await next_of(watch) == frozenset([A, B])


async def test_an_algorithm_is_watched_as_soon_as_it_has_a_directory(pool: Path) -> None:
    with Watch(pool) as watch:
        assert not watch.covers("sha512")
        (pool / "sha512").mkdir()
        assert watch.covers("sha512")


async def test_anything_may_be_gone_when_the_directory_is(pool: Path) -> None:
    with Watch(pool) as watch:
        assert watch.covers("sha256")
        (pool / "sha256").rmdir()
        assert await next_of(watch) is None
        assert not watch.covers("sha256")
        (pool / "sha256").mkdir()
        assert watch.covers("sha256")


async def test_anything_may_be_gone_when_too_much_goes_at_once(pool: Path) -> None:
    file, other = put(pool, A), put(pool, B)
    other.unlink()
    with Watch(pool) as watch:
        assert watch.covers("sha256")
        for _ in range(MOST // 2 + 1):  # two of the same, one after the other, would be merged
            file.rename(other)
            other.rename(file)
        assert await next_of(watch) is None


async def test_without_inotify_nothing_is_covered(pool: Path) -> None:
    watch = Watch(pool)
    assert not watch.covers("sha256")
