import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path, PurePosixPath

import pytest
import zstandard

from ocistow.audit.potential import Level, Potential, potential
from ocistow.oci.descriptor import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
)
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.store import Store

BLOCK = 512


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def tar(**files: bytes) -> bytes:
    """Return a tar; its headers and padding are no content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, next(iter(files))
        archive.addfile(link)
    return raw.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store


def put(
    store: Store,
    name: str,
    *layers: bytes,
    media_type: str = OCI_LAYER,
    config: str = OCI_CONFIG,
    absent: Sequence[Digest] = (),
) -> PurePosixPath:
    """Store an image of these layers."""
    digests = [(store.blobs.add([layer]), len(layer)) for layer in layers]
    digests += [(digest, 1000) for digest in absent]
    about = json.dumps({"architecture": "amd64", "os": "linux", "name": name}).encode()
    document = {
        "schemaVersion": 2,
        "config": Descriptor(config, store.blobs.add([about]), len(about)).to_document(),
        "layers": [Descriptor(media_type, d, size).to_document() for d, size in digests],
    }
    raw = json.dumps(document).encode()
    root = Descriptor(OCI_MANIFEST, store.blobs.add([raw]), len(raw))
    return store.put(Reference.parse(name), root).name


def test_an_empty_store_has_none(store: Store) -> None:
    found = potential(store)
    nothing = Level(0, 0)
    assert found == Potential(0, 0, 0, 0, 0, nothing, nothing, 0.0, 0, (), found.seconds)


def test_equal_files_of_different_layers_count_once(store: Store) -> None:
    same, one, other = noise(1, 50_000), noise(2, 7_000), noise(3, 9_000)
    first, second = tar(same=same, one=one), tar(other=other, moved=same)
    put(store, "e.x/a:1", first)
    put(store, "e.x/b:1", second, first)
    found = potential(store)
    assert (found.layers, found.files) == (2, 4)
    assert found.stored == found.plain == len(first) + len(second)
    assert found.contents == 2 * len(same) + len(one) + len(other)
    assert found.by_file == Level(found.plain - len(same), found.plain - len(same))
    assert found.deviation == 0.0


def test_equal_parts_of_different_files_count_once(store: Store) -> None:
    whole = noise(1, 2_000_000)
    changed = whole[:1_000_000] + b"inserted" + whole[1_000_000:]
    put(store, "e.x/a:1", tar(file=whole), tar(file=changed))
    found = potential(store)
    assert found.by_file.plain == found.plain
    assert found.plain - 2_000_000 <= found.by_chunk.plain < found.plain - 1_800_000


def test_chunks_are_shared_within_one_file(store: Store) -> None:
    put(store, "e.x/a:1", tar(zeros=bytes(5_000_000)))
    found = potential(store)
    assert found.by_file.plain == found.plain
    assert found.by_chunk.plain < 200_000


def zipped(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


def zstd(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(raw)


@pytest.mark.parametrize(
    ("media_type", "compressed"), [(OCI_LAYER_GZIP, zipped), (OCI_LAYER_ZSTD, zstd)]
)
def test_what_is_saved_is_estimated_compressed(
    store: Store, media_type: str, compressed: Callable[[bytes], bytes]
) -> None:
    text = b"".join(b"line %d of some text\n" % number for number in range(20_000))
    first, second = compressed(tar(a=text, b=noise(1, 1000))), compressed(tar(c=text))
    put(store, "e.x/a:1", first, second, media_type=media_type)
    found = potential(store)
    assert found.stored == len(first) + len(second)
    assert found.plain == len(tar(a=text, b=noise(1, 1000))) + len(tar(c=text))
    assert found.by_file.plain == found.plain - len(text)
    saved = found.stored - found.by_file.stored
    assert len(second) * 0.9 < saved <= len(second)


def test_the_same_layer_compressed_twice_is_one_by_its_files(store: Store) -> None:
    plain = tar(a=noise(1, 30_000))
    put(store, "e.x/a:1", plain, zipped(plain))
    found = potential(store)
    assert found.layers == 2
    assert found.by_file.plain == found.plain - 30_000


def test_a_damaged_layer_is_told_and_counts_for_nothing(store: Store) -> None:
    whole = tar(a=noise(1, 30_000), b=noise(2, 30_000))
    damaged = zipped(whole)[:-20_000]
    put(store, "e.x/a:1", damaged, whole, b"not a tar", media_type=OCI_LAYER_GZIP)
    found = potential(store)
    assert found.layers == 1
    assert found.by_file.plain == found.by_chunk.plain == found.plain == len(whole)
    assert [(what, "ends early" in why) for what, why in found.skipped] == [
        (str(Digest.of(damaged)), True),
        (str(Digest.of(b"not a tar")), False),
    ]


def test_a_sparse_image_lacks_layers_and_an_artifact_has_none(store: Store) -> None:
    put(store, "e.x/a:1", tar(a=b"content"), absent=[Digest.of(b"absent")])
    put(store, "e.x/b:1", b"some SBOM", config="application/vnd.oci.empty.v1+json")
    found = potential(store)
    assert (found.layers, found.absent, found.skipped) == (1, 1, ())


def test_only_the_named_images_count(store: Store) -> None:
    put(store, "e.x/a:1", tar(a=noise(1, 1000)))
    name = put(store, "e.x/b:1", tar(b=noise(2, 2000)))
    assert potential(store, [name]).contents == 2000


def test_an_image_that_lacks_its_manifest_is_told(store: Store) -> None:
    name = put(store, "e.x/a:1", tar(a=noise(1, 1000)))
    put(store, "e.x/b:1", tar(b=noise(2, 2000)))
    [root] = store.layout(name).index().manifests
    store.blobs.delete(root.digest)
    store.layout(name).unlink(root.digest)
    found = potential(store)
    assert found.contents == 2000
    assert found.skipped == (("e.x/a/1", f"{root.digest}: not found"),)


def test_memory_is_bounded_by_sampling(store: Store) -> None:
    files = {f"f{number}": noise(number, 3000) for number in range(400)}
    put(store, "e.x/a:1", tar(**files))
    found = potential(store, limit=200)
    assert 0 < found.deviation < 0.2
    assert abs(found.by_file.plain - found.plain) < 4 * found.deviation * found.plain


class Heard:
    def __init__(self) -> None:
        self.total = 0
        self.steps: list[int] = []

    def begins(self, total: int) -> None:
        self.total = total

    def moves(self, count: int) -> None:
        self.steps.append(count)


def test_how_far_it_is_ends_at_all(store: Store) -> None:
    layers = [tar(a=noise(seed, 3_000_000)) for seed in range(2)]
    put(store, "e.x/a:1", *layers, b"no tar", absent=[Digest.of(b"absent")])
    heard = Heard()
    potential(store, watch=heard)
    assert sum(heard.steps) == heard.total == sum(map(len, layers)) + len(b"no tar") + 1000
    assert len(heard.steps) > 6
    assert min(heard.steps) >= 0
