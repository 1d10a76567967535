"""The detector: finds the buildpacks that can build an app.

Source: buildpacks/spec, platform.md, "detector", and buildpack.md, "Phase #1: Detection".
"""

from __future__ import annotations

from ..oci.errors import InvalidContent, PhaseFailed
from .buildpacks.buildpack import Builder
from .buildpacks.detection import Detection
from .buildpacks.order import Detected, alternatives, first_detected, with_system
from .console import Console
from .failures import failing
from .files.analyzed import Target, read_analyzed
from .files.group import Group, GroupElement, Order, read_order, read_system, write_group
from .files.plan import Plan, write_plan
from .inputs import Inputs
from .platform_api import Code, Version


def detect(inputs: Inputs, console: Console) -> tuple[Group, Plan]:
    """Write and return the group that takes part, and its plan.

    Raises:
        PhaseFailed: nothing was detected, or what needs image extensions.
    """
    group, plan = detected(inputs, console)
    refuse_extensions(group, "detector")
    return group, plan


def detected(inputs: Inputs, console: Console) -> tuple[Group, Plan]:
    """Write and return the group that takes part, which may have extensions, and its plan.

    Raises:
        PhaseFailed: nothing was detected.
    """
    builder = Builder(inputs.buildpacks_dir, inputs.extensions_dir)
    target, order = _given(inputs, builder, console)
    try:
        with failing(Code.DETECT, "detect"):
            elements, plan = _first(order, inputs, builder, target, console)
    except PhaseFailed as failed:
        if failed.code in (Code.NOT_DETECTED, Code.NOT_DETECTED_AND_ERROR):
            console.error("No buildpack groups passed detection.")
        if failed.code == Code.NOT_DETECTED:
            console.error("Please check that you are running against the correct path.")
        raise
    group = _group(elements)
    with failing(Code.FAILED, "write group file"):
        write_group(inputs.group_path, group)
    with failing(Code.FAILED, "write plan file"):
        write_plan(inputs.plan_path, plan)
    return group, plan


def refuse_extensions(group: Group, phase: str) -> None:
    """Refuse a group that wants to change the images by Dockerfiles.

    Raises:
        PhaseFailed: it does.
    """
    if group.extensions:
        words = f"detected order contains extensions which is not supported by the {phase}"
        raise PhaseFailed(Code.DETECT, f"failed to detect: {words}")


def _given(inputs: Inputs, builder: Builder, console: Console) -> tuple[Target | None, Order]:
    noun = "initialize detector"
    with failing(Code.FAILED, noun):
        analyzed = read_analyzed(inputs.analyzed_path, console)
    with failing(Code.FAILED, f"{noun}: reading order"):
        order = read_order(inputs.order_path)
    if inputs.platform_api >= Version(0, 15):
        with failing(Code.FAILED, f"{noun}: reading system"):
            system = read_system(inputs.system_path, console)
        order = with_system(order, system, console.debug)
    with failing(Code.FAILED, noun):
        for group in (*order.groups, *order.extensions):
            for element in group.buildpacks:
                builder.find(element)
    return analyzed.run_image.target if analyzed.run_image else None, order


def _first(
    order: Order, inputs: Inputs, builder: Builder, target: Target | None, console: Console
) -> Detected:
    with console.timer("Detector"), Detection(inputs, builder, target, console) as detection:
        try:
            found = first_detected(alternatives(order), detection)
        except (PhaseFailed, InvalidContent, OSError):
            detection.transcript.tell(console, everything=True)
            raise
        detection.transcript.tell(console, everything=False)
        return found


def _group(elements: tuple[GroupElement, ...]) -> Group:
    return Group(
        tuple(element for element in elements if not element.extension),
        tuple(element for element in elements if element.extension),
    )
