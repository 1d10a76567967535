"""Random stores against a model that knows nothing but inodes, and against `rm` and `gc`."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.audit.glance import glance
from ocistow.audit.usage import usage
from ocistow.oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.disk import QuickDisk

SIZES = (100, 5_000, 30_000, 70_000)  # bytes of layers: few blocks, and many
NAMES = ("e.x/a:1", "e.x/a:2", "e.x/a/b:1", "e.x/c:1", "f.x/a:1")
Inodes = dict[tuple[int, int], int]

layers = st.integers(0, len(SIZES) - 1)
places = st.integers(0, len(NAMES) - 1)


@dataclass(frozen=True)
class Plan:
    """What to do to a store; places and layers that do not exist mean nothing.

    images: the layers of each of `NAMES`.
    absent: layers that a layout lacks.
    copies: layers of which a layout has a copy.
    evicted: layers that the pool lacks.
    useless: layers that a layout has although its index does not mention them.
    foreign: files in a layout: their sizes.
    linked: blobs of a layout that are also ordinary files there.
    nested: layouts with another inside, by plain files.
    elsewhere: layers with a link outside the store.
    garbage: layers that the pool has in any case.
    removed: layouts whose removal was interrupted.
    stray: the size of a file beside the layouts.
    """

    images: tuple[tuple[int, ...], ...]
    absent: frozenset[tuple[int, int]]
    copies: frozenset[tuple[int, int]]
    evicted: frozenset[int]
    useless: frozenset[tuple[int, int]]
    foreign: frozenset[tuple[int, int]]
    linked: frozenset[tuple[int, int]]
    nested: frozenset[int]
    elsewhere: frozenset[int]
    garbage: frozenset[int]
    removed: frozenset[int]
    stray: int


def some(of: st.SearchStrategy[tuple[int, int]]) -> st.SearchStrategy[frozenset[tuple[int, int]]]:
    return st.frozensets(of, max_size=2)


plans = st.builds(
    Plan,
    st.lists(st.lists(layers, max_size=4, unique=True).map(tuple), min_size=1, max_size=5).map(
        tuple
    ),
    some(st.tuples(places, layers)),
    some(st.tuples(places, layers)),
    st.frozensets(layers, max_size=1),
    some(st.tuples(places, layers)),
    some(st.tuples(places, st.sampled_from((1, 5_000)))),
    some(st.tuples(places, layers)),
    st.frozensets(places, max_size=1),
    st.frozensets(layers, max_size=1),
    st.frozensets(layers, max_size=2),
    st.frozensets(places, max_size=1),
    st.sampled_from((0, 5_000)),
)


def content(layer: int) -> bytes:
    return bytes([layer]) * SIZES[layer]


def digest(layer: int) -> Digest:
    return Digest.of(content(layer))


def build(plan: Plan, path: Path) -> Store:
    """Make the store of a plan; the same plan makes the same."""
    store = Store.create(path / "store", QuickDisk())
    (path / "elsewhere").mkdir()
    for place, image in enumerate(plan.images):
        store.put(Reference.parse(NAMES[place]), manifest(store, place, image))
    for layer in plan.garbage:
        store.blobs.add([content(layer)])
    for place in range(len(plan.images)):
        change(plan, store, place)
    for layer in plan.elsewhere & {layer for image in plan.images for layer in image}:
        os.link(
            store.blobs.path / "sha256" / digest(layer).encoded, path / "elsewhere" / str(layer)
        )
    for layer in plan.evicted:
        store.blobs.delete(digest(layer))
    if plan.stray:
        (store.layouts / "stray").write_bytes(b"x" * plan.stray)
    return store


def manifest(store: Store, place: int, image: tuple[int, ...]) -> Descriptor:
    config = json.dumps({"os": "linux", "architecture": "amd64", "author": str(place)}).encode()
    described = [
        Descriptor(OCI_LAYER_GZIP, store.blobs.add([content(layer)]), SIZES[layer]).to_document()
        for layer in image
    ]
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, store.blobs.add([config]), len(config)).to_document(),
            "layers": described,
        }
    ).encode()
    return Descriptor(OCI_MANIFEST, store.blobs.add([raw]), len(raw))


def change(plan: Plan, store: Store, place: int) -> None:
    layout = store.layouts / Reference.parse(NAMES[place]).path
    blobs = layout / "blobs" / "sha256"
    for layer in range(len(SIZES)):
        blob, pooled = blobs / digest(layer).encoded, store.blobs.path / "sha256"
        if (place, layer) in plan.linked and blob.exists():
            os.link(blob, layout / f"linked-{layer}")
        if (place, layer) in plan.useless and not blob.exists() and digest(layer) in store.blobs:
            os.link(pooled / digest(layer).encoded, blob)
        if (place, layer) in plan.copies and blob.exists():
            blob.unlink()
            blob.write_bytes(content(layer))
        if (place, layer) in plan.absent:
            blob.unlink(missing_ok=True)
    for number, size in plan.foreign:
        if number == place:
            (layout / "deep").mkdir(exist_ok=True)
            (layout / "deep" / f"foreign-{size}").write_bytes(b"x" * size)
    if place in plan.nested:
        inner = layout / "within" / "blobs" / "sha256"
        inner.mkdir(parents=True)
        for file in blobs.iterdir():
            os.link(file, inner / file.name)
        (layout / "within" / "index.json").write_bytes((layout / "index.json").read_bytes())
    if place in plan.removed:
        (layout / "index.json").unlink()


def inodes(*tops: Path, but: tuple[Path, ...] = ()) -> Inodes:
    """What files below take, but not below others."""
    return {
        (status.st_dev, status.st_ino): status.st_blocks * 512
        for top in tops
        for directory, _, names in os.walk(top)
        if not any(Path(directory).is_relative_to(other) for other in but)
        for status in (os.lstat(os.path.join(directory, name)) for name in names)
    }


def layouts(store: Store) -> dict[Path, Inodes]:
    tops = [Path(found) for found, _, names in os.walk(store.layouts) if "index.json" in names]
    return {
        top: inodes(top, but=tuple(t for t in tops if t != top and t.is_relative_to(top)))
        for top in tops
    }


def collect(store: Store) -> None:
    Collector(store, grace=0, clock=lambda: time.time() + 3600).collect()


def held(path: Path) -> int:
    """What blobs, layouts and links elsewhere take."""
    tops = [path / "store" / "blobs", path / "store" / "layouts", path / "elsewhere"]
    return sum(inodes(*tops).values())


@settings(max_examples=25)
@given(plans)
def test_every_number_is_what_the_inodes_say(plan: Plan) -> None:
    with TemporaryDirectory() as top, build(plan, Path(top)) as store:
        found = usage(store)
        model = layouts(store)
        assert [store.layouts / cost.name for cost in found.layouts] == sorted(model)
        for cost in found.layouts:
            mine = model[store.layouts / cost.name]
            others = {key for other in model.values() if other is not mine for key in other}
            assert cost.on_disk == sum(mine.values())
            assert cost.exclusive == sum(size for key, size in mine.items() if key not in others)
        union = {key: size for mine in model.values() for key, size in mine.items()}
        assert found.total.on_disk == sum(union.values())
        assert found.total.on_disk == sum(cost.amortised for cost in found.layouts)
        assert sum(cost.exclusive for cost in found.layouts) <= found.total.on_disk
        directories = [store.path, *(p for p in store.path.rglob("*") if p.is_dir())]
        assert found.directories == sum(p.stat().st_blocks * 512 for p in directories)
        assert found.everything == sum(inodes(store.path).values()) + found.directories


@settings(max_examples=15)
@given(plans)
def test_removing_a_name_frees_what_was_said(plan: Plan) -> None:
    with TemporaryDirectory() as top:
        (Path(top) / "0").mkdir()
        with build(plan, Path(top) / "0") as store:
            found = usage(store)
            before = held(Path(top) / "0")
            collect(store)
            least = held(Path(top) / "0")
            assert found.garbage == before - least
        for number, cost in enumerate(found.layouts, 1):
            path = Path(top) / str(number)
            path.mkdir()
            with build(plan, path) as store:
                store.layout(cost.name).remove()
                collect(store)
                assert cost.reclaimable == least - held(path), cost.name


@settings(max_examples=25)
@given(plans)
def test_a_glance_says_the_same_unless_others_have_names_that_it_cannot_see(plan: Plan) -> None:
    plain = replace(plan, linked=frozenset(), nested=frozenset(), elsewhere=frozenset())
    plain = replace(plain, absent=frozenset(), removed=frozenset(), useless=frozenset())
    with TemporaryDirectory() as top, build(plain, Path(top)) as store:
        found = usage(store)
        for cost in found.layouts:
            seen = glance(store, [cost.name])
            if seen is not None:
                [one] = seen.layouts
                assert abs(one.amortised - cost.amortised) <= 10  # what cannot be divided
                assert one.reclaimable >= cost.reclaimable
                if not plain.copies:  # another's, which needs the pool's blob all the same
                    assert replace(one, amortised=cost.amortised) == cost
                    assert seen.total.reclaimable == cost.reclaimable
                assert seen.total.exclusive == cost.exclusive
        if (seen := glance(store, found.names)) is not None:
            assert seen.total.on_disk == found.total.on_disk == seen.total.exclusive
            assert seen.total.reclaimable == found.total.reclaimable
        assert plain.copies or plain.evicted or seen is not None
