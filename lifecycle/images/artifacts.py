"""Artifacts: what buildpacks want in the registry besides the image, such as a Helm chart.

A layer directory may have an artifacts.toml that names files. Each becomes a manifest of its own
that refers to the image, and is found by the tag it asks for and among the image's referrers.
Source: the draft "Additional OCI Artifacts from Buildpacks"; image-spec, manifest.md,
"Guidelines for Artifact Usage".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from ...oci.descriptor import IMAGE_CONFIGS, OCI_MANIFEST, Descriptor
from ...oci.digest import Digest
from ...oci.document import MAX_DOCUMENT
from ...oci.errors import InvalidContent, NotFound
from ...oci.reference import Reference
from ...oci.wording import quoted
from ...publish.attached import Attached, Tagged
from ...publish.layout import file_blob
from ...publish.referrer import MAX_REFERRERS, Referrer
from ...publish.source import Blob
from ...store.reading import digest_of_file, open_inside
from ..console import Console
from ..files.artifacts import CONFIG_MEDIA_TYPE, CONTENT_MEDIA_TYPE, Declaration, declarations
from ..files.document import parse_toml
from ..files.group import GroupElement
from ..golang import json as gojson
from ..golang.json import Struct
from ..layers.directories import escaped
from .image import Target

ARTIFACTS = "artifacts.toml"
# tags of lists of referrers, and of cosign's signatures
OF_REFERRERS = re.compile(r"(?:sha256|sha512|blake3)-[0-9a-f]{64}(?:\..*)?")

_TITLE = "org.opencontainers.image.title"  # what oras calls the file
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_UNKNOWN_TYPE = "application/vnd.unknown.artifact.v1"  # what oras says when nobody knows
_BYTES_TYPE = "application/octet-stream"
_EMPTY = b"{}"
_IGNORED = ".ignore"  # ends the names of directories that turned out to be no layers
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")  # RFC 6838, 4.2


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that will be an artifact.

    Attributes:
        declared: the artifacts.toml that asks for it.
        file: the file itself; it lies in `layers_dir`, wherever links may lead.
        content: its media type, digest and size.
        config_type: the media type of the config; empty where there is none.
        annotations: of the manifest.
    """

    tag: str
    declared: Path
    file: Path
    layers_dir: Path
    content: Descriptor
    config_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return f"artifact '{self.tag}' of {self.declared}"


@runtime_checkable
class Keeper(Protocol):
    """A target that keeps artifacts."""

    def attach(self, reference: Reference, image: Digest, attached: Attached) -> None:
        """Put what is attached to an image into the repository that has the image.

        Raises:
            InvalidContent, NotFound, RegistryError, OSError: something of it was not put.
        """
        ...


def collect(
    layers_dir: Path, buildpacks: Iterable[GroupElement], references: Sequence[str]
) -> tuple[Artifact, ...]:
    """Return what the layers of buildpacks declare, before the image `references` is saved.

    Layers of every type count, and those without any. Each file is read once, for its digest.

    Raises:
        InvalidContent: a declaration is malformed, its file is none in the layers directory, or
            its tag is taken by another one or by the image.
        OSError: something cannot be read.
    """
    found: list[Artifact] = []
    for buildpack in buildpacks:
        for declared in _declaring(layers_dir / escaped(buildpack.id)):
            found.extend(_read(declared, layers_dir))
            if len(found) > MAX_REFERRERS:
                raise InvalidContent(f"{declared}: there are over {MAX_REFERRERS} artifacts")
    _check_tags(found, references)
    return tuple(found)


def check_names(artifacts: Iterable[Artifact], reference: str, target: Target) -> None:
    """See that no artifact takes its tag from another image of the repository.

    Raises:
        InvalidContent: one does.
        RegistryError: the target cannot tell.
    """
    if not isinstance(target, Keeper):
        return
    for artifact in artifacts:
        if (name := image_of_tag(artifact.tag, reference, target)) is not None:
            raise InvalidContent(f"{artifact} claims the name of the image {name}")


def image_of_tag(tag: str, reference: str, target: Target) -> str | None:
    """Return the name of the image that has a tag in a repository; None for an artifact.

    Raises:
        RegistryError: the target cannot tell.
    """
    name = str(replace(Reference.parse(reference), tag=tag, digest=None))
    try:
        with target.find(name) as image:
            return None if image is None else name
    except (InvalidContent, NotFound):  # what is there is an artifact
        return None


def attach(
    artifacts: Sequence[Artifact], reference: str, target: Target, console: Console
) -> Attached:
    """Put artifacts beside an image that was just saved as `reference`, and return them.

    Raises:
        InvalidContent: a file has changed, or what was saved is no image.
        NotFound, RegistryError, OSError: something was not put.
    """
    if not artifacts:
        return Attached({}, ())
    if not isinstance(target, Keeper):
        tags = ", ".join(artifact.tag for artifact in artifacts)
        console.warn(f"Artifacts are left out, a daemon keeps none: {tags}")
        return Attached({}, ())
    with target.find(reference) as image:
        if image is None:
            raise NotFound(target.name(reference))
        subject = image.root
    attached = _attached(artifacts, subject)
    target.attach(Reference.parse(reference), subject.digest, attached)
    for one in attached.tagged:
        console.info(f"Adding artifact '{one.tag}': {one.what.root.digest}")
    return attached


def _declaring(buildpack: Path) -> Iterator[Path]:
    """Yield every artifacts.toml of a buildpack, in the order of its layers."""
    try:
        with os.scandir(buildpack) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for name in sorted(names, key=os.fsencode):
        path = buildpack / name / ARTIFACTS
        if not name.endswith(_IGNORED) and os.path.lexists(path):
            yield path


def _read(declared: Path, layers_dir: Path) -> Iterator[Artifact]:
    with open(open_inside(declared, layers_dir), "rb") as stream:
        document = parse_toml(stream.read(MAX_DOCUMENT + 1), str(declared))
    for declaration in declarations(document, str(declared)):
        yield _artifact(declaration, declared, layers_dir)


def _artifact(declaration: Declaration, declared: Path, layers_dir: Path) -> Artifact:
    what = f"artifact {quoted(declaration.tag)} of {declared}"
    if _TAG.fullmatch(declaration.tag) is None:
        raise InvalidContent(f"{what}: the tag is not [A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}")
    if OF_REFERRERS.fullmatch(declaration.tag):
        raise InvalidContent(f"{what}: the tag is that of a list of referrers")
    labels = dict(declaration.labels)
    config_type = labels.pop(CONFIG_MEDIA_TYPE, "")
    content_type = labels.pop(CONTENT_MEDIA_TYPE, "")
    for media_type in filter(None, (config_type, content_type)):
        if _MEDIA_TYPE.fullmatch(media_type) is None:
            raise InvalidContent(f"{what}: {quoted(media_type)} is no media type")
    if config_type in IMAGE_CONFIGS:
        raise InvalidContent(f"{what}: {config_type} is the config of an image, which it is not")
    file = _located(declaration.file, what, declared)
    return Artifact(
        declaration.tag,
        declared,
        file,
        layers_dir,
        _described(file, layers_dir, content_type or _BYTES_TYPE, what),
        config_type,
        labels,
    )


def _located(text: str, what: str, declared: Path) -> Path:
    """Return where a file is: relative to the buildpack's directory of layers, or to the layer's.

    The draft has it relative to "the current $LAYERS_DIR", and in its example both can be meant.
    """
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise InvalidContent(f"{what}: {quoted(text)} is no path below the layers directory")
    places = (declared.parent.parent / path, declared.parent / path)
    found = [place for place in places if os.path.lexists(place)]
    if not found:
        raise InvalidContent(f"{what}: {text} is absent, below {places[0].parent} and the layer")
    if len(found) > 1 and not os.path.samefile(*found):
        raise InvalidContent(f"{what}: {text} may be {found[0]} or {found[1]}")
    return found[0]


def _described(file: Path, layers_dir: Path, media_type: str, what: str) -> Descriptor:
    try:
        content = open_inside(file, layers_dir)
    except FileNotFoundError:
        raise InvalidContent(f"{what}: {file} is a link to nothing") from None
    except InvalidContent as error:
        raise InvalidContent(f"{what}: {error}") from error
    try:
        size = os.fstat(content).st_size
        return Descriptor(media_type, digest_of_file(content), size, {_TITLE: file.name})
    finally:
        os.close(content)


def _check_tags(artifacts: Iterable[Artifact], references: Sequence[str]) -> None:
    parsed = [(Reference.parse(reference), reference) for reference in references]
    home = (parsed[0][0].registry, parsed[0][0].repository) if parsed else None
    images = {r.tag: text for r, text in parsed if (r.registry, r.repository) == home}
    claimed: dict[str, Artifact] = {}
    for artifact in artifacts:
        if artifact.tag in images:
            raise InvalidContent(f"{artifact} claims the name of the image {images[artifact.tag]}")
        other = claimed.setdefault(artifact.tag, artifact)
        if other is not artifact:
            raise InvalidContent(
                f"{artifact} claims the tag that {other} claims: "
                f"for {artifact.file} and for {other.file}"
            )


def _attached(artifacts: Iterable[Artifact], subject: Descriptor) -> Attached:
    """Return the manifests of artifacts of an image."""
    referrers: dict[Digest, Referrer] = {}
    tagged: list[Tagged] = []
    for artifact in artifacts:
        source = ArtifactSource(artifact, subject)
        referrer = Referrer(source.resolve(), source)
        referrers[referrer.root.digest] = referrer
        tagged.append(Tagged(artifact.tag, referrer, artifact.declared))
    return Attached({subject.digest: list(referrers.values())}, tagged)


class ArtifactSource:
    """The manifest of an artifact, its config and its file. Thread-safe."""

    sparse = False

    def __init__(self, artifact: Artifact, subject: Descriptor) -> None:
        self._artifact = artifact
        raw, kind = _manifest(artifact, subject)
        self._documents = {Digest.of(raw): raw, Digest.of(_EMPTY): _EMPTY}
        self._root = Descriptor(
            OCI_MANIFEST,
            Digest.of(raw),
            len(raw),
            artifact.annotations,
            given={"artifactType": kind},
        )

    def resolve(self) -> Descriptor:
        """Return the manifest, described as a list of referrers does."""
        return self._root

    def open(self, descriptor: Descriptor) -> Blob:
        """Open the manifest, the config or the file.

        Raises:
            NotFound: it is none of these.
            InvalidContent: the file is no longer what it was.
        """
        if (raw := self._documents.get(descriptor.digest)) is not None:
            return Blob(BytesIO(raw), descriptor)
        if descriptor.digest != self._artifact.content.digest:
            raise NotFound(descriptor.digest)
        return file_blob(open_inside(self._artifact.file, self._artifact.layers_dir), descriptor)


def _manifest(artifact: Artifact, subject: Descriptor) -> tuple[bytes, str]:
    """Return the manifest of an artifact, and its type."""
    content = artifact.content
    config_type = artifact.config_type or _EMPTY_TYPE
    kind = _UNKNOWN_TYPE if content.media_type == _BYTES_TYPE else content.media_type
    document = Struct(
        schemaVersion=2,
        mediaType=OCI_MANIFEST,
        artifactType="" if artifact.config_type else kind,
        config=Struct(mediaType=config_type, digest=str(Digest.of(_EMPTY)), size=len(_EMPTY)),
        layers=[
            Struct(
                mediaType=content.media_type,
                digest=str(content.digest),
                size=content.size,
                annotations=content.annotations,
            )
        ],
        subject=Struct(mediaType=subject.media_type, digest=str(subject.digest), size=subject.size),
        annotations=artifact.annotations,
    ).without_empty("artifactType", "annotations")
    return gojson.encode(document), artifact.config_type or kind
