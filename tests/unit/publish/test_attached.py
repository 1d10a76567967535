import json
from pathlib import Path

import pytest

from ocistow.oci.descriptor import Descriptor
from ocistow.oci.digest import Digest
from ocistow.oci.errors import InvalidContent, NotFound
from ocistow.publish.attached import find_attached
from ocistow.publish.moved import moved
from ocistow.publish.source import read_document
from ocistow.testing.images import GeneratedImage, artifact_layout, image_layout


@pytest.fixture
def image(tmp_path: Path) -> GeneratedImage:
    return image_layout(tmp_path / "app" / "1", layers=1, tag="1")


def listing(digest: Digest) -> str:
    return f"sha256-{digest.encoded}"


def test_nothing_is_attached_to_most_images(image: GeneratedImage) -> None:
    found = find_attached([image.manifest], image.path, image.path.parent)
    assert not found.referrers
    assert not found.tagged


def test_what_cosign_saved_has_no_name_but_a_kind(image: GeneratedImage) -> None:
    signature = artifact_layout(image.path, [b"signature"], tag="x")
    attestation = artifact_layout(image.path, [b"attestation"], tag="y")
    file = image.path / "index.json"
    index = json.loads(file.read_bytes())
    kinds = ("image", "sigs", "atts")
    for entry, kind in zip(index["manifests"], kinds, strict=True):
        entry["annotations"] = {"kind": f"dev.cosignproject.cosign/{kind}"}
    file.write_text(json.dumps(index))
    found = find_attached([image.manifest], image.path)
    assert [(one.tag, one.what.root.digest) for one in found.tagged] == [
        (f"{listing(image.manifest)}.att", attestation),
        (f"{listing(image.manifest)}.sig", signature),
    ]


def test_what_refers_to_a_referrer_is_found_too(image: GeneratedImage) -> None:
    sbom = artifact_layout(image.path, [b"sbom"], tag="", subject=image)
    as_image = GeneratedImage(image.path, sbom, image.config, (), ())
    beside = image.path.parent / listing(sbom)
    signature = artifact_layout(beside, [b"signature"], tag="", subject=as_image)
    tag = artifact_layout(image.path.parent / f"{listing(sbom)}.sig", [b"other"], tag="")
    found = find_attached([image.manifest], image.path, image.path.parent)
    assert [one.root.digest for one in found.referrers[image.manifest]] == [sbom]
    assert [one.root.digest for one in found.referrers[sbom]] == [signature]
    assert [one.what.root.digest for one in found.tagged] == [tag]


def test_what_refers_to_another_image_is_left_out(tmp_path: Path, image: GeneratedImage) -> None:
    other = image_layout(tmp_path / "other", seed=9)
    artifact_layout(image.path, [b"sbom"], tag="sbom", subject=other)
    artifact_layout(image.path, [b"alone"], tag="alone")
    found = find_attached([image.manifest], image.path, image.path.parent)
    assert not found.referrers
    assert not found.tagged


def test_what_leads_out_of_a_layout_is_refused(tmp_path: Path, image: GeneratedImage) -> None:
    artifact_layout(tmp_path / "secret", [b"sbom"], tag="", subject=image)
    beside = image.path.parent / listing(image.manifest)
    beside.mkdir()
    (beside / "index.json").symlink_to(tmp_path / "secret" / "index.json")
    with pytest.raises(InvalidContent, match="leads out of"):
        find_attached([image.manifest], image.path, image.path.parent)


def test_a_manifest_that_is_mentioned_must_be_there(image: GeneratedImage) -> None:
    sbom = artifact_layout(image.path, [b"sbom"], tag="", subject=image)
    image.blob(sbom).unlink()
    with pytest.raises(NotFound):
        find_attached([image.manifest], image.path)


def test_a_tagged_artifact_moves_to_another_subject_and_a_signature_stays(
    image: GeneratedImage,
) -> None:
    chart = artifact_layout(image.path, [b"chart"], tag="chart", subject=image)
    envelope = artifact_layout(image.path, [b"notation"], tag="", subject=image)
    cosign = artifact_layout(image.path, [b"cosign"], tag=f"{listing(image.manifest)}.sig")
    found = find_attached([image.manifest], image.path)
    new = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"new"), 3)
    after, left = moved(found, image.manifest, new)
    assert set(left) == {envelope, cosign}
    [one] = after.referrers[new.digest]
    assert [tagged.tag for tagged in after.tagged] == ["chart"]
    assert after.tagged[0].what is one
    document = json.loads(read_document(one.source, one.root))
    before = json.loads(image.blob(chart).read_bytes())
    subject = {"mediaType": new.media_type, "digest": str(new.digest), "size": 3}
    assert document == {**before, "subject": subject}


def test_what_is_signed_itself_does_not_move(image: GeneratedImage) -> None:
    chart = artifact_layout(image.path, [b"chart"], tag="chart", subject=image)
    as_image = GeneratedImage(image.path, chart, image.config, (), ())
    artifact_layout(image.path, [b"signature"], tag="", subject=as_image)
    found = find_attached([image.manifest], image.path)
    new = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"new"), 3)
    after, left = moved(found, image.manifest, new)
    assert not after.tagged
    assert left == [chart]
