"""The ways in turns: four builds each, and the image that they must agree on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..oci.digest import Digest
from ..oci.errors import InvalidContent
from ..oci.reference import Reference
from ..publish.access import Access
from ..publish.copy import read_image
from ..publish.distribution.hosts import open_repository
from ..publish.registry import RegistrySource
from .builds import PATCHED, RUN, Build
from .daemon import Daemon
from .launch import traffic
from .measure import Result, Steps, compare
from .processes import ProgramFailed, Sample, forget_peak, peak_of, warm_memory, warmth
from .room import APP, Room
from .servers import Missing, Registry, registry
from .ways import OURS, Way, open_way

FIRST, SECOND, UNCHANGED, REBASE = "first build", "second build", "unchanged", "rebase"
STEPS = (FIRST, SECOND, UNCHANGED, REBASE)
IN, EXPORT, OUT = "in", "export", "out"
PUSH = "to a registry"
_DISK = "disk"
_PATIENCE, _POLL = 10.0, 0.01  # seconds
_SHARE = 4  # times the size of a build: what a way writes, and some more


@dataclass(slots=True)
class Agreement:
    """What each step's image consists of, which all ways must agree on."""

    _found: dict[str, tuple[str, tuple[Digest, ...]]] = field(
        default_factory=dict[str, tuple[str, tuple[Digest, ...]]]
    )

    def wait(self, step: str, found: Callable[[], tuple[Digest, ...]]) -> tuple[Digest, ...]:
        """Return what is `found`, as soon as it is what others made, or at last.

        skopeo does not read a daemon's answer to the end, and this begins before a name that
        was another image's is that of the new one.
        """
        diff_ids = found()
        _, expected = self._found.get(step, ("", diff_ids))
        deadline = time.monotonic() + _PATIENCE
        while diff_ids != expected and time.monotonic() < deadline:
            time.sleep(_POLL)
            diff_ids = found()
        return diff_ids

    def check(self, step: str, way: str, diff_ids: tuple[Digest, ...]) -> None:
        """Compare with what others made.

        Raises:
            InvalidContent: it is another image, or none.
        """
        other, expected = self._found.setdefault(step, (way, diff_ids))
        if diff_ids != expected or not diff_ids:
            raise InvalidContent(
                f"{step}: {way} made an image of {len(diff_ids)} layers with other diffIDs than "
                f"{other}: {' '.join(map(str, diff_ids))}, not {' '.join(map(str, expected))}"
            )


@dataclass(frozen=True, slots=True)
class Contest:
    """What the ways are compared with.

    Attributes:
        directory: where they work.
        ways: of `open_way`; ocistow's first.
        lifecycle: where the programs of Go's lifecycle are, for one contestant more.
        has_registry: whether images are also sent into a registry.
        has_traffic: whether it is known what the daemon moved; else it is not told of anybody.
        steps: which builds are done, the first ones of `STEPS`.
        watch: is told what goes on.
    """

    directory: Path
    build: Build
    daemon: Daemon
    ways: Sequence[str]
    lifecycle: Path | None = None
    can_mount: bool = True
    has_registry: bool = True
    has_traffic: bool = True
    steps: Sequence[str] = STEPS
    watch: Callable[[str], None] = lambda _: None

    def results(self, scenario: str, rounds: int) -> Iterator[Result]:
        """Let them run, and yield what is known of each step.

        Raises:
            InvalidContent: two ways made different images.
            ProgramFailed: one did not work.
        """
        agreement = Agreement()
        self.load()
        contestants = {
            name: partial(self.cycle, name, agreement, self.steps) for name in self.contestants()
        }
        for result in compare(scenario, contestants, rounds):
            if result.step == _DISK:
                yield _of_bytes(result, "on disk", lambda sample: sample.peak)
                continue
            yield result
            if result.step in STEPS:
                if self.has_traffic:
                    yield _of_bytes(result, "moved", lambda sample: sample.moved)
                    yield _of_bytes(result, "written", lambda sample: sample.written)
                yield _of_bytes(result, "memory", lambda sample: sample.peak)

    def steps_of(self, rounds: int) -> int:
        """Return how often `watch` is told something in so many rounds."""
        return rounds * len(self.contestants()) * (len(self.steps) + self.has_registry)

    @property
    def rehearsal(self) -> Contest:
        """The first build alone."""
        return replace(self, steps=self.steps[:1])

    def rehearse(self) -> dict[str, str]:
        """Let each way build once, and return which of them fail, and why; ours must not."""
        failed: dict[str, str] = {}
        agreement = Agreement()
        self.load()
        for name in self.contestants():
            try:
                self.cycle(name, agreement, self.rehearsal.steps)
            except (ProgramFailed, Missing) as error:
                if name == OURS:
                    raise
                failed[name] = str(error)
        return failed

    def load(self) -> None:
        """Let the daemon have the run images."""
        for image in (RUN, PATCHED):
            self.daemon.load(self.build.images, image)

    def contestants(self) -> list[str]:
        """Return what they are called."""
        more = ["daemon, Go's lifecycle"] if self.lifecycle is not None else []
        return [*self.ways, *more]

    def cycle(self, name: str, agreement: Agreement, steps: Sequence[str]) -> Steps:
        """Let one way do its builds, with servers and files of its own."""
        way, _, is_go = name.partition(", ")
        directory = self.directory / "way"
        directory.mkdir()
        lifecycle = self.lifecycle if is_go else None
        room = Room(directory, self.build, self.daemon, lifecycle, self.can_mount)
        room.begin(self.daemon.name(RUN))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, directory)
            stack.callback(self._forget)
            running = stack.enter_context(open_way[way](room))
            found: dict[str, Sample] = {}
            for step in steps:
                if is_go and step is REBASE:
                    continue  # v0.21.17 finds in no image of a daemon where the run image ends
                found |= self._build(name, running, room, agreement, step)
            return found

    def _build(self, name: str, way: Way, room: Room, agreement: Agreement, step: str) -> Steps:
        """Do one of the builds, and check what became of it."""
        self.watch(f"{name}: {step}")
        app = self.daemon.name(APP)
        image = PATCHED if step is REBASE else RUN
        if step is SECOND:
            self.build.change(2)
        export = way.rebase if step is REBASE else way.export
        samples = self._measured(
            way,
            {IN: partial(way.bring, image), EXPORT: partial(export, image), OUT: way.deliver},
        )
        found = {f"{step}: {part}": sample for part, sample in samples.items()}
        found[step] = _sum(list(samples.values()))
        diff_ids = agreement.wait(step, partial(self.daemon.diff_ids, app))
        agreement.check(step, name, diff_ids)
        # a name that stays, or the next build would leave an image without any
        self.daemon.tag(app, self.daemon.name(f"{APP}{STEPS.index(step)}"))
        if step is FIRST:
            found[_DISK] = Sample(0, 0, room.on_disk())
            if self.has_registry:
                with registry(self.directory / "target") as server:
                    found[PUSH] = self._pushed(name, way, server, agreement)
        return found

    def _pushed(self, name: str, way: Way, server: Registry, agreement: Agreement) -> Sample:
        target = f"{server.host}/bench/app:latest"
        self.watch(f"{name}: {PUSH}")
        sample = self._measured(way, {PUSH: partial(way.push, target)}, server.pid)[PUSH]
        agreement.check(FIRST, f"{name}, in the registry,", _pushed_diff_ids(target))
        return sample

    def _measured(
        self, way: Way, parts: Mapping[str, Callable[[], Sample | None]], *more: int
    ) -> dict[str, Sample]:
        """Do the parts that there are; what servers moved, and their memory, is added."""
        servers = (*way.servers, *more)
        watched = [pid for pid in (self.daemon.pid, *servers) if pid]
        found: dict[str, Sample] = {}
        warm = min(warmth.get(), _SHARE * self.build.size)
        for part, work in parts.items():
            warm_memory(warm)
            for pid in servers:
                forget_peak(pid)
            before = [traffic(pid) for pid in watched]
            sample = work()
            if sample is None:
                continue
            after = [traffic(pid) for pid in watched]
            moved, written = (
                sum(b[kind] - a[kind] for a, b in zip(before, after, strict=True))
                for kind in (0, 1)
            )
            peak = max(sample.peak, *(peak_of(pid) for pid in servers), 0)
            found[part] = replace(
                sample, peak=peak, moved=sample.moved + moved, written=sample.written + written
            )
        return found

    def _forget(self) -> None:
        """Let the daemon have nothing but the run images."""
        names = {self.daemon.name(image) for image in (RUN, PATCHED)}
        self.daemon.close(but=names)


def _pushed_diff_ids(target: str) -> tuple[Digest, ...]:
    reference = Reference.parse(target)
    with open_repository(reference, Access(plain_http=True)) as repository:
        source = RegistrySource(repository, reference)
        _, config = read_image(source, lambda: None).for_one_platform()
    return config.diff_ids


def _sum(samples: Sequence[Sample]) -> Sample:
    first, *others = samples
    return sum(others, first)


def _of_bytes(result: Result, what: str, value: Callable[[Sample], int]) -> Result:
    samples = {
        name: [Sample(0, 0, value(sample)) for sample in found]
        for name, found in result.samples.items()
    }
    step = FIRST if result.step == _DISK else result.step
    return Result(f"{result.scenario}, {what}", step, samples, "B")
