import json
from pathlib import Path

from ocistow.audit.layers import METADATA, layers
from ocistow.oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.reference import Reference
from ocistow.store.store import Store

DIFF = [f"sha256:{number:064}" for number in range(4)]


def put(store: Store, name: str, contents: list[bytes], config: dict[str, object]) -> None:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": DIFF[: len(contents)]},
        **config,
    }
    raw = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, store.blobs.add([raw]), len(raw)).to_document(),
        "layers": [
            Descriptor(OCI_LAYER_GZIP, store.blobs.add([c]), len(c)).to_document() for c in contents
        ],
    }
    text = json.dumps(manifest).encode()
    root = Descriptor(OCI_MANIFEST, store.blobs.add([text]), len(text))
    store.put(Reference.parse(name), root)


def test_layers_say_who_shares_them_and_what_made_them(tmp_path: Path) -> None:
    history = [
        {"created_by": "FROM scratch", "empty_layer": True},
        {"created_by": "COPY big"},
        {"created_by": "RUN step"},
    ]
    with Store.create(tmp_path / "store") as store:
        put(store, "e.x/a:1", [b"b" * 50_000, b"s"], {"history": history})
        put(store, "e.x/b:1", [b"b" * 50_000], {})
        put(store, "e.x/b:2", [b"b" * 50_000, b"gone" * 9000], {})
        gone = Digest.of(b"gone" * 9000)
        store.blobs.delete(gone)
        (store.layouts / "e.x/b/2/blobs/sha256" / gone.encoded).unlink()
        big, small, absent = layers(store)
        assert (big.digest, big.size) == (Digest.of(b"b" * 50_000), 50_000)
        assert big.on_disk == store.blobs.stat(big.digest).st_blocks * 512
        assert [str(name) for name in big.images] == ["e.x/a/1", "e.x/b/1", "e.x/b/2"]
        assert big.created_by == "COPY big"
        assert (small.created_by, small.images) == ("RUN step", [Reference.parse("e.x/a:1").path])
        assert (absent.digest, absent.size, absent.on_disk) == (gone, 36_000, 0)
        assert absent.is_absent
        [only] = layers(store, {Reference.parse("e.x/b:1").path})
        assert (only.digest, len(only.images)) == (big.digest, 3)


def test_the_lifecycle_says_which_buildpack_made_a_layer(tmp_path: Path) -> None:
    metadata = {
        "app": [{"sha": DIFF[1]}],
        "launcher": {"sha": DIFF[2]},
        "buildpacks": [{"key": "e/node", "version": "1", "layers": {"deps": {"sha": DIFF[0]}}}],
    }
    with Store.create(tmp_path / "store") as store:
        labels = {METADATA: json.dumps(metadata)}
        put(store, "e.x/a:1", [b"1", b"22", b"333", b"4444"], {"config": {"Labels": labels}})
        made = {layer.size: layer.created_by for layer in layers(store)}
        assert made == {1: "buildpack e/node, layer deps", 2: "app, slice 1", 3: "launcher", 4: ""}


def test_nonsense_in_a_config_hides_no_layer(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        for number, odd in enumerate(("{", "[]", '{"app": 1}', '{"buildpacks": [{"layers": 3}]}')):
            put(
                store,
                f"e.x/a:{number}",
                [b"x" * (number + 1)],
                {"config": {"Labels": {METADATA: odd}}},
            )
        assert [layer.created_by for layer in layers(store)] == [""] * 4
