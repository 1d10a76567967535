"""An application's image: its layers packed and put upon the run image, then saved.

Source: Go's lifecycle, phase/exporter.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ...oci.descriptor import OCI_LAYER_ZSTD, OCI_MANIFEST
from ...oci.digest import Digest
from ...oci.errors import InvalidContent, NotFound
from ...publish.compression import Compression
from ...store.blobs import BlobStore
from ...store.index import layers as seen
from ..console import Console
from ..inputs import Inputs
from ..layers.contents import Part, Role
from ..layers.packer import LayerPacker, PackedLayer
from ..platform_api import Version
from .assembly import Assembled, Assembly
from .config import Config, moment
from .image import Image, Layer, Saved, Target
from .saving import save

_HISTORY = Version(0, 12)
_EPOCH = Version(0, 9)
_PLAIN = "none"


@dataclass(frozen=True, slots=True)
class Made:
    """A layer of the image; `packed` is None if it is one of the previous image's, unread."""

    part: Part
    diff_id: Digest
    packed: PackedLayer | None

    @property
    def reused(self) -> bool:
        """Whether it is one of the previous image's."""
        return self.packed is None or (self.packed.reused and self.packed.blob is None)


def export_image(
    inputs: Inputs,
    target: Target,
    base: Image,
    previous: Image | None,
    wanted: Iterable[Part],
    configure: Callable[[Config, Sequence[Made]], Config],
    console: Console,
) -> tuple[Saved, list[Made]]:
    """Put layers upon `base`, save the image under all of its names, and return its layers too.

    `configure` returns the image's config, given that of the base and the layers.

    A layer that `previous` has lost is added instead. Whatever is raised, each name has all of
    the image, or what it had before, and nothing else stays.

    Raises:
        InvalidContent, NotFound, RegistryError, OSError: the image has not got all of its names.
    """
    given = _PLAIN if target.keeps_identifier else inputs.compression  # a daemon inflates
    compression = Compression.parse(given)
    kind = Assembly(base, previous).manifest_type
    if compression.media_type == OCI_LAYER_ZSTD:
        kind = OCI_MANIFEST
    with (
        target.staging(inputs.image) as staging,
        LayerPacker(
            staging.blobs,
            compression,
            manifest=kind,
            jobs=inputs.jobs,
            known=staging.recognition,
        ) as packer,
    ):
        made = _made(packer, wanted, previous, console)
        image = _assembled(inputs, base, previous, made, staging.blobs, configure)
        try:
            saved = save(target, image, inputs.references, console)
        except NotFound:
            lost = [layer for layer in made if _is_lost(layer, previous)]
            if not lost or any(layer.part.tar is None for layer in lost):
                raise
            made = [_again(layer, packer, console) if layer in lost else layer for layer in made]
            image = _assembled(inputs, base, previous, made, staging.blobs, configure)
            saved = save(target, image, inputs.references, console)
        staging.note(
            seen.Layer(packed.diff_id, packed.plain_size, packed.blob)
            for packed in (layer.packed for layer in made)
            if packed is not None and packed.blob is not None
        )
    return saved, made


def _made(
    packer: LayerPacker, wanted: Iterable[Part], previous: Image | None, console: Console
) -> list[Made]:
    """Pack the layers, several at a time, and tell of each in their order."""
    there = frozenset(layer.diff_id for layer in (previous.layers if previous else ()))
    waiting = [
        (part, packer.pack(part.tar, there.intersection(part.likely)) if part.tar else None)
        for part in wanted
    ]
    made: list[Made] = []
    for part, future in waiting:
        if future is not None:
            packed = future.result()
            made.append(Made(part, packed.diff_id, packed))
        elif part.likely[0] in there:
            made.append(Made(part, part.likely[0], None))
        else:
            raise InvalidContent(
                f"reusing layer: '{part.identifier}': failed to get layer by diffID: "
                f"the previous image has no layer {part.likely[0]}"
            )
        _tell(made, console)
    return made


def _tell(made: Sequence[Made], console: Console) -> None:
    """Tell of the last layer; of those of the app only how many there are, before the launcher."""
    layer = made[-1]
    if layer.part.role is Role.LAUNCHER:
        apps = [one.reused for one in made if one.part.role is Role.APP]
        if reused := sum(apps):
            console.info(f"Reused {reused}/{len(apps)} app layer(s)")
        if added := len(apps) - reused:
            console.info(f"Added {added}/{len(apps)} app layer(s)")
    if layer.part.role is not Role.APP:
        verb = "Reusing" if layer.reused else "Adding"
        console.info(f"{verb} layer '{layer.part.identifier}'")
    console.debug(f"Layer '{layer.part.identifier}' SHA: {layer.diff_id}")


def _assembled(
    inputs: Inputs,
    base: Image,
    previous: Image | None,
    made: Sequence[Made],
    pool: BlobStore,
    configure: Callable[[Config, Sequence[Made]], Config],
) -> Assembled:
    assembly = Assembly(base, previous)
    for layer in made:
        created_by, packed = layer.part.created_by, layer.packed
        if packed is None or packed.blob is None:
            assembly.reuse(layer.diff_id, created_by)
        else:
            content = packed.ingest or pool
            assembly.add(Layer(layer.diff_id, packed.blob), content, created_by)
    assembly.config = configure(assembly.config, made)
    epoch = inputs.source_date_epoch if inputs.platform_api >= _EPOCH else None
    return assembly.finish(moment(epoch), with_history=inputs.platform_api >= _HISTORY)


def _is_lost(layer: Made, previous: Image | None) -> bool:
    """Tell whether the previous image has a layer no more that it was to lend."""
    known = previous.layer(layer.diff_id) if previous and layer.reused else None
    if previous is None or known is None:
        return False
    try:
        previous.source.open(known.blob).close()
    except NotFound:
        return True
    return False


def _again(layer: Made, packer: LayerPacker, console: Console) -> Made:
    assert layer.part.tar is not None
    console.warn(f"The previous image has lost layer '{layer.part.identifier}'; adding it")
    return replace(layer, packed=packer.pack(layer.part.tar).result())
