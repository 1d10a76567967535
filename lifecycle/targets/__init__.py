"""Where the phases look images up and save them, one module each, and the choice among them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...oci.document import as_object, string
from ...oci.errors import OcistowError, PhaseFailed
from ...publish.access import JOBS, Access
from ..files.document import read_toml
from ..images.image import Target
from ..inputs import Inputs
from ..platform_api import Code

if TYPE_CHECKING:
    from .layout import LayoutTarget
    from .registry import RegistryTarget

_LAYOUTS = Path("/oci")  # the draft's
_CONNECTIONS = 8  # to a daemon, for what a phase does once it has given privileges up


def open_target(inputs: Inputs) -> AbstractContextManager[Target]:
    """Open where a phase looks images up and saves one: layouts, a daemon or registries.

    Call it while the process may still read credentials and connect to a daemon. Layouts load
    nothing of the network.

    Raises:
        InvalidContent, NotFound, RegistryError, OSError: it cannot be reached.
    """
    return open_layouts(inputs) if inputs.layout else open_destination(inputs)


def open_layouts(inputs: Inputs) -> AbstractContextManager[LayoutTarget]:
    """Open the directory of layouts; likewise."""
    from . import layout

    return layout.open_layouts(inputs.layout_dir or _LAYOUTS, jobs=inputs.jobs or JOBS)


def open_destination(inputs: Inputs) -> AbstractContextManager[Target]:
    """Open where an image is published: a daemon or registries; likewise."""
    return _open_daemon(inputs) if inputs.daemon else open_registries(inputs)


@contextmanager
def open_registries(inputs: Inputs) -> Generator[RegistryTarget]:
    """Open the registries, whatever the phase's target is: that of a cache image is always one."""
    from ...store.store import Store
    from .registry import RegistryTarget

    environ = with_credentials(inputs).environ
    with nullcontext() if inputs.store_path is None else Store.open(inputs.store_path) as store:
        yield RegistryTarget(environ, jobs=inputs.jobs or JOBS, store=store)


def with_credentials(inputs: Inputs) -> Inputs:
    """Return inputs whose environment has what can be found out about the images' registries.

    Call it before the process gives up the right to read credentials, and pass the result on.

    Raises:
        PhaseFailed: they cannot be read.
    """
    from .registry import known_registries

    references = (
        *inputs.references,
        *(inputs.previous_image, inputs.run_image, inputs.build_image, inputs.cache_image),
        *_analyzed(inputs),
    )
    named = filter(None, references)
    try:
        environ = known_registries(inputs.environ, named, inputs.insecure_registries)
    except (OcistowError, OSError) as error:
        raise PhaseFailed(Code.FAILED, f"failed to resolve keychain: {error}") from error
    return replace(inputs, environ=environ)


@contextmanager
def _open_daemon(inputs: Inputs) -> Generator[Target]:
    from ...publish.docker.engine import Engine
    from ...publish.docker.host import find_host
    from .daemon import DaemonTarget

    access = Access()
    with ExitStack() as stack:
        try:
            host = find_host(access, inputs.environ)
            engine = stack.enter_context(Engine(host, access.timeout))
            if inputs.uid:
                engine.reserve(_CONNECTIONS)
        except (OcistowError, OSError) as error:
            message = f"failed to initialize docker client: {error}"
            raise PhaseFailed(Code.FAILED, message) from error
        jobs, near = inputs.jobs or JOBS, inputs.launch_cache_dir
        with DaemonTarget(engine, jobs=jobs, launch_cache=near) as target:
            yield target


def _analyzed(inputs: Inputs) -> Generator[str]:
    """Yield the references that the analyzer found, if it ran; who needs them complains of them."""
    with suppress(OcistowError, OSError):
        document = read_toml(inputs.analyzed_path) or {}
        for key in ("image", "run-image", "build-image"):
            table = document.get(key)
            if table is not None:
                yield string(as_object(table, key), "reference", key)
