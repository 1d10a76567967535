"""An archive is one sequence of bytes, wherever reading begins and in what pieces."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from ocistow.oci.descriptor import OCI_LAYER, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import NotFound
from ocistow.publish.archives.tarstream import Entry, TarStream
from ocistow.publish.source import Blob

CONTENTS = st.lists(st.tuples(st.booleans(), st.binary(max_size=1200)), max_size=5)
OFFSETS = st.integers(0, 12_000)


class Memory:
    """A source of what is in memory."""

    sparse = False

    def __init__(self, contents: dict[Digest, bytes]) -> None:
        self.contents = contents

    def resolve(self) -> Descriptor:
        raise NotFound("an image")

    def open(self, descriptor: Descriptor) -> Blob:
        return Blob(io.BytesIO(self.contents[descriptor.digest]), descriptor)


def archive_of(contents: list[tuple[bool, bytes]]) -> TarStream:
    blobs = {Digest.of(content): content for _, content in contents}
    entries = [
        Entry.of(
            f"{'long/' * (number * 40)}{number}",
            Descriptor(OCI_LAYER, Digest.of(content), len(content)) if is_blob else content,
        )
        for number, (is_blob, content) in enumerate(contents)
    ]
    return TarStream(entries, Memory(blobs))


@given(CONTENTS, OFFSETS, OFFSETS)
def test_a_range_is_a_part_of_the_whole(
    contents: list[tuple[bool, bytes]], offset: int, size: int
) -> None:
    archive = archive_of(contents)
    whole = b"".join(archive)
    assert len(whole) == archive.size
    assert b"".join(archive.stream(offset, size)) == whole[offset : offset + size]
    assert b"".join(archive.stream(offset)) == whole[offset:]


@given(CONTENTS)
def test_what_was_put_in_comes_out(contents: list[tuple[bool, bytes]]) -> None:
    raw = b"".join(archive_of(contents))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = [tar.extractfile(info) for info in tar]
        assert [file.read() for file in found if file] == [content for _, content in contents]
