import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest

from ocistow.lifecycle.images.assembly import Assembly
from ocistow.lifecycle.images.config import moment
from ocistow.lifecycle.images.image import Image, Layer, Saved, open_image
from ocistow.lifecycle.targets.layout import LayoutTarget, open_layouts
from ocistow.oci.descriptor import REF_NAME, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.oci.platform import Platform
from ocistow.oci.wording import message_of
from ocistow.publish.layout import LayoutSource
from ocistow.publish.packing import pack
from ocistow.publish.source import Blob
from ocistow.store.named_disk import UNFINISHED, NamedDisk
from ocistow.store.store import Store
from ocistow.testing.disk import FailingDisk, QuickDisk
from ocistow.testing.images import GeneratedImage, image_layout, index_layout, sparse_layout

AMD64 = Platform.parse("linux/amd64")
RUN = "index.docker.io/cnb/run/bionic"
APP = "index.docker.io/library/app/latest"


@pytest.fixture(params=["plain", "named", "store"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[LayoutTarget]:
    """A layout directory that holds nothing yet, of each kind."""
    with ExitStack() as stack:
        if request.param == "store":
            store = stack.enter_context(Store.create(tmp_path / "store", QuickDisk()))
            yield LayoutTarget(store.layouts, store=store, platform=AMD64)
        else:
            disk = NamedDisk() if request.param == "named" else QuickDisk()
            yield LayoutTarget(tmp_path / "oci", platform=AMD64, disk=disk)


@pytest.fixture
def plain(tmp_path: Path) -> LayoutTarget:
    return LayoutTarget(tmp_path / "oci", platform=AMD64, disk=QuickDisk())


def found(target: LayoutTarget, reference: str) -> Image | None:
    with target.find(reference) as image:
        return image


def there(target: LayoutTarget, reference: str) -> Image:
    image = found(target, reference)
    assert image is not None
    return image


def export(target: LayoutTarget, base: Image, content: bytes, *names: str) -> tuple[Saved, Layer]:
    """Put one layer upon a base and save that under some names."""
    with target.staging(names[0]) as staging, staging.blobs.ingest() as ingest:
        layer = pack(BytesIO(content), ingest, "sha256").layer
        new = Layer(layer.diff_id, layer.blob)
        assembly = Assembly(base)
        assembly.add(new, ingest, "new")
        return target.save(assembly.finish(moment(None), with_history=True), names), new


def digests(target: LayoutTarget, image: str) -> set[str]:
    return set(os.listdir(target.directory / image / "blobs/sha256"))


def entries(target: LayoutTarget, image: str) -> list[dict[str, object]]:
    document = json.loads((target.directory / image / "index.json").read_text())
    found: list[dict[str, object]] = document["manifests"]
    return found


def test_an_image_lies_where_its_reference_leads(plain: LayoutTarget) -> None:
    made = image_layout(plain.directory / RUN)
    image = there(plain, "cnb/run:bionic")
    where = f"{plain.directory}/{RUN}"
    assert (image.name, image.identifier) == (where, f"{where}@{made.manifest}")
    assert image.config.diff_ids == made.diff_ids
    assert plain.name("cnb/run:bionic") == where
    assert found(plain, "cnb/run:other") is None
    assert found(plain, "cnb/run") is None


@pytest.mark.parametrize("shape", ["{where}", "{where}@{digest}", "cnb/run@{digest}"])
def test_an_image_is_found_again_by_what_it_was_called(plain: LayoutTarget, shape: str) -> None:
    made = image_layout(plain.directory / RUN)
    digest = plain.directory / f"index.docker.io/cnb/run/sha256/{made.manifest.encoded}"
    shutil.copytree(plain.directory / RUN, digest)
    reference = shape.format(where=plain.directory / RUN, digest=made.manifest)
    assert there(plain, reference).root.digest == made.manifest


def test_the_digest_of_an_identifier_is_that_of_the_image(plain: LayoutTarget) -> None:
    image_layout(plain.directory / RUN)
    other = Digest.of(b"other")
    with pytest.raises(InvalidContent, match=f"now, not {other}"):
        found(plain, f"{plain.directory / RUN}@{other}")


def test_a_directory_may_have_an_at_sign(tmp_path: Path) -> None:
    target = LayoutTarget(tmp_path / "a@b", platform=AMD64)
    image_layout(target.directory / RUN)
    assert there(target, there(target, "cnb/run:bionic").identifier).name.endswith(RUN)


def test_a_relative_directory_is_no_part_of_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = LayoutTarget(Path("index.docker.io"), platform=AMD64)
    made = image_layout(tmp_path / "index.docker.io" / RUN)
    assert there(target, "index.docker.io/cnb/run:bionic").name == f"{target.directory}/{RUN}"
    identifier = f"index.docker.io/{RUN}@{made.manifest}"  # as Go's analyzer writes it
    assert there(target, identifier).name == f"{target.directory}/{RUN}"


@pytest.mark.parametrize("reference", ["/etc", "/etc@sha256:" + "0" * 64, "a/../../b", "../b"])
def test_no_image_lies_elsewhere(plain: LayoutTarget, reference: str) -> None:
    with pytest.raises(InvalidContent):
        found(plain, reference)


@pytest.mark.parametrize("name", ["cnb/my-stack-run", "cnb/my-stack-run:bionic"])
def test_an_image_may_lie_where_its_name_leads_as_it_is_written(
    plain: LayoutTarget, name: str
) -> None:
    made = image_layout(plain.directory / "cnb/my-stack-run", tag="bionic")
    assert there(plain, name).root.digest == made.manifest
    assert there(plain, name).name == f"{plain.directory}/cnb/my-stack-run"


def test_there_the_tag_chooses_the_image(plain: LayoutTarget) -> None:
    path = plain.directory / "cnb/my-stack-run"
    one, two = (image_layout(path, seed=n, tag=t) for n, t in enumerate(["latest", "bionic"]))
    assert there(plain, "cnb/my-stack-run").root.digest == one.manifest
    assert there(plain, "cnb/my-stack-run:bionic").root.digest == two.manifest
    with pytest.raises(InvalidContent, match="several images"):
        found(plain, "cnb/my-stack-run:other")


def test_the_full_path_comes_first(plain: LayoutTarget) -> None:
    image_layout(plain.directory / "cnb/run", seed=1)
    made = image_layout(plain.directory / RUN)
    assert there(plain, "cnb/run:bionic").root.digest == made.manifest
    assert plain.places("cnb/run:bionic") == (
        f"{plain.directory}/cnb/run",
        f"{plain.directory}/{RUN}",
    )


def test_of_an_index_the_platform_chooses(plain: LayoutTarget) -> None:
    made = index_layout(plain.directory / RUN)
    assert there(plain, "cnb/run:bionic").root.digest == made.images[0].manifest
    other = LayoutTarget(plain.directory, platform=Platform.parse("linux/s390x"))
    with pytest.raises(InvalidContent, match=r"linux/s390x in .*there: linux/amd64"):
        found(other, "cnb/run:bionic")


def test_of_several_manifests_the_platform_chooses(plain: LayoutTarget) -> None:
    made = index_layout(plain.directory / RUN)
    index = plain.directory / RUN / "index.json"
    inner = plain.directory / RUN / "blobs/sha256" / made.index.encoded
    index.write_bytes(inner.read_bytes())
    assert there(plain, "cnb/run:bionic").root.digest == made.images[0].manifest


def test_an_index_that_is_still_empty_is_no_image(plain: LayoutTarget) -> None:
    image_layout(plain.directory / RUN)
    (plain.directory / RUN / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    assert found(plain, "cnb/run:bionic") is None


def test_an_image_is_saved_whole_under_all_of_its_names(
    target: LayoutTarget, tmp_path: Path
) -> None:
    made = image_layout(tmp_path / "run")
    saved, layer = export(target, opened(made), b"content", "app", "other/app:2")
    other = "index.docker.io/other/app/2"
    assert saved.names == (f"{target.directory}/{APP}", f"{target.directory}/{other}")
    assert saved.failed == ()
    for path, tag in ((APP, "latest"), (other, "2")):
        [entry] = entries(target, path)
        assert entry["annotations"] == {REF_NAME: tag}
        assert entry["digest"] == str(saved.digest)
        image = there(target, str(target.directory / path))
        assert saved.image_id == Digest.of(image.config.encode())
        assert saved.manifest_size == image.root.size
        blobs = {image.root.digest, saved.image_id, *made.layers, layer.blob.digest}
        assert digests(target, path) == {digest.encoded for digest in blobs}
        for digest in blobs:
            file = target.directory / path / "blobs/sha256" / digest.encoded
            assert Digest.of(file.read_bytes()) == digest


def test_what_was_not_saved_leaves_nothing(target: LayoutTarget) -> None:
    with target.staging("app") as staging, staging.blobs.ingest() as ingest:
        ingest.write(b"content")
    assert not target.directory.exists() or os.listdir(target.directory) == []


def test_a_packed_layer_is_only_named(plain: LayoutTarget, tmp_path: Path) -> None:
    base = opened(image_layout(tmp_path / "run"))
    with plain.staging("app") as staging, staging.blobs.ingest() as ingest:
        layer = pack(BytesIO(b"content"), ingest, "sha256").layer
        assembly = Assembly(base)
        assembly.add(Layer(layer.diff_id, layer.blob), ingest, "new")
        plain.save(assembly.finish(moment(None), with_history=True), ["app"])
        file = plain.directory / APP / "blobs/sha256" / layer.blob.digest.encoded
        assert file.stat().st_ino == os.fstat(ingest.file).st_ino


def test_files_are_for_all_users(plain: LayoutTarget, tmp_path: Path) -> None:
    base = opened(image_layout(tmp_path / "run"))
    before = os.umask(0o077)
    try:
        export(plain, base, b"content", "app")
    finally:
        os.umask(before)
    files = [path for path in (plain.directory / APP).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_the_image_before_leaves_no_blobs_behind(plain: LayoutTarget, tmp_path: Path) -> None:
    run = image_layout(tmp_path / "run")
    _, old = export(plain, opened(run), b"old", "app")
    stranger = plain.directory / APP / "blobs/sha256" / Digest.of(b"stranger").encoded
    stranger.write_bytes(b"stranger")
    saved, new = export(plain, opened(run), b"new", "app")
    assert saved.digest is not None
    kept = {saved.digest, saved.image_id, new.blob.digest, *run.layers, Digest.of(b"stranger")}
    assert digests(plain, APP) == {digest.encoded for digest in kept}
    assert old.blob.digest.encoded not in digests(plain, APP)


def test_what_was_attached_to_the_same_image_stays(target: LayoutTarget, tmp_path: Path) -> None:
    run = opened(image_layout(tmp_path / "run"))
    export(target, run, b"content", "app")
    image_layout(target.directory / APP, seed=5, layers=1, tag="signature")
    before = entries(target, APP)
    assert len(before) == 2
    export(target, run, b"content", "app")
    assert sorted(map(str, entries(target, APP))) == sorted(map(str, before))
    export(target, run, b"other", "app")
    assert len(entries(target, APP)) == 1


def test_a_damaged_blob_is_not_believed(plain: LayoutTarget, tmp_path: Path) -> None:
    run = opened(image_layout(tmp_path / "run"))
    _, layer = export(plain, run, b"content", "app")
    for digest in (layer.blob.digest, run.layers[0].blob.digest):
        file = plain.directory / APP / "blobs/sha256" / digest.encoded
        file.chmod(0o644)
        file.write_bytes(bytes(file.stat().st_size))
    export(plain, run, b"content", "app")
    for digest in (layer.blob.digest, run.layers[0].blob.digest):
        file = plain.directory / APP / "blobs/sha256" / digest.encoded
        assert Digest.of(file.read_bytes()) == digest


def test_a_sparse_run_image_makes_a_sparse_image(target: LayoutTarget, tmp_path: Path) -> None:
    run = sparse_layout(tmp_path / "run")
    saved, layer = export(target, opened(run), b"content", "app")
    assert saved.digest is not None
    absent = {digest.encoded for digest in run.layers if not run.blob(digest).exists()}
    assert len(absent) == 2
    assert not absent & digests(target, APP)
    assert layer.blob.digest.encoded in digests(target, APP)


def test_one_name_may_fail_and_another_not(plain: LayoutTarget, tmp_path: Path) -> None:
    run = opened(image_layout(tmp_path / "run"))
    (plain.directory / "index.docker.io/library/bad").mkdir(parents=True)
    (plain.directory / "index.docker.io/library/bad/latest").write_text("a file")
    saved, _ = export(plain, run, b"content", "app", "bad")
    assert saved.names == (f"{plain.directory}/{APP}",)
    [(name, why)] = saved.failed
    assert name.endswith("bad/latest")
    assert why


def test_a_full_disk_is_told_with_the_image_that_needs_it(tmp_path: Path) -> None:
    run = opened(image_layout(tmp_path / "run"))
    target = LayoutTarget(tmp_path / "oci", platform=AMD64, disk=FailingDisk(0, only="write"))
    with pytest.raises(OSError, match="No space left") as refused:
        export(target, run, b"content", "app")
    assert message_of(refused.value) == f"{tmp_path}/oci/{APP}: No space left on device"


def test_what_a_killed_exporter_left_goes_with_the_next_export(
    plain: LayoutTarget, tmp_path: Path
) -> None:
    target = LayoutTarget(plain.directory, platform=AMD64, disk=NamedDisk())
    blobs = target.directory / APP / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    left, new, held = (blobs / f"{UNFINISHED}{name}" for name in ("left", "new", "held"))
    for file in (left, new, held):
        file.write_bytes(b"half a layer")
    for file in (left, held):
        os.utime(file, (1, 1))
    with held.open() as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        export(target, opened(image_layout(tmp_path / "run")), b"content", "app")
    assert [file.exists() for file in (left, new, held)] == [False, True, True]


def test_no_name_at_all_is_a_failure(plain: LayoutTarget, tmp_path: Path) -> None:
    run = image_layout(tmp_path / "run")
    image = opened(run)
    old = image_layout(tmp_path / "old", seed=2)
    assembly = Assembly(image, opened(old))
    assembly.reuse(old.diff_ids[0], "")
    old.blob(old.layers[0]).unlink()
    with pytest.raises(NotFound):
        plain.save(assembly.finish(moment(None), with_history=True), ["app"])
    assert found(plain, "app") is None


class Counting(LayoutSource):
    """A layout that notes which blobs were opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened: set[Digest] = set()

    def open(self, descriptor: Descriptor) -> Blob:
        self.opened.add(descriptor.digest)
        return super().open(descriptor)


def test_in_a_store_no_layer_of_the_base_is_opened(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        target = LayoutTarget(store.layouts, store=store, platform=AMD64)
        export(target, opened(image_layout(tmp_path / "run")), b"base", "cnb/run:bionic")
        source = Counting(store.layouts / RUN)
        root = source.resolve()
        run = open_image("run", "", source, root)
        source.opened.clear()
        export(target, run, b"content", "app", "app:2")
    assert source.opened == set()


def test_a_store_is_recognised_by_what_lies_beside_its_layouts(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", QuickDisk()) as store:
        pass
    with open_layouts(store.layouts) as target, target.staging("app") as staging:
        assert staging.blobs.path == tmp_path / "store/blobs"
    (tmp_path / "layouts").mkdir()
    with open_layouts(tmp_path / "layouts") as target, target.staging("app") as staging:
        assert staging.blobs.path == tmp_path / "layouts" / APP / "blobs"


def opened(made: GeneratedImage) -> Image:
    source = LayoutSource(made.path)
    root = source.resolve()
    return open_image(str(made.path), f"{made.path}@{root.digest}", source, root)
