"""How long does the exporter take, next to what no exporter can do without?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ocistow.bench.measure import Contestant, Result, Steps, compare
from ocistow.bench.processes import OCISTOW, Sample, timed
from ocistow.bench.servers import mounted, require
from ocistow.testing.images import image_layout

from .bench import HOST, MIB, Bench, add
from .programs import COMPRESS

FIRST, UNCHANGED, CHANGED = "first build", "unchanged", "one file changed"
LIFECYCLE = "OCISTOW_LIFECYCLE_DIR"  # where the programs of Go's lifecycle are, if they are
API = {"CNB_PLATFORM_API": "0.13", "CNB_EXPERIMENTAL_MODE": "quiet"}
THREADS = "2"

# What every exporter has to do: read, hash, compress, hash, write, sync; each layer by itself.
_PACK = """\
pack() {
    tar -C "$1" -cf - . | tee >(sha256sum >"$2.diffid") | "$3" -1 | tee "$2" | sha256sum
    sync "$2"
}
for tree; do pack "$tree" "$target/${tree##*/}" "$program" & done
wait
"""
_HASH = 'for tree; do tar -C "$tree" -cf - . | sha256sum & done; wait'


@dataclass(frozen=True, slots=True)
class _Build:
    """What a build left: a layer with a JRE, and an application.

    Attributes:
        tars: of the two, for what only compresses.
    """

    path: Path

    @property
    def layers(self) -> Path:
        return self.path / "layers"

    @property
    def jre(self) -> Path:
        return self.layers / "bench_jdk" / "jre"

    @property
    def app(self) -> Path:
        return self.path / "app"

    @property
    def tars(self) -> tuple[Path, Path]:
        return self.path / "jre.tar", self.path / "app.tar"

    def change(self) -> None:
        """Change one file of the application."""
        (self.app / "changed").write_bytes(os.urandom(1000))

    def forget(self) -> None:
        """Remove what an export left."""
        for name in ("analyzed.toml", "report.toml"):
            (self.layers / name).unlink(missing_ok=True)


_Phase = Callable[[str, Path, _Build], Sample]


def run(bench: Bench) -> Iterator[Result]:
    require("tar", "bash", "gzip", "sha256sum")
    build = _build(bench)
    baselines: dict[str, Contestant] = {
        f"tar, sha256sum, {_packer()} -1": partial(_with_tools, bench, build),
        f"ISA-L alone, {THREADS} cores": lambda: {FIRST: timed(*COMPRESS, THREADS, *build.tars)},
        "write and sync alone": partial(_write, bench, build),
    }
    if LIFECYCLE in os.environ:
        real = Path(os.environ[LIFECYCLE])
        baselines["Go's exporter"] = lambda: _onto_directory(bench, build, _programs(real))
    programs = bench.empty("programs")
    timed(*OCISTOW, "phase", "install", programs)
    ours: dict[str, Contestant] = {
        "onto a directory": partial(_onto_directory, bench, build, _programs(programs)),
        "onto a mount": partial(_onto_mount, bench, build, _programs(programs)),
    }
    for name, contestant in ours.items():
        contestants = {name: contestant, **baselines}
        yield from _with_memory(compare("export", contestants, bench.rounds))


def _build(bench: Bench) -> _Build:
    build = _Build(bench.empty("build"))
    bench.trees(jre=build.jre, app=build.app)
    build.change()
    (build.jre.parent / "jre.toml").write_text("[types]\nlaunch = true\n")
    (build.layers / "config").mkdir()
    (build.layers / "config" / "metadata.toml").write_text(
        '[[buildpacks]]\nid = "bench/jdk"\nversion = "1"\napi = "0.10"\n'
        '[[processes]]\ntype = "web"\ncommand = ["java"]\n'
    )
    (build.layers / "group.toml").write_text(
        '[[group]]\nid = "bench/jdk"\nversion = "1"\napi = "0.10"\n'
    )
    (build.path / "launcher").write_bytes(os.urandom(3 * MIB))
    (build.path / "run.toml").write_text(f'[[images]]\nimage = "{HOST}/run"\n')
    for tree, tar in zip((build.jre, build.app), build.tars, strict=True):
        timed("tar", "-C", tree, "-cf", tar, ".")
    return build


def _onto_directory(bench: Bench, build: _Build, phase: _Phase) -> Steps:
    names = bench.empty("oci")
    image_layout(names / HOST / "run" / "latest", layers=1)
    return _builds(build, lambda program: phase(program, names, build))


def _onto_mount(bench: Bench, build: _Build, phase: _Phase) -> Steps:
    store = bench.fresh("store")
    add(store, image_layout(bench.fresh("run"), layers=1).path, "run")
    with mounted(store) as mount:
        return _builds(build, lambda program: phase(program, mount.path, build))


def _builds(build: _Build, phase: Callable[[str], Sample]) -> Steps:
    """Export three times, after an analyzer each, which is not timed."""
    found: dict[str, Sample] = {}
    build.forget()
    for step in (FIRST, UNCHANGED, CHANGED):
        if step is CHANGED:
            build.change()
        phase("analyzer")
        found[step] = phase("exporter")
    return found


def _programs(directory: Path) -> _Phase:
    def phase(program: str, layouts: Path, build: _Build) -> Sample:
        return timed(directory / program, *_words(program, layouts, build), environment=API)

    return phase


def _words(program: str, directory: Path, build: _Build) -> list[str]:
    options: Mapping[str, Path | int | str] = {
        "layout-dir": directory,
        "layers": build.layers,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "log-level": "error",
        **(
            {"run-image": f"{HOST}/run"}
            if program == "analyzer"
            else {"app": build.app, "launcher": build.path / "launcher"}
        ),
        "run": build.path / "run.toml",
    }
    words = [f"-{name}={value}" for name, value in options.items()]
    return ["-layout", *words, f"{HOST}/app"]


def _with_tools(bench: Bench, build: _Build) -> Steps:
    build.forget()
    target = bench.empty("packed")
    environment = {"target": str(target), "program": _packer()}

    def script(text: str, *trees: Path) -> Sample:
        return timed("bash", "-c", text, "bash", *trees, environment=environment)

    first = script(_PACK, build.jre, build.app)
    unchanged = script(_HASH, build.jre, build.app)
    build.change()
    changed = script(_HASH, build.jre) + script(_PACK, build.app)
    return {FIRST: first, UNCHANGED: unchanged, CHANGED: changed}


def _write(bench: Bench, build: _Build) -> Steps:
    """Write as many bytes as the packed layers have."""
    packed, target = bench.fresh("content"), bench.fresh("written")
    with packed.open("wb") as file:
        file.write(os.urandom(sum(tar.stat().st_size for tar in build.tars) * 2 // 5))
    return {FIRST: timed("dd", f"if={packed}", f"of={target}", "bs=1M", "conv=fsync")}


def _packer() -> str:
    return "pigz" if shutil.which("pigz") else "gzip"


def _with_memory(results: list[Result]) -> Iterator[Result]:
    """Yield what was measured, and how much memory our first exports took."""
    for result in results:
        yield result
        if result.step == FIRST:
            yield replace(result, scenario="export, peak memory", unit="B")
