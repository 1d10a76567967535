"""Every file of TOML: what is read is what was written, and what is not understood is refused."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocistow.lifecycle.files.analyzed import Analyzed
from ocistow.lifecycle.files.document import parse_toml
from ocistow.lifecycle.files.group import Group, Order, System
from ocistow.lifecycle.files.metadata import BuildMetadata
from ocistow.lifecycle.files.project import ProjectMetadata
from ocistow.lifecycle.files.report import Report
from ocistow.lifecycle.golang import toml as gotoml
from ocistow.lifecycle.platform_api import Version
from ocistow.oci.document import Object
from ocistow.oci.errors import InvalidContent
from ocistow.testing.tables import texts_like

API = Version(0, 12)


@dataclass(frozen=True)
class Kind:
    """A file, and the keys that it may have."""

    parse: Callable[[Object, str], object]
    write: Callable[[object], Object] | None
    keys: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ELEMENT = "id version api homepage optional extension"
_LAYERS = "app sha sbom buildpacks layers store metadata build launch cache config launcher key"


def _written(value: object) -> Object:
    assert isinstance(value, Analyzed | Group | BuildMetadata | Report)
    return value.to_document(API) if isinstance(value, BuildMetadata) else value.to_document()


KINDS = {
    "analyzed": Kind(
        Analyzed.from_document,
        _written,
        _words(f"image build-image run-image metadata reference extend target distro {_LAYERS}"),
    ),
    "group": Kind(Group.from_document, _written, _words(f"group group-extensions {_ELEMENT}")),
    "order": Kind(Order.from_document, None, _words(f"order order-extensions group {_ELEMENT}")),
    "system": Kind(System.from_document, None, _words(f"system pre post buildpacks {_ELEMENT}")),
    "metadata": Kind(
        BuildMetadata.from_document,
        _written,
        _words(f"bom buildpacks labels key value processes command args slices paths {_ELEMENT}"),
    ),
    "project": Kind(ProjectMetadata.from_document, None, _words("source type version metadata")),
    "report": Kind(Report.from_document, _written, _words("image build tags digest run-image bom")),
}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    raw = data.draw(texts_like(kind.keys))
    try:
        value = kind.parse(parse_toml(raw, "it"), "it")
    except InvalidContent:
        return
    if kind.write is not None and not _is_old(value):
        again = parse_toml(gotoml.encode(kind.write(value)), "it")
        assert kind.parse(again, "it") == value


def _is_old(value: object) -> bool:
    return isinstance(value, Analyzed) and value.metadata.old_app is not None
