import base64
import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from ocistow.lifecycle.targets.registry import RegistryTarget, known_registries
from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, RegistryError
from ocistow.publish.layout import LayoutSource
from ocistow.publish.source import Blob, Section
from ocistow.store.blobs import BlobStore
from ocistow.store.ingest import Ingest
from ocistow.store.store import Store
from ocistow.testing.faults import Fault, Status
from ocistow.testing.images import GeneratedImage, image_layout, index_layout
from ocistow.testing.registry import Registry

HERE = os.uname().machine


@pytest.fixture
def target(tmp_path: Path) -> RegistryTarget:
    return RegistryTarget({"HOME": str(tmp_path)})


def asked(registry: Registry) -> list[str]:
    return [f"{request.method} {request.path}" for request in registry.requests]


def test_an_image_is_found_by_its_tag(
    registry: Registry, image: GeneratedImage, target: RegistryTarget
) -> None:
    registry.repositories.load(image.path, "app")
    with target.find(f"{registry.host}/app") as found:
        assert found is not None
        assert found.name == f"{registry.host}/app"
        assert found.identifier == f"{registry.host}/app@{image.manifest}"
        assert tuple(layer.diff_id for layer in found.layers) == image.diff_ids
        assert tuple(layer.blob.digest for layer in found.layers) == image.layers
        assert found.top_layer == image.diff_ids[-1]
        identifier = found.identifier
    with target.find(identifier) as again:
        assert again is not None
        assert again.identifier == identifier


def test_of_an_index_the_image_for_this_machine_is_found(
    registry: Registry, tmp_path: Path, target: RegistryTarget
) -> None:
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(HERE, HERE)
    platforms = [("linux", "s390x"), ("linux", here)]
    index = index_layout(tmp_path / "index", platforms=platforms)
    registry.repositories.load(index.path, "app")
    with target.find(f"{registry.host}/app") as found:
        assert found is not None
        assert found.identifier.endswith(f"@{index.images[1].manifest}")
        assert found.config.architecture == here


def test_what_is_absent_hidden_or_for_other_machines_is_not_found(
    registry: Registry, tmp_path: Path, target: RegistryTarget
) -> None:
    with target.find(f"{registry.host}/app") as found:
        assert found is None
    index = index_layout(tmp_path / "index", platforms=[("linux", "s390x")])
    registry.repositories.load(index.path, "app")
    with target.find(f"{registry.host}/app") as found:
        assert found is None
    with Registry(credentials=("user", "secret")) as other, target.find(f"{other.host}/app") as no:
        assert no is None


def test_another_refusal_is_an_error_in_the_words_of_the_lifecycle(
    registry: Registry, target: RegistryTarget
) -> None:
    registry.faults.append(Fault("GET", "/manifests/", Status(403)))
    with (
        pytest.raises(RegistryError, match=f'^connect to repo store "{registry.host}/app": '),
        target.find(f"{registry.host}/app"),
    ):
        pass


def test_what_is_absent_may_be_read(registry: Registry, target: RegistryTarget) -> None:
    target.check_access(["", f"{registry.host}/absent"], [f"{registry.host}/new:tag", ""])
    assert asked(registry)[:2] == ["HEAD /v2/absent/manifests/latest", "HEAD /v2/new/manifests/tag"]
    assert asked(registry)[2] == "POST /v2/new/blobs/uploads/"
    assert asked(registry)[3].startswith("DELETE /v2/new/blobs/uploads/")


@pytest.mark.parametrize(
    ("method", "status", "words"),
    [
        ("HEAD", 401, "failed to ensure registry read access to"),
        ("HEAD", 403, "failed to ensure registry read access to"),
        ("POST", 401, "failed to ensure registry read/write access to"),
        ("POST", 404, "failed to ensure registry read/write access to"),
    ],
)
def test_access_is_tried(
    registry: Registry, target: RegistryTarget, method: str, status: int, words: str
) -> None:
    registry.faults.append(Fault(method, "", Status(status)))
    name = f"{registry.host}/app"
    with pytest.raises(RegistryError, match=f"^{words} {name}: "):
        target.check_access([name], [name])


def test_a_registry_that_is_not_there_cannot_be_read(target: RegistryTarget) -> None:
    with pytest.raises(RegistryError, match=r"^failed to ensure registry read access to 127"):
        target.check_access(["127.0.0.1:1/app"], [])


def test_further_names_are_manifests_alone(
    registry: Registry, image: GeneratedImage, target: RegistryTarget
) -> None:
    names = [f"{registry.host}/app:{tag}" for tag in ("one", "two", "three")]
    saved = target.save(LayoutSource(image.path), names)
    assert saved.names == tuple(names)
    assert (saved.digest, saved.image_id) == (image.manifest, image.config)
    assert saved.manifest_size == image.blob(image.manifest).stat().st_size
    assert not saved.failed
    for tag in ("one", "two", "three"):
        assert registry.repositories.tags("app")[tag] == image.manifest
    uploads = [line for line in asked(registry) if line.startswith("POST")]
    assert len(uploads) == 3
    assert asked(registry)[-2:] == ["PUT /v2/app/manifests/two", "PUT /v2/app/manifests/three"]


def test_layers_of_the_run_image_are_mounted(
    registry: Registry, tmp_path: Path, target: RegistryTarget
) -> None:
    base = image_layout(tmp_path / "run", seed=1, layers=3)
    registry.repositories.load(base.path, "run")
    app = image_layout(tmp_path / "run", seed=2, layers=1, base=base, tag="app")
    with target.find(f"{registry.host}/run"):
        registry.requests.clear()
        target.save(LayoutSource(app.path, "app"), [f"{registry.host}/app"])
    mounts = [line for line in asked(registry) if "mount=" in line]
    assert len(mounts) == 3
    puts = [line for line in asked(registry) if line.startswith("PUT /v2/app/blobs/uploads/")]
    assert len(puts) == 2  # the new layer and the config


def test_a_name_that_is_refused_is_told_and_the_others_are_given(
    registry: Registry, image: GeneratedImage, target: RegistryTarget
) -> None:
    registry.faults.append(Fault("PUT", "/manifests/two", Status(403)))
    names = [f"{registry.host}/app:{tag}" for tag in ("one", "two", "three")]
    saved = target.save(LayoutSource(image.path), names)
    assert saved.names == (names[0], names[2])
    assert [name for name, _ in saved.failed] == [names[1]]


def test_without_any_success_the_first_error_is_raised(
    registry: Registry, image: GeneratedImage, target: RegistryTarget
) -> None:
    other = Digest.of(b"other")
    with pytest.raises(InvalidContent, match="cannot name"):
        target.save(LayoutSource(image.path), [f"{registry.host}/app@{other}"])


def test_the_pool_of_new_layers_is_gone_in_the_end(target: RegistryTarget) -> None:
    with target.staging("app") as pool:
        pool.blobs.add([b"content"])
        path = pool.blobs.path
    assert not path.exists()


def test_credentials_are_known_before_their_file_is_out_of_reach(
    tmp_path: Path, image: GeneratedImage
) -> None:
    auth = base64.b64encode(b"user:secret").decode()
    with Registry(credentials=("user", "secret")) as registry, Registry() as other:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {f"{registry.host}/team": {"auth": auth}}}))
        names = [f"{registry.host}/team/app", f"{other.host}/team/app", "not a name"]
        environ = {"HOME": "/nowhere", "DOCKER_CONFIG": str(tmp_path)}
        known = known_registries(environ, names, [])
        config.unlink()
        target = RegistryTarget(known)
        target.save(LayoutSource(image.path), names[:1])
        target.save(LayoutSource(image.path), names[1:2])
        assert "Authorization" not in {key for r in other.requests for key in r.headers}
        with pytest.raises(RegistryError):
            target.save(LayoutSource(image.path), [f"{registry.host}/another/app"])
        assert "secret" not in repr(target)


def test_what_the_environment_gives_is_kept(tmp_path: Path) -> None:
    given = json.dumps({"a.example.org": "Bearer token"})
    environ = {"HOME": str(tmp_path), "CNB_REGISTRY_AUTH": given}
    known = known_registries(
        environ, ["a.example.org/app", "b.example.org/app"], ["c.org", "d.org"]
    )
    assert json.loads(known["CNB_REGISTRY_AUTH"]) == {
        "a.example.org": "Bearer token",
        "a.example.org/app": "Bearer token",
        "b.example.org/app": "Anonymous",
    }
    assert known_registries(known, ["b.example.org/app"], ["c.org", "d.org"]) == known
    assert known["CNB_INSECURE_REGISTRIES"] == "c.org,d.org"


class Packed:
    """An image of a layout whose layers wait in ingests, as those that were just packed do."""

    sparse = False

    def __init__(self, image: GeneratedImage, pool: BlobStore, stack: ExitStack) -> None:
        self._source = LayoutSource(image.path)
        self._waiting: dict[Digest, Ingest] = {}
        for layer in image.layers:
            ingest = stack.enter_context(pool.ingest())
            ingest.write(image.blob(layer).read_bytes())
            self._waiting[layer] = ingest

    def resolve(self) -> Descriptor:
        return self._source.resolve()

    def open(self, descriptor: Descriptor) -> Blob:
        if (ingest := self._waiting.get(descriptor.digest)) is None:
            return self._source.open(descriptor)
        return Blob(Section(ingest.file, 0, ingest.size), descriptor, ingest.file, ingest)


def test_a_store_keeps_layers_for_the_next_time(
    tmp_path: Path, registry: Registry, image: GeneratedImage
) -> None:
    name = f"{registry.host}/app"
    with Store.create(tmp_path / "store") as store, ExitStack() as stack:
        target = RegistryTarget({}, store=store)
        staging = stack.enter_context(target.staging(name))
        assert staging.recognition is not None
        target.save(Packed(image, staging.blobs, stack), [name])
        assert set(store.blobs) == set(image.layers)
        found = store.locations.find(registry.host, "other", image.layers)
        assert found.elsewhere == dict.fromkeys(image.layers, ("app",))
