import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from ocistow.lifecycle.console import Console
from ocistow.lifecycle.images.image import Image, Saved
from ocistow.lifecycle.images.saving import save
from ocistow.lifecycle.images.staging import Staging
from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent
from ocistow.publish.source import Blob, Source

MANIFEST = Digest.of(b"manifest")
CONFIG = Digest.of(b"config")


class Nowhere:
    """A target that has saved whatever it is told to have saved."""

    def __init__(self, saved: Saved, *, keeps_identifier: bool = False) -> None:
        self._saved = saved
        self.keeps_identifier = keeps_identifier

    def find(self, reference: str) -> AbstractContextManager[Image | None]:
        raise NotImplementedError

    def name(self, reference: str) -> str:
        return f"the {reference}"

    def check_access(self, readable: Sequence[str], writable: Sequence[str]) -> None:
        raise NotImplementedError

    def staging(self, reference: str) -> AbstractContextManager[Staging]:
        raise NotImplementedError

    def save(self, source: Source, references: Sequence[str]) -> Saved:
        return self._saved


class NoSource:
    sparse = False

    def resolve(self) -> Descriptor:
        raise NotImplementedError

    def open(self, descriptor: Descriptor) -> Blob:
        raise NotImplementedError


SAVED = Saved(("the a", "the b"), MANIFEST, CONFIG, 123)


def said(saved: Saved, *, keeps_identifier: bool = False) -> list[str]:
    out = io.BytesIO()
    target = Nowhere(saved, keeps_identifier=keeps_identifier)
    try:
        assert save(target, NoSource(), ("a", "b"), Console(out)) == saved
    finally:
        lines = out.getvalue().decode().splitlines()
    assert lines[0].startswith("Timer: Saving the a... started at ")
    assert lines[-1].startswith("Timer: Saving the a... ran for ")
    return lines[1:-1]


def test_names_and_digest_are_told() -> None:
    assert said(SAVED) == [
        "Saving the a...",
        f"*** Images ({MANIFEST}):",
        "      the a",
        "      the b",
        "",
        f"*** Digest: {MANIFEST}",
        "",
        "*** Manifest Size: 123",
    ]


@pytest.mark.parametrize("digest", [MANIFEST, None])
def test_a_daemon_calls_images_by_their_configs(digest: Digest | None) -> None:
    lines = said(replace(SAVED, digest=digest, manifest_size=0), keeps_identifier=True)
    assert lines[1] == f"*** Images ({CONFIG.encoded[:12]}):"
    assert lines[4:] == ["", f"*** Image ID: {CONFIG.encoded}"]


def test_names_that_could_not_be_given_are_told_with_the_cause() -> None:
    out = io.BytesIO()
    saved = replace(SAVED, names=("the a",), failed=(("the b", "no room"), ("the c", "no luck")))
    with pytest.raises(InvalidContent) as refused:
        save(Nowhere(saved), NoSource(), ("a", "b", "c"), Console(out))
    assert str(refused.value) == (
        "failed to write image to the following tags: [the b: no room],[the c: no luck]"
    )
    assert b"      the a\n      the b - no room\n      the c - no luck\n" in out.getvalue()
