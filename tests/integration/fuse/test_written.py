"""Our own archives and layouts on the mount, which has no files without names."""

import errno
import os
import tarfile
from pathlib import Path

import pytest

from ocistow.oci.errors import DigestMismatch
from ocistow.publish.copy import copy
from ocistow.publish.layout import LayoutSource
from ocistow.publish.transports import open_sink
from ocistow.testing.images import GeneratedImage, image_layout

pytestmark = pytest.mark.fuse


def publish(image: GeneratedImage, destination: str) -> None:
    with open_sink(destination) as sink:
        copy(LayoutSource(image.path), sink)


def test_there_are_no_unnamed_files(here: Path) -> None:
    with pytest.raises(OSError, match="not supported") as raised:
        os.open(here, os.O_TMPFILE | os.O_RDWR)
    assert raised.value.errno == errno.EOPNOTSUPP


def test_an_archive_appears_whole(here: Path, image: GeneratedImage) -> None:
    file = here / "a.tar"
    for _ in range(2):
        publish(image, f"oci-archive:{file}:v1")
        with tarfile.open(file) as tar:
            assert len(tar.getnames()) == 7
        assert os.listdir(here) == ["a.tar"]


def test_a_failure_leaves_no_archive(tmp_path: Path, here: Path) -> None:
    image = image_layout(tmp_path / "damaged")
    layer = image.blob(image.layers[1])
    layer.write_bytes(bytes(layer.stat().st_size))
    with pytest.raises(DigestMismatch):
        publish(image, f"oci-archive:{here / 'a.tar'}")
    assert os.listdir(here) == []


def test_a_layout_is_one_of_the_store(here: Path, image: GeneratedImage) -> None:
    publish(image, f"oci:{here / 'v1'}")
    found = LayoutSource(here / "v1")
    assert found.resolve().digest == image.manifest
    for digest in (image.manifest, image.config, *image.layers):
        assert (here / "v1/blobs/sha256" / digest.encoded).stat().st_nlink > 1
