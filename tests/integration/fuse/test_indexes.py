"""`index.json` and `oci-layout`: replaced whole, and only by what is good."""

import errno
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_INDEX
from ocistow.testing.minimal import MinimalImage, minimal_image, minimal_index
from ocistow.testing.mounts import Mount

pytestmark = pytest.mark.fuse

MARKER = b'{"imageLayoutVersion": "1.0.0"}'
EMPTY = b'{"schemaVersion":2,"manifests":[]}'


def index_of(*images: MinimalImage, padding: str = "") -> bytes:
    """Return an index that mentions images; padding makes it longer."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "manifests": [image.root.to_document() for image in images],
    }
    if padding:
        document["annotations"] = {"padding": padding}
    return json.dumps(document).encode()


def write_blobs(layout: Path, image: MinimalImage, *, layers: bool = True) -> None:
    for digest, content in image.blobs.items():
        if layers or not content.startswith(b"layer "):
            blob = layout / "blobs" / digest.algorithm / digest.encoded
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)


@pytest.fixture
def layout(here: Path) -> Path:
    path = here / "layout"
    path.mkdir()
    (path / "oci-layout").write_bytes(MARKER)
    return path


@pytest.fixture
def images(request: pytest.FixtureRequest) -> list[MinimalImage]:
    return [minimal_image(f"{request.node.name} {number}") for number in range(3)]


def on_disk(mount: Mount, path: Path) -> Path:
    return mount.layouts / path.relative_to(mount.path)


def assert_refused(mount: Mount, index: Path, content: bytes, words: str) -> None:
    """Check that content is refused with EIO and one warning, and that nothing else happens."""
    before = index.read_bytes() if index.exists() else None
    names = sorted(os.listdir(index.parent))
    pattern = f"^WARNING .*{index.relative_to(mount.path)}: .*{words}"
    warned = len(mount.log.matching(pattern))
    file = os.open(index, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert os.write(file, content) == len(content)
    with pytest.raises(OSError, match="Input/output error") as caught:
        os.close(file)
    assert caught.value.errno == errno.EIO
    assert len(mount.log.wait_for(pattern, count=warned + 1)) == warned + 1
    temporary = index.with_name("index.json.tmp")
    temporary.write_bytes(content)
    with pytest.raises(OSError, match="Input/output error"):
        temporary.rename(index)
    assert temporary.read_bytes() == content
    temporary.unlink()
    assert len(mount.log.wait_for(pattern, count=warned + 2)) == warned + 2
    assert (index.read_bytes() if index.exists() else None) == before
    assert sorted(os.listdir(index.parent)) == names
    mount.await_no_unnamed_files()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"not JSON", "is not JSON"),
        (b'{"schemaVersion":2,"manifests":[]', "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "is not an object"),
        (b'{"schemaVersion":2,"manifests":{}}', "manifests"),
        (b'{"schemaVersion":2,"manifests":[{}]}', "index.json"),
        (b'{"schemaVersion":2,"manifests":[' + b" " * (4 << 20) + b"]}", "bytes, at most"),
    ],
    ids=lambda value: value[:12].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_what_is_no_index_is_refused(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage], content: bytes, words: str
) -> None:
    write_blobs(layout, images[0])
    (layout / "index.json").write_bytes(index_of(images[0]))
    assert_refused(shared_mount, layout / "index.json", content, words)


def test_an_index_may_not_mention_absent_manifests_or_configs(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    first, second, third = images
    write_blobs(layout, first)
    (layout / "index.json").write_bytes(index_of(first))
    index = layout / "index.json"
    assert_refused(shared_mount, index, index_of(first, second), str(second.root.digest))
    config = next(d for d, c in third.blobs.items() if b"rootfs" in c)
    for digest, content in third.blobs.items():
        if digest != config:
            (layout / "blobs" / "sha256" / digest.encoded).write_bytes(content)
    assert_refused(shared_mount, index, index_of(first, third), str(config))


def test_an_index_that_contains_itself_is_refused(layout: Path, shared_mount: Mount) -> None:
    (layout / "index.json").write_bytes(EMPTY)
    image = minimal_image("cycle")
    for _ in range(70):  # no cycle can be written, since a digest cannot name itself: depth can
        image = minimal_index(image)
    write_blobs(layout, image)
    assert_refused(shared_mount, layout / "index.json", index_of(image), "")


def test_sizes_must_be_what_descriptors_say(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    (layout / "index.json").write_bytes(EMPTY)
    write_blobs(layout, images[0])
    wrong = json.loads(index_of(images[0]))
    wrong["manifests"][0]["size"] += 1
    assert_refused(shared_mount, layout / "index.json", json.dumps(wrong).encode(), "bytes")


def test_a_marker_of_another_version_is_refused(layout: Path, shared_mount: Mount) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion": "9.0.0"}')
    assert (layout / "oci-layout").read_bytes() == MARKER
    shared_mount.log.wait_for(f"^WARNING .*{layout.relative_to(shared_mount.path)}/oci-layout.*9.0")


def test_layers_may_be_absent(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    unique = minimal_image("sparse", layers=["nobody has this"])
    write_blobs(layout, unique, layers=False)
    (layout / "index.json").write_bytes(index_of(unique))
    assert (on_disk(shared_mount, layout) / "index.json").read_bytes() == index_of(unique)
    absent = hashlib.sha256(b"layer nobody has this").hexdigest()
    assert absent not in os.listdir(layout / "blobs" / "sha256")
    assert not (layout / "blobs" / "sha256" / absent).exists()


def test_a_commit_links_what_the_pool_has(
    here: Path, layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    write_blobs(layout, images[0])
    other = here / "other"
    other.mkdir()
    (other / "oci-layout").write_bytes(MARKER)
    (other / "index.json").write_bytes(index_of(images[0]))
    assert sorted(os.listdir(other / "blobs" / "sha256")) == sorted(
        digest.encoded for digest in images[0].blobs
    )
    linked = on_disk(shared_mount, other) / "blobs" / "sha256" / images[0].root.digest.encoded
    pool = shared_mount.store / "blobs" / "sha256" / images[0].root.digest.encoded
    assert linked.samefile(pool)


def test_an_index_of_indexes(layout: Path, images: Sequence[MinimalImage]) -> None:
    nested = minimal_index(minimal_index(*images), images[0])
    assert nested.root.media_type == OCI_INDEX
    write_blobs(layout, nested)
    (layout / "index.json").write_bytes(index_of(nested))
    assert json.loads((layout / "index.json").read_bytes())["manifests"]


def test_readers_see_the_last_good_index_until_the_next_is_closed(
    layout: Path, images: Sequence[MinimalImage]
) -> None:
    index = layout / "index.json"
    for image in images:
        write_blobs(layout, image)
    index.write_bytes(index_of(images[0]))
    with index.open("rb") as reader, index.open("r+b", buffering=0) as writer:
        writer.truncate(0)
        assert index.read_bytes() == index_of(images[0])
        writer.write(index_of(images[1])[:40])
        assert index.read_bytes() == index_of(images[0])
        assert index.stat().st_size == len(index_of(images[0]))
        writer.write(index_of(images[1])[40:])
        assert index.read_bytes() == index_of(images[0])
        os.close(os.dup(writer.fileno()))
        assert index.read_bytes() == index_of(images[1])
        assert os.fstat(reader.fileno()).st_size == len(index_of(images[0]))
        assert reader.read() == index_of(images[0])
    assert index.read_bytes() == index_of(images[1])


def test_the_last_of_two_writers_wins_whole(layout: Path, images: Sequence[MinimalImage]) -> None:
    index = layout / "index.json"
    for image in images:
        write_blobs(layout, image)
    index.write_bytes(EMPTY)
    long, short = index_of(*images, padding="x" * 5000), index_of(images[2])
    for first, second in [(long, short), (short, long)]:
        one, other = (os.open(index, os.O_WRONLY | os.O_TRUNC) for _ in range(2))
        os.write(one, first[:50])
        os.write(other, second[:20])
        os.write(one, first[50:])
        os.write(other, second[20:])
        assert index.read_bytes() not in (b"", first[:50], second[:20])
        os.close(one)
        assert index.read_bytes() == first
        os.close(other)
        assert index.read_bytes() == second


@pytest.mark.parametrize("waits", [False, True], ids=["commits", "waits too"])
def test_the_last_of_two_writers_wins_over_one_that_waits(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage], waits: bool
) -> None:
    """Both began when there was no index, and the one that closes first has to wait."""
    index, (first, second, _) = layout / "index.json", images
    last = index_of(second) if waits else EMPTY
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [os.open(index, flags) for _ in range(2)]
    for file, content in zip(files, (index_of(first), last), strict=True):
        os.write(file, content)
        os.close(file)
    assert index.read_bytes() == last
    write_blobs(layout, first)
    assert index.read_bytes() == last
    write_blobs(layout, second)
    assert index.read_bytes() == last
    assert on_disk(shared_mount, index).read_bytes() == last


def test_what_is_read_is_what_is_patched(layout: Path) -> None:
    index = layout / "index.json"
    index.write_bytes(EMPTY)
    with index.open("r+b", buffering=0) as file:
        before = file.read()
        index.write_bytes(b'{"schemaVersion":2,  "manifests":[],"annotations":{"a":"b"}}')
        file.seek(len(before) - 1)
        file.write(b" }")  # in the place of the last brace of what it read
    assert index.read_bytes() == EMPTY[:-1] + b" }"


def test_readers_never_see_half_an_index(layout: Path, images: Sequence[MinimalImage]) -> None:
    index = layout / "index.json"
    for image in images:
        write_blobs(layout, image)
    good = [index_of(image, padding="x" * 3000 * number) for number, image in enumerate(images)]
    index.write_bytes(good[0])
    is_over = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not is_over.is_set():
            seen.append(index.read_bytes())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        with index.open("wb", buffering=1024) as file:
            file.write(good[number % 3])
    is_over.set()
    for reader in readers:
        reader.join()
    assert set(seen) <= set(good)
    assert len(set(seen)) > 1


def test_an_index_that_is_opened_and_left_alone_stays(layout: Path) -> None:
    index = layout / "index.json"
    index.write_bytes(EMPTY)
    before = index.stat().st_ino
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND):
        os.close(os.open(index, flags))
    assert index.read_bytes() == EMPTY
    assert index.stat().st_ino == before
    with pytest.raises(PermissionError):
        os.truncate(index, 3)


def test_an_index_is_committed_by_fsync(layout: Path, images: Sequence[MinimalImage]) -> None:
    index = layout / "index.json"
    index.write_bytes(EMPTY)
    write_blobs(layout, images[0])
    with index.open("wb", buffering=0) as stream:
        stream.write(index_of(images[0]))
        os.fsync(stream.fileno())
        assert index.read_bytes() == index_of(images[0])
        assert os.fstat(
            stream.fileno()
        ).st_size  # it is asked about by inode, which is the old one's
    file = os.open(index, os.O_WRONLY | os.O_TRUNC)
    os.write(file, index_of(images[1]))
    for call in (os.fsync, os.close):
        with pytest.raises(OSError, match="Input/output error"):
            call(file)
    assert index.read_bytes() == index_of(images[0])


def test_an_index_that_comes_first_waits_for_its_blobs(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    index = layout / "index.json"
    index.write_bytes(index_of(images[0], images[1]))
    assert index.read_bytes() == index_of(images[0], images[1])
    assert sorted(os.listdir(layout)) == ["index.json", "oci-layout"]
    assert not (on_disk(shared_mount, layout) / "index.json").exists()
    write_blobs(layout, images[1])
    assert not (on_disk(shared_mount, layout) / "index.json").exists()
    write_blobs(layout, images[0])
    assert (on_disk(shared_mount, layout) / "index.json").read_bytes() == index.read_bytes()
    shared_mount.await_no_unnamed_files()


def test_a_waiting_index_can_be_replaced_and_removed(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    index = layout / "index.json"
    index.write_bytes(index_of(images[0]))
    index.write_bytes(index_of(images[1]))
    assert index.read_bytes() == index_of(images[1])
    index.unlink()
    assert os.listdir(layout) == ["oci-layout"]
    write_blobs(layout, images[0])
    write_blobs(layout, images[1])
    assert not (on_disk(shared_mount, layout) / "index.json").exists()
    index.write_bytes(index_of(images[2]))
    index.write_bytes(index_of(images[1]))
    assert (on_disk(shared_mount, layout) / "index.json").read_bytes() == index_of(images[1])
    shared_mount.await_no_unnamed_files()


def test_an_index_that_is_renamed_to_its_name_waits_too(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    index, temporary = layout / "index.json", layout / ".index.json.Xy12ab"  # as rsync does
    for image in images[:2]:
        temporary.write_bytes(index_of(image))
        temporary.rename(index)
        assert index.read_bytes() == index_of(image)
        assert sorted(os.listdir(layout)) == ["index.json", "oci-layout"]
    write_blobs(layout, images[0])
    assert not (on_disk(shared_mount, layout) / "index.json").exists()
    write_blobs(layout, images[1])
    assert (on_disk(shared_mount, layout) / "index.json").read_bytes() == index_of(images[1])
    assert index.read_bytes() == index_of(images[1])
    shared_mount.await_no_unnamed_files()


def test_a_good_index_is_renamed_over_a_waiting_one(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    index, temporary = layout / "index.json", layout / "temporary"
    index.write_bytes(index_of(images[0]))
    temporary.write_bytes(EMPTY)
    temporary.rename(index)
    assert index.read_bytes() == EMPTY
    write_blobs(layout, images[0])
    assert index.read_bytes() == EMPTY
    assert (on_disk(shared_mount, layout) / "index.json").read_bytes() == EMPTY
    shared_mount.await_no_unnamed_files()


def test_a_waiting_index_that_turns_out_bad_is_refused_then(
    layout: Path, shared_mount: Mount, images: Sequence[MinimalImage]
) -> None:
    wrong = json.loads(index_of(images[0]))
    wrong["manifests"][0]["size"] += 1
    (layout / "index.json").write_text(json.dumps(wrong))
    write_blobs(layout, images[0])
    shared_mount.log.wait_for(f"^WARNING .*{layout.relative_to(shared_mount.path)}/index.json")
    assert os.listdir(layout) == ["blobs", "oci-layout"]
    shared_mount.await_no_unnamed_files()


def test_an_index_moves_with_its_layout_but_not_without(
    here: Path, layout: Path, images: Sequence[MinimalImage]
) -> None:
    write_blobs(layout, images[0])
    (layout / "index.json").write_bytes(index_of(images[0]))
    layout.rename(here / "moved")
    assert (here / "moved" / "index.json").read_bytes() == index_of(images[0])
    (here / "other").mkdir()
    (here / "moved" / "index.json").rename(here / "other" / "index.json")
    assert (here / "other" / "index.json").read_bytes() == index_of(images[0])
    assert not (here / "moved" / "index.json").exists()
    assert len(os.listdir(here / "other" / "blobs" / "sha256")) == len(images[0].blobs)
    (here / "other" / "index.json").rename(here / "other" / "index.json.bak")
    assert (here / "other" / "index.json.bak").read_bytes() == index_of(images[0])
    assert not (here / "other" / "index.json").exists()
    (here / "other" / "index.json.bak").write_bytes(b"ordinary")
    assert (here / "other" / "index.json.bak").read_bytes() == b"ordinary"


def test_an_unlinked_index_is_gone(layout: Path) -> None:
    index = layout / "index.json"
    index.write_bytes(EMPTY)
    with index.open("rb") as file:
        index.unlink()
        assert os.fstat(file.fileno()).st_size == len(EMPTY)
        assert file.read() == EMPTY
    assert not index.exists()
    index.write_bytes(EMPTY)
    assert index.exists()
