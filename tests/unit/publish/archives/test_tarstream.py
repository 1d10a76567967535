import io
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.archives.tarstream import Entry, TarStream
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Blob
from ocistow.store.reading import READ_SIZE
from ocistow.testing.images import GeneratedImage

LARGE = 8 << 30  # bytes; from here on a size does not fit into the classic header


class Memory:
    """A source of blobs that are in memory and no files."""

    sparse = False

    def __init__(self, *contents: bytes) -> None:
        self.contents = {Digest.of(content): content for content in contents}

    def resolve(self) -> Descriptor:
        raise NotFound("an image")

    def open(self, descriptor: Descriptor) -> Blob:
        try:
            content = self.contents[descriptor.digest]
        except KeyError:
            raise NotFound(descriptor.digest) from None
        return Blob(io.BytesIO(content), descriptor)


def described(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor(OCI_LAYER, Digest.of(content), len(content) if size is None else size)


def blob_of(image: GeneratedImage, digest: Digest) -> Descriptor:
    return Descriptor(OCI_LAYER, digest, image.blob(digest).stat().st_size)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_other_readers_find_what_was_put_in(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * 3
    document, blob = content[:size], content[1 : size + 1]
    long = "blobs/sha512/" + "f" * 128
    entries = [Entry.of("a.json", document), Entry.of(long, described(blob)), Entry.of("b", b"")]
    raw = b"".join(TarStream(entries, Memory(blob)))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        assert {info.mtime for info in tar} == {0}
        assert [f.read() for f in found.values() if f] == [document, blob, b""]
        assert list(found) == ["a.json", long, "b"]
    file = tmp_path / "archive.tar"
    file.write_bytes(raw)
    subprocess.run(["tar", "--extract", "--file", file], cwd=tmp_path, check=True)
    assert (tmp_path / "a.json").read_bytes() == document
    assert (tmp_path / long).read_bytes() == blob


def test_the_size_is_known_without_reading() -> None:
    content = b"never opened"
    archive = TarStream([Entry.of("a", described(content))], Memory())
    assert archive.size == 512 + 512 + 1024
    with pytest.raises(NotFound, match=str(Digest.of(content))):
        b"".join(archive)


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 1 << 40])
def test_sizes_that_need_a_pax_header(size: int) -> None:
    archive = TarStream([Entry.of("large", described(b"", size)), Entry.of("b", b"last")], Memory())
    extended = size >= LARGE
    head = b"".join(archive.stream(0, 512 + 1024 * extended))
    info = tarfile.TarFile.open(fileobj=io.BytesIO(head + bytes(1024))).next()
    assert info is not None
    assert (info.name, info.size) == ("large", size)
    assert bool(info.pax_headers) == extended
    end = len(head) + -(-size // 512) * 512
    assert archive.size == end + 512 + 512 + 1024
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive.stream(end, archive.size)))) as tar:
        assert tar.getnames() == ["b"]


def test_a_part_of_a_file_is_read_alone(image: GeneratedImage) -> None:
    layer = blob_of(image, image.layers[0])
    archive = TarStream([Entry.of("layer", layer)], LayoutSource(image.path))
    content = image.blob(layer.digest).read_bytes()
    assert b"".join(archive.stream(512 + 100, 200)) == content[100:300]
    assert b"".join(archive.stream(512 + layer.size - 5, 5)) == content[-5:]


def test_progress_is_told_while_a_blob_is_streamed() -> None:
    content = bytes(2 * READ_SIZE + 1)
    told: list[int] = []

    class Watched(Memory):
        def open(self, descriptor: Descriptor) -> Blob:
            blob = super().open(descriptor)
            blob.watch = told.append
            return blob

    chunks = list(TarStream([Entry.of("a", described(content))], Watched(content)))
    assert told[-1] == len(content)
    assert all(before <= after for before, after in pairwise(told))
    assert max(map(len, chunks)) <= READ_SIZE


@pytest.mark.parametrize("wrong", [-1, 1])
@pytest.mark.parametrize("offset", [0, 600])
def test_a_blob_of_another_size_ends_the_stream(
    image: GeneratedImage, wrong: int, offset: int
) -> None:
    layer = blob_of(image, image.layers[0])
    archive = TarStream([Entry("a", layer.size + wrong, layer)], LayoutSource(image.path))
    with pytest.raises(InvalidContent):
        b"".join(archive.stream(offset))
