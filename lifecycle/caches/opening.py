"""The cache that a phase is told of."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...oci.errors import OcistowError, PhaseFailed
from ..inputs import Inputs
from ..platform_api import Code, Version
from ..targets import open_registries
from .cache import Cache
from .directory import DirectoryCache

if TYPE_CHECKING:
    from ..targets.registry import RegistryTarget

_NO_DELETION = Version(0, 13)  # from here on an image that is replaced stays, without a name


@contextmanager
def open_cache(inputs: Inputs) -> Generator[Cache | None]:
    """Open the cache image or, without one, the cache directory; None if there is neither.

    What was not committed when the block is left is discarded.

    Raises:
        PhaseFailed: it cannot be opened.
    """
    if inputs.cache_image:
        with ExitStack() as stack:
            try:
                registries = stack.enter_context(open_registries(inputs))
                cache = stack.enter_context(_image(inputs, registries))
            except OcistowError as error:
                what = f'accessing cache image "{inputs.cache_image}"'
                message = f"failed to create image cache: {what}: {error}"
                raise PhaseFailed(Code.FAILED, message) from error
            yield cache
    elif inputs.cache_dir is not None:
        try:
            directory = DirectoryCache(inputs.cache_dir)
        except (OcistowError, OSError) as error:
            message = f"failed to create volume cache: {_words(inputs.cache_dir, error)}"
            raise PhaseFailed(Code.FAILED, message) from error
        with directory:
            yield directory
    else:
        yield None


def _image(inputs: Inputs, registries: RegistryTarget) -> AbstractContextManager[Cache]:
    from ...publish.compression import Compression  # a directory needs none of this
    from .image import open_image_cache

    compression = Compression.parse(inputs.compression)
    delete = registries.delete if inputs.platform_api < _NO_DELETION else None
    return open_image_cache(inputs.cache_image, registries, compression, inputs.jobs, delete)


def _words(path: Path, error: OcistowError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"stat {path}: {error.strerror.lower()}"
    return str(error)
