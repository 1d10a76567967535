"""What a phase opens as long as it may: places of images, and credentials.

A phase that was started as root becomes the user of the build image before it does anything, and
that user may neither connect to a daemon nor read root's credentials.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..oci.errors import InvalidContent, OcistowError, PhaseFailed, RegistryError
from ..oci.wording import message_of
from .console import Console, Level
from .inputs import Inputs
from .invocation.arguments import Phase
from .platform_api import Code

if TYPE_CHECKING:
    from .images.image import Target

Run = Callable[[Inputs], object]

_REGISTRY_AUTH = "CNB_REGISTRY_AUTH"


@contextmanager
def opened(phase: Phase, inputs: Inputs, console: Console) -> Generator[tuple[Inputs, Run]]:
    """Yield the inputs with the credentials that were found, and what runs the phase with them.

    The phase is loaded: its user may not be allowed to.

    Raises:
        PhaseFailed: something cannot be opened.
    """
    if phase in (Phase.DETECT, Phase.BUILD):
        yield inputs, _alone(phase, console)
        return
    with ExitStack() as stack:
        stack.enter_context(_passing_on(console))
        try:
            inputs = _with_credentials(phase, inputs)
            if phase is Phase.PUBLISH:
                run = _publish(inputs, console, stack)
            else:
                run = _on_target(phase, inputs, console, stack)
        except PhaseFailed:
            raise
        except (OcistowError, OSError) as error:
            what = "docker client" if inputs.daemon else phase.program
            message = f"failed to initialize {what}: {message_of(error)}"
            raise PhaseFailed(Code.FAILED, message) from error
        yield inputs, run


def readable(inputs: Inputs) -> Callable[[str], bool]:
    """Return what tells whether an image may be read; layouts and daemons are not asked."""

    def may_be_read(image: str) -> bool:
        if inputs.daemon or inputs.layout:
            return True
        from .targets import open_registries

        try:
            with open_registries(replace(inputs, run_image=image)) as registries:
                registries.check_access([image], [])
        except (InvalidContent, RegistryError):
            return False
        return True

    return may_be_read


def _with_credentials(phase: Phase, inputs: Inputs) -> Inputs:
    _check_headers(inputs.environ)
    in_registries = not inputs.daemon and (phase is Phase.PUBLISH or not inputs.layout)
    if not (in_registries or inputs.cache_image or inputs.push):
        return inputs
    from .targets import with_credentials

    return with_credentials(inputs)


def _check_headers(environ: Mapping[str, str]) -> None:
    """See that the platform's credentials can be read, whether or not they are needed."""
    text = environ.get(_REGISTRY_AUTH)
    if not text:
        return
    from ..publish.distribution.credentials import parse_headers

    try:
        parse_headers(os.fsencode(text), "it")
    except InvalidContent as error:
        parsing = f"reading auth env var: failed to parse {_REGISTRY_AUTH} value"
        message = f"failed to resolve keychain: {parsing}: {error}"
        raise PhaseFailed(Code.FAILED, message) from error


def _alone(phase: Phase, console: Console) -> Run:
    if phase is Phase.DETECT:
        from .detect import detect

        return lambda inputs: detect(inputs, console)
    from .build import build

    return lambda inputs: build(inputs, console)


def _on_target(phase: Phase, inputs: Inputs, console: Console, stack: ExitStack) -> Run:
    from .targets import open_target

    run = _of_images(phase)
    target = stack.enter_context(open_target(inputs))
    return lambda inputs: run(inputs, target, console)


def _of_images(phase: Phase) -> Callable[[Inputs, Target, Console], object]:
    match phase:
        case Phase.ANALYZE:
            from .analyze import analyze

            return analyze
        case Phase.RESTORE:
            from .restore import restore

            return restore
        case Phase.EXPORT:
            from .export import export

            return export
        case Phase.CREATE:
            from .create import create

            return create
        case _:
            from .rebase import rebase

            return rebase


def _publish(inputs: Inputs, console: Console, stack: ExitStack) -> Run:
    from .publish import publish_from
    from .targets import open_destination, open_layouts

    layouts = stack.enter_context(open_layouts(inputs))
    destination = stack.enter_context(open_destination(inputs))
    return lambda inputs: publish_from(layouts, destination, inputs, console)


@contextmanager
def _passing_on(console: Console) -> Generator[None]:
    """Let the console say what the library logs."""
    log = logging.getLogger("ocistow")
    handler = _Handler(console)
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO if console.level is Level.DEBUG else logging.WARNING)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        say = self._console.warn if record.levelno >= logging.WARNING else self._console.debug
        say(record.getMessage())
