"""The words by which a user names a source or a sink: `transport:rest`."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..oci.digest import Digest
from ..oci.errors import InvalidContent
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.store import Store
from .access import Access
from .layout import LayoutSource
from .sink import Sink
from .source import Source, Watch, unwatched

_WORDS = {"docker": "docker://", "-": "-"}  # as users write them

if TYPE_CHECKING:
    from .archives.sink import Output

STDOUT_FILENO = 1

_DASH = "-"  # in the place of a file: standard input or output

_IDENTIFIER = re.compile(r"sha256:[0-9a-f]{64}")  # of an image of a daemon


def check_source(text: str) -> None:
    """Refuse a word that names no source, before anything is made for it.

    Raises:
        InvalidContent: there is no such transport.
    """
    _split_source(text)


def is_source(text: str) -> bool:
    """Tell whether a word names a source, rather than an image of a store."""
    return text == _DASH or text.partition(":")[0] in _SOURCES


def check_sink(text: str) -> None:
    """Refuse a word that names no sink, likewise."""
    _split(text, {**_SINKS, **_ARCHIVES})


def open_source(
    text: str,
    store: Store,
    *,
    platform: Platform | None = None,
    access: Access | None = None,
    watch: Watch = unwatched,
) -> AbstractContextManager[Source]:
    """Open the image that `text` names, such as `docker://alpine:3`, or `-` for standard input.

    `platform` chooses one image of an index. Layers that have to be compressed
    wait in unnamed files of `store` until they are put or the block is left. What can only
    be read in one pass, before the image is known, tells `watch` how many bytes it has read.

    Raises:
        InvalidContent: there is no such transport, or `text` is malformed.
    """
    transport, rest = _split_source(text)
    return _SOURCES[transport](rest, store, platform, access or Access(), watch)


def open_sink(
    text: str,
    store: Store | None = None,
    *,
    access: Access | None = None,
    without: frozenset[Digest] = frozenset(),
) -> AbstractContextManager[Sink]:
    """Open the place that `text` names, such as `docker://HOST/REPO:TAG` or `docker-daemon:REF`.

    `store` remembers what the other side has; without it nothing is remembered. An
    archive leaves out the blobs `without`, apart from manifests and configs.

    Raises:
        InvalidContent: there is no such transport, or `text` is malformed, or what it
            names cannot be without blobs.
    """
    transport, rest = _split(text, {**_SINKS, **_ARCHIVES})
    if transport in _ARCHIVES:
        return _ARCHIVES[transport](rest, without)
    if without:
        raise InvalidContent(f"{text[:300]!r}: only archives can leave blobs out")
    return _SINKS[transport](rest, store, access or Access())


def is_archive(text: str) -> bool:
    """Tell whether `text` names an archive."""
    return text.partition(":")[0] in _ARCHIVES


def writes_to_stdout(text: str) -> bool:
    """Tell whether `text` names an archive on standard output."""
    return is_archive(text) and text.split(":", 2)[1] == _DASH


def split_path(rest: str) -> tuple[Path, str]:
    """Split `PATH[:NAME]`; a path that exists may have colons, another ends at the first."""
    if not Path(rest).exists():
        at = rest.find(":")
        first = at
        while at >= 0:
            if Path(rest[:at]).exists():
                return Path(rest[:at]), rest[at + 1 :]
            at = rest.find(":", at + 1)
        if first >= 0:
            return Path(rest[:first]), rest[first + 1 :]
    return Path(rest), ""


# Each transport is imported when it is used: requests alone takes 74 ms to import.


@contextmanager
def _layout_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    path, name = split_path(rest)
    yield LayoutSource(path, name, platform)


@contextmanager
def _oci_archive_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .archives.oci import OciArchiveSource
    from .archives.spool import never, open_archive
    from .recognition import Recognition

    path, name = _input(rest)
    with open_archive(path, store.blobs, links=False, packs=never, watch=watch) as archive:
        yield OciArchiveSource(archive, Recognition(store), name, platform)


@contextmanager
def _docker_archive_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .archives.docker import DockerArchiveSource
    from .archives.spool import open_archive, unless_known
    from .recognition import Recognition

    path, name = _input(rest)
    recognition = Recognition(store)
    with (
        open_archive(
            path, store.blobs, links=True, packs=unless_known(recognition), watch=watch
        ) as archive,
        DockerArchiveSource(archive, recognition, name) as source,
    ):
        yield source


@contextmanager
def _stdin_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .archives.either import any_archive, outside_layouts
    from .archives.spool import open_archive
    from .recognition import Recognition

    recognition = Recognition(store)
    packs = outside_layouts(recognition)
    with (
        open_archive(None, store.blobs, links=True, packs=packs, watch=watch) as archive,
        any_archive(archive, recognition, platform) as source,
    ):
        yield source


def _input(rest: str) -> tuple[Path | None, str]:
    """Split `PATH[:NAME]`; standard input is no path."""
    file, _, name = rest.partition(":")
    return (None, name) if file == _DASH else split_path(rest)


@contextmanager
def _daemon_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .docker.engine import Engine
    from .docker.host import find_host
    from .docker.source import DaemonSource
    from .recognition import Recognition

    name = rest if _IDENTIFIER.fullmatch(rest) else str(Reference.parse(rest))
    with (
        Engine(find_host(access), access.timeout) as engine,
        DaemonSource(engine, name, Recognition(store), platform, watch) as source,
    ):
        yield source


@contextmanager
def _registry_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .mirrors import open_mirrored

    reference = _registry_reference(rest)
    with open_mirrored(reference, platform, access, store.locations) as source:
        yield source


@contextmanager
def _registry_sink(rest: str, store: Store | None, access: Access) -> Generator[Sink]:
    from .distribution.hosts import open_repository
    from .provenance import Provenance, UploadSessions
    from .registry import RegistrySink

    reference = _registry_reference(rest)
    if reference.digest is not None and ":" in rest.partition("@")[0].rpartition("/")[2]:
        raise InvalidContent(f"docker:{rest[:300]}: either a tag or a digest can be given to it")
    place = reference.registry, reference.repository
    with open_repository(reference, access, push=True) as repository:
        if store is None:
            yield RegistrySink(repository, reference)
        else:
            provenance = Provenance(store.locations, *place)
            sessions = UploadSessions(store.uploads, *place)
            yield RegistrySink(repository, reference, provenance, sessions)


@contextmanager
def _daemon_sink(rest: str, store: Store | None, access: Access) -> Generator[Sink]:
    from .docker.engine import Engine
    from .docker.host import find_host
    from .docker.sink import DaemonSink

    reference = Reference.parse(rest)
    with Engine(find_host(access), access.timeout) as engine:
        yield DaemonSink(engine, reference, store.blobs if store else None)


@contextmanager
def _layout_sink(rest: str, store: Store | None, access: Access) -> Generator[Sink]:
    from .layout_sink import LayoutSink

    path, name = split_path(rest)
    if store is not None and path.resolve().is_relative_to(store.path.resolve()):
        raise InvalidContent(f"{path} lies in the store")
    yield LayoutSink(path, name)


@contextmanager
def _oci_archive_sink(rest: str, without: frozenset[Digest]) -> Generator[Sink]:
    from .archives.forms import OciForm
    from .archives.sink import ArchiveSink

    output, name = _output(rest)
    yield ArchiveSink(output, OciForm(name), without)


@contextmanager
def _docker_archive_sink(rest: str, without: frozenset[Digest]) -> Generator[Sink]:
    from .archives.forms import DockerForm
    from .archives.sink import ArchiveSink

    output, name = _output(rest)
    yield ArchiveSink(output, DockerForm(Reference.parse(name) if name else None), without)


def _output(rest: str) -> tuple[Output, str]:
    from .archives.sink import FileOutput, StreamOutput

    file, _, name = rest.partition(":")
    if file == _DASH:
        return StreamOutput(STDOUT_FILENO), name
    path, name = split_path(rest)
    return FileOutput(path), name


@contextmanager
def _containerd_source(
    rest: str, store: Store, platform: Platform | None, access: Access, watch: Watch
) -> Generator[Source]:
    from .containerd.ctr import Ctr
    from .containerd.source import ContainerdSource

    yield ContainerdSource(Ctr.of(access), rest, platform)


@contextmanager
def _containerd_sink(rest: str, store: Store | None, access: Access) -> Generator[Sink]:
    from .containerd.ctr import Ctr
    from .containerd.sink import ContainerdSink

    reference = Reference.parse(rest)
    yield ContainerdSink(Ctr.of(access), reference)


@contextmanager
def _podman_sink(rest: str, store: Store | None, access: Access) -> Generator[Sink]:
    from .podman import PodmanSink

    with PodmanSink(Reference.parse(rest)) as sink:
        yield sink


_SOURCES: dict[
    str,
    Callable[[str, Store, Platform | None, Access, Watch], AbstractContextManager[Source]],
] = {
    _DASH: _stdin_source,
    "containerd": _containerd_source,
    "docker": _registry_source,
    "docker-archive": _docker_archive_source,
    "docker-daemon": _daemon_source,
    "oci": _layout_source,
    "oci-archive": _oci_archive_source,
}
_SINKS: dict[str, Callable[[str, Store | None, Access], AbstractContextManager[Sink]]] = {
    "containerd": _containerd_sink,
    "docker": _registry_sink,
    "docker-daemon": _daemon_sink,
    "oci": _layout_sink,
    "podman": _podman_sink,
}
_ARCHIVES: dict[str, Callable[[str, frozenset[Digest]], AbstractContextManager[Sink]]] = {
    "docker-archive": _docker_archive_sink,
    "oci-archive": _oci_archive_sink,
}


def _split_source(text: str) -> tuple[str, str]:
    return (_DASH, "") if text == _DASH else _split(text, _SOURCES)


def _split(text: str, known: Mapping[str, object]) -> tuple[str, str]:
    transport, colon, rest = text.partition(":")
    if rest == "" and colon and transport in known and transport != _DASH:
        raise InvalidContent(f"{text!r} names nothing after {transport}:")
    if not colon or transport not in known or transport == _DASH:
        words = ", ".join(_WORDS.get(word, f"{word}:") for word in known)
        kind = "source" if known is _SOURCES else "destination"
        raise InvalidContent(f"{text[:300]!r} is no {kind}: it does not start with one of {words}")
    return transport, rest


def _registry_reference(rest: str) -> Reference:
    if not rest.startswith("//"):
        raise InvalidContent(f"expected docker://{rest[:300]}, not docker:{rest[:300]}")
    return Reference.parse(rest[2:])
