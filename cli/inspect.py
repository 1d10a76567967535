"""`ocistow inspect`: what an image consists of."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..oci.digest import Digest
from ..oci.document import Object, as_object, members, parse_object, string, strings
from ..oci.errors import InvalidContent, NotFound
from ..oci.platform import Platform
from ..oci.wording import about, printable
from ..store.layout import Layout
from ..store.store import Store
from . import output
from .config import Settings
from .images import ImageView, RootView, read_roots
from .options import bytes_option, json_option, name_argument, pass_settings, platform_option
from .output import count, document, line, shown, sizes, table

Places = dict[Digest, list[str]]  # repositories that may have a layer, which is absent here


@click.command()
@name_argument()
@platform_option
@click.option("--raw", is_flag=True, help="Print the manifest byte for byte.")
@click.option(
    "--config",
    "as_config",
    is_flag=True,
    allow_from_autoenv=False,  # OCISTOW_CONFIG is the settings file
    help="Print the config byte for byte.",
)
@json_option
@bytes_option
@pass_settings
def inspect(
    settings: Settings,
    name: str,
    platform: Platform | None,
    raw: bool,
    as_config: bool,
    as_json: bool,
    exactly: bool,
) -> None:
    """Show what an image consists of.

    That is its manifest, config, layers and platforms. Of an image for several
    platforms --raw prints the index, and the manifest of one with --platform.
    """
    if raw + as_config + as_json > 1:
        raise click.UsageError("--raw, --config and --json exclude each other")
    with about(f"reading {settings.store}"), Store.open(settings.store) as store:
        layout = store.find(name)
        with about(f"reading {shown(layout.name)}"):
            roots = read_roots(layout)
        places = _places(store, roots)
        if raw:
            output.raw(_raw(layout, roots, platform))
        elif as_config:
            output.raw(_config(layout, roots, platform))
    if as_json:
        document(_document(layout, roots, platform, places))
    elif not raw and not as_config:
        _print(layout, roots, platform, places, exactly=exactly)


def _places(store: Store, roots: tuple[RootView, ...]) -> Places:
    """Return where absent layers would be fetched; nobody is asked whether that is true."""
    layers = (layer for root in roots for image in root.images for layer in image.layers)
    absent = {layer.descriptor.digest for layer in layers if not layer.present}
    return {digest: list(map(str, store.remotes.places(digest))) for digest in absent}


def _raw(layout: Layout, roots: tuple[RootView, ...], platform: Platform | None) -> bytes:
    if platform is None and len(roots) == 1:
        return layout.read(roots[0].descriptor)
    return _only(layout, roots, platform).manifest.raw


def _config(layout: Layout, roots: tuple[RootView, ...], platform: Platform | None) -> bytes:
    image = _only(layout, roots, platform)
    if image.config is None:
        raise NotFound(f"an image config in {image.descriptor.digest}")
    return image.config.raw


def _only(layout: Layout, roots: tuple[RootView, ...], platform: Platform | None) -> ImageView:
    found = _images(layout, roots, platform)
    if len(found) == 1:
        return found[0]
    called = shown(layout.name)
    if not found:
        raise NotFound(f"a manifest of {called}")
    names = ", ".join(str(image.platform) for image in found)
    raise InvalidContent(f"{called} has {len(found)} images, choose one with --platform: {names}")


def _images(
    layout: Layout, roots: tuple[RootView, ...], platform: Platform | None
) -> list[ImageView]:
    images = [image for root in roots for image in root.images]
    if platform is None:
        return images
    found = [i for i in images if i.platform is not None and platform.runs(i.platform)]
    if not found:
        there = ", ".join(str(image.platform) for image in images)
        raise NotFound(f"{platform} in {shown(layout.name)} (there: {there or 'none'})")
    return found


def _print(
    layout: Layout,
    roots: tuple[RootView, ...],
    platform: Platform | None,
    places: Places,
    *,
    exactly: bool,
) -> None:
    size = sizes(exactly=exactly)
    line(f"Name:        {shown(layout.name)}")
    for root in roots:
        if root.descriptor.is_index:
            line(f"Index:       {root.descriptor.digest}")
            line(f"Media type:  {root.descriptor.media_type}")
            line(f"Size:        {size(root.size)}, {count(len(root.images), 'manifest')}")
    several = len(roots) > 1 or any(root.descriptor.is_index for root in roots)
    for image in _images(layout, roots, platform):
        if several:
            line("")
        line(f"Manifest:    {image.descriptor.digest}")
        line(f"Media type:  {image.descriptor.media_type}")
        if image.platform:
            line(f"Platform:    {image.platform}")
        line(f"Size:        {size(image.size)}, {count(len(image.layers), 'layer')}")
        if image.config is not None:
            for key, value in _summary(image):
                line(f"{key + ':':<12} {printable(value)}")
        if image.layers:
            rows = [
                [
                    size(layer.descriptor.size),
                    str(layer.descriptor.digest),
                    str(layer.diff_id or "-"),
                    "" if layer.present else _absence(places[layer.descriptor.digest]),
                ]
                for layer in image.layers
            ]
            table(("SIZE", "LAYER", "DIFFID", ""), rows, right=[0])


def _absence(places: list[str]) -> str:
    return f"absent, expected in {' or '.join(places)}" if places else "absent"


def _summary(image: ImageView) -> Iterator[tuple[str, str]]:
    """Yield what the config says, apart from what is not set."""
    assert image.config is not None
    yield "Config", str(image.manifest.config.digest)
    if image.config.created:
        yield "Created", image.config.created
    settings = _settings(image)
    for key, title in (("User", "User"), ("WorkingDir", "Directory")):
        if value := string(settings, key, "config"):
            yield title, value
    for key in ("Entrypoint", "Cmd", "Env"):
        if values := members(settings.get(key), key):
            yield key, " ".join(map(str, values))
    for key, value in strings(settings, "Labels", "config").items():
        yield "Label", f"{key}={value}"


def _settings(image: ImageView) -> Object:
    """Return the `config` member of the image config: what a container starts with."""
    assert image.config is not None
    what = f"config {image.manifest.config.digest}"
    value = parse_object(image.config.raw, what).get("config")
    return {} if value is None else as_object(value, f"config of {what}")


def _document(
    layout: Layout, roots: tuple[RootView, ...], platform: Platform | None, places: Places
) -> dict[str, object]:
    return {
        "name": shown(layout.name),
        "path": str(layout.name),
        "roots": [{**root.descriptor.to_document(), "totalSize": root.size} for root in roots],
        "images": [_members(image, places) for image in _images(layout, roots, platform)],
    }


def _members(image: ImageView, places: Places) -> dict[str, object]:
    return {
        "digest": str(image.descriptor.digest),
        "mediaType": image.descriptor.media_type,
        "size": image.descriptor.size,
        "totalSize": image.size,
        "platform": image.platform.to_document() if image.platform else None,
        "created": (image.config.created or None) if image.config else None,
        "configDigest": str(image.manifest.config.digest),
        "config": dict(_settings(image)) if image.config else None,
        "layers": [
            {
                "digest": str(layer.descriptor.digest),
                "mediaType": layer.descriptor.media_type,
                "size": layer.descriptor.size,
                "diffID": str(layer.diff_id) if layer.diff_id else None,
                "present": layer.present,
                "expectedIn": places.get(layer.descriptor.digest, []),
            }
            for layer in image.layers
        ],
    }
