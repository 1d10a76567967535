"""A run of `ocistow bench`: its images, its contests, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ..bench.builds import Build, build_of, made_builds
from ..bench.comparison import Contest
from ..bench.daemon import Daemon, new_space, used
from ..bench.machine import this_machine
from ..bench.measure import Result
from ..bench.report import Report
from ..bench.rows import IMAGE
from ..bench.selection import cannot_mount, cannot_push, chosen
from ..oci.wording import about
from ..publish.access import Access
from ..publish.copy import read_image
from ..publish.remote import store_source
from ..publish.sink import Image
from ..publish.transports import is_source, open_source
from ..store.store import Store
from .config import Settings
from .progress import Amount, Display


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be measured.

    Attributes:
        source: an image of the store, or what `add` takes; None for made ones.
        only: the ways to compare with; all, if it names none.
        quick: make small ones.
    """

    source: str | None
    only: tuple[str, ...]
    rounds: int
    quick: bool
    docker_host: str | None


def measured(settings: Settings, room: Path, task: Task) -> Report:
    """Let all ways that can be gone do their builds in a directory.

    Raises:
        Missing: what nothing can be measured without, is not there.
        ProgramFailed: ocistow's way failed, or another one that did not at first.
        OcistowError: the image or the daemon cannot be read, or two ways made different images.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    with (
        used(task.docker_host, new_space()) as daemon,
        Display(settings.progress) as display,
    ):
        steps = _Steps(display.amount("measuring", "steps"))
        ways, left = chosen(daemon, task.only)
        if unmounted := cannot_mount():
            left["the mount of ocistow"] = f"{unmounted}; its store is written to directly"
        if unpushed := cannot_push(daemon):
            left["sending into a registry"] = unpushed
        if unseen := daemon.unseen():
            left["bytes moved and written"] = unseen
        steps.say("making the images")
        builds = _builds(settings, room, task, daemon)
        contests = {
            name: Contest(
                room,
                build,
                daemon,
                ways,
                can_mount=not unmounted,
                has_registry=not unpushed,
                has_traffic=not unseen,
            )
            for name, build in builds.items()
        }
        for name, contest in contests.items():
            steps.expect(name, contest, task.rounds)
        for name, contest in contests.items():
            app = "" if name == IMAGE else f"{name}, "
            failed = replace(contest, watch=steps.begins(f"{app}rehearsal, ")).rehearse()
            left |= failed
            going = [way for way in ways if way not in failed]
            chosen_ones = replace(contest, ways=going, watch=steps.begins(app))
            steps.expect(name, chosen_ones, task.rounds)
            results += chosen_ones.results(name, task.rounds)
        steps.ends()
        machine = this_machine(room, {"docker daemon": daemon.release()})
    what = f"{task.source}, {builds[IMAGE].about}" if task.source else "Debian packages"
    return Report(started, task.rounds, task.quick, machine, results, left, what)


@dataclass(slots=True)
class _Steps:
    """How many steps are done, of how many."""

    _amount: Amount | None
    _expected: dict[str, int] = field(default_factory=dict[str, int])
    _has_begun: bool = False

    def say(self, what: str) -> None:
        """Tell what is done, if anybody looks."""
        if self._amount is not None:
            self._amount.stage(what)

    def expect(self, name: str, contest: Contest, rounds: int) -> None:
        """Note how many steps a contest has, with its rehearsal."""
        self._expected[name] = contest.rehearsal.steps_of(1) + contest.steps_of(rounds)
        if self._amount is not None:
            self._amount.begins(sum(self._expected.values()))

    def begins(self, before: str) -> Callable[[str], None]:
        """Return what hears of each step when it begins, and says it with words before."""

        def watch(what: str) -> None:
            self.ends()
            self._has_begun = True
            self.say(before + what)

        return watch

    def ends(self) -> None:
        """Note that what began last is done."""
        if self._amount is not None and self._has_begun:
            self._amount.moves(1)


def _builds(settings: Settings, room: Path, task: Task, daemon: Daemon) -> dict[str, Build]:
    if task.source is None:
        return made_builds(room / "builds", quick=task.quick)
    with _opened(settings, room, task.source, daemon) as image:
        return {IMAGE: build_of(room / "builds", image)}


@contextmanager
def _opened(settings: Settings, room: Path, source: str, daemon: Daemon) -> Generator[Image]:
    if is_source(source):
        access = Access(docker_host=daemon.url)
        with (
            about(f"reading {source}"),
            Store.create(room / "scratch") as store,
            open_source(source, store, access=access) as opened,
        ):
            yield read_image(opened, lambda: None)
        return
    with (
        about(f"reading {source} of {settings.store}"),
        Store.open(settings.store) as store,
        store_source(store, store.find(source)) as opened,
    ):
        yield read_image(opened, lambda: None)
