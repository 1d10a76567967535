from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocistow.lifecycle.files.labels import (
    BuildpackLayers,
    CacheMetadata,
    LayerMetadata,
    LifecycleMetadata,
    RunImageMetadata,
    StackRunImage,
    StoreMetadata,
    mixins,
)
from ocistow.oci.errors import InvalidContent
from ocistow.testing.strategies import documents

BY_GO = (
    '{"app":[{"sha":"sha256:a1"},{"sha":"sha256:a2"}],"sbom":{"sha":"sha256:b"},"buildpacks":[{'
    '"key":"samples/one","version":"0.0.1","layers":{"a":{"sha":"sha256:l","data":{"at":'
    '"2024-01-02T00:00:00Z","n":1,"x":"\\u003c"},"build":false,"launch":true,"cache":false},"b":'
    '{"sha":"","data":null,"build":true,"launch":false,"cache":true}},"store":{"metadata":{"k":'
    '[1.5]}}},{"key":"two","version":"2","layers":{}}],"config":{"sha":"sha256:c"},"launcher":{'
    '"sha":"sha256:d"},"process-types":{"sha":""},"runImage":{"topLayer":"sha256:t","reference":'
    '"r@sha256:0","image":"run","mirrors":["m"]},"stack":{"runImage":{"image":"run","mirrors":["m"]'
    "}}}"
)
OURS = LifecycleMetadata(
    app=("sha256:a1", "sha256:a2"),
    sbom="sha256:b",
    buildpacks=(
        BuildpackLayers(
            "samples/one",
            "0.0.1",
            {
                "b": LayerMetadata("", None, build=True, cache=True),
                "a": LayerMetadata(
                    "sha256:l", {"x": "<", "n": 1, "at": date(2024, 1, 2)}, launch=True
                ),
            },
            StoreMetadata({"k": [1.5]}),
        ),
        BuildpackLayers("two", "2"),
    ),
    config="sha256:c",
    launcher="sha256:d",
    run_image=RunImageMetadata("sha256:t", "r@sha256:0", "run", ("m",)),
    stack=StackRunImage("run", ("m",)),
)


def test_the_label_is_what_go_writes() -> None:
    assert OURS.dump().decode() == BY_GO


@pytest.mark.parametrize("metadata", ["null", "{}"])
def test_a_store_that_says_nothing_is_remembered_as_it_was(metadata: str) -> None:
    old, new = '"store":{"metadata":{"k":[1.5]}}', f'"store":{{"metadata":{metadata}}}'
    assert old in BY_GO
    text = BY_GO.replace(old, new)
    assert LifecycleMetadata.parse(text.encode()).dump().decode() == text


def test_the_label_is_read_and_written_again() -> None:
    assert LifecycleMetadata.parse(BY_GO.encode()).dump().decode() == BY_GO


def test_numbers_are_floats_as_they_are_for_go() -> None:
    raw = b'{"buildpacks":[{"layers":{"a":{"data":{"n":9007199254740993,"big":1e21}}}}]}'
    [buildpack] = LifecycleMetadata.parse(raw).buildpacks
    assert repr(buildpack.layers["a"].data) == "{'n': 9007199254740992.0, 'big': 1e+21}"


def test_what_an_old_image_says_of_the_application_is_kept() -> None:
    old = LifecycleMetadata.parse(b'{"app":{"z":1,"sha":"sha256:a"},"launcher":{"sha":"b"}}')
    assert (old.app, old.launcher) == ((), "b")
    assert old.dump().startswith(b'{"app":{"sha":"sha256:a","z":1},"buildpacks":null,')


def test_null_is_nothing() -> None:
    assert LifecycleMetadata.parse(b'{"app":null,"buildpacks":null,"stack":null,"sbom":null}') == (
        LifecycleMetadata()
    )
    assert LifecycleMetadata().dump() == (
        b'{"app":null,"buildpacks":null,"config":{"sha":""},"launcher":{"sha":""},'
        b'"process-types":{"sha":""},"runImage":{"topLayer":"","reference":""}}'
    )


def test_a_cache_remembers_less() -> None:
    cache = CacheMetadata("sha256:b", OURS.buildpacks[1:])
    raw = b'{"sbom":{"sha":"sha256:b"},"buildpacks":[{"key":"two","version":"2","layers":{}}]}'
    assert cache.dump() == raw
    assert CacheMetadata.parse(raw) == cache
    assert CacheMetadata().dump() == b'{"sbom":{"sha":""},"buildpacks":null}'


def test_mixins_are_an_array_of_strings() -> None:
    assert mixins(b"") == ()
    assert mixins(b'["a","run:b"]') == ("a", "run:b")
    with pytest.raises(InvalidContent):
        mixins(b"[1]")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"launcher":1}',
        b'{"launcher":{"sha":1}}',
        b'{"buildpacks":[{"layers":[]}]}',
        b'{"buildpacks":[{"layers":{"a":{"launch":1}}}]}',
        b'{"buildpacks":[{"layers":{"a":{"data":1' + b"0" * 400 + b"}}}]}",
        b'{"buildpacks":[{"layers":{"a":{"data":' + b"[" * 99 + b"]" * 99 + b"}}}]}",
    ],
)
def test_other_labels_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidContent):
        LifecycleMetadata.parse(raw)


@given(documents() | st.binary())
def test_any_label_is_read_or_refused(raw: bytes) -> None:
    for kind in (LifecycleMetadata, CacheMetadata):
        try:
            read = kind.parse(raw)
        except InvalidContent:
            continue
        assert kind.parse(read.dump()) == read
