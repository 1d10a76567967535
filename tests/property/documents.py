"""A document of each kind that comes from outside, as its parser accepts it."""

from ocistow.oci.descriptor import OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from ocistow.testing.minimal import minimal_image

H = "0" * 64
DIGEST = f"sha256:{H}"
IMAGE = minimal_image("a")
CONFIG, MANIFEST = (content for _, content in list(IMAGE.blobs.items())[-2:])
MANIFEST_DESCRIPTOR = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 1}
LAYER = {"mediaType": OCI_LAYER_GZIP, "digest": DIGEST, "size": 1}
OF_MANIFEST: dict[str, object] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {**LAYER, "digest": f"sha256:{'1' * 64}"},
    "layers": [LAYER],
    "annotations": {"a": "b"},
}
OF_INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {
            **MANIFEST_DESCRIPTOR,
            "annotations": {"a": "b"},
            "platform": {"os": "linux", "architecture": "amd64", "os.features": ["a"]},
        }
    ],
}
OF_ROOT = {"schemaVersion": 2, "manifests": [dict(IMAGE.root.to_document())]}
LABEL_LAYER = {"sha": DIGEST, "data": {"a": [1]}, "build": True, "launch": True, "cache": False}
OF_LABEL = {
    "app": [{"sha": DIGEST}],
    "buildpacks": [
        {
            "key": "a",
            "version": "1",
            "layers": {"l": LABEL_LAYER},
            "store": {"metadata": {"a": 1}},
        }
    ],
    "config": {"sha": DIGEST},
    "sbom": {"sha": DIGEST},
    "runImage": {"topLayer": DIGEST, "reference": "e.x/a@" + DIGEST, "mirrors": ["e.x/b"]},
    "stack": {"runImage": {"image": "e.x/a", "mirrors": ["e.x/b"]}},
}
OF_CONFIG: dict[str, object] = {
    "os": "linux",
    "architecture": "amd64",
    "created": "2026-01-01T00:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "a", "empty_layer": False}],
    "config": {"Env": ["A=b"], "Labels": {"a": "b"}, "ExposedPorts": {"1": {}}, "Cmd": ["a"]},
}
ELEMENT = {"id": "a/b", "version": "1", "api": "0.10", "optional": True, "homepage": "a"}
BUILDPACK_METADATA = {
    "buildpacks": [ELEMENT],
    "processes": [{"type": "a", "command": ["a"], "args": ["b"], "direct": True}],
    "slices": [{"paths": ["a"]}],
    "labels": [{"key": "a", "value": "b"}],
    "bom": [{"name": "a", "metadata": {"v": 1}, "buildpack": {"id": "a"}}],
}
RUN = {
    "time": 1,
    "images": 1,
    "apparent": 1,
    "onDisk": 1,
    "separate": 1,
    "unreferenced": 1,
    "everything": 1,
    "repositories": {"e.x/a": 1},
}
JOURNAL_ENTRY = {
    "top": "/a",
    "path": f"b/blobs/sha256/{H}",
    "digest": DIGEST,
    **dict.fromkeys(
        ["device", "inode", "links", "size", "mode", "user", "group", "accessed", "modified"], 1
    ),
}
REQUIRE = {"name": "a"}
OF_REMOTES = {
    "remotes": [{"name": "a", "repository": "e.x/a"}],
    "origins": {"e.x/b": [DIGEST]},
}
DAEMON_IMAGE = {
    "Id": DIGEST,
    "RepoTags": ["a:1"],
    "RepoDigests": ["a@" + DIGEST],
    "Size": 1,
    "SharedSize": -1,
}
