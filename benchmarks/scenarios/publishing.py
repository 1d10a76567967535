"""How long does it take to publish to registries and daemons, next to skopeo and ctr?"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ocistow.bench.apps import Apps
from ocistow.bench.measure import Result, Steps, compare
from ocistow.bench.processes import ENVIRONMENT, Sample, timed
from ocistow.bench.servers import Containerd, containerd, docker_daemon, registry, require

from .bench import GIB, HOST, Bench, ocistow, skopeo

_DISK = 24 * GIB  # bytes, sparse
_NAME = f"{HOST}/app:latest"
_SKOPEO = "skopeo copy"

Send = Callable[[str], Sample]  # sends the image with a tag


def to_registry(bench: Bench) -> Iterator[Result]:
    """Push two builds, one of them twice; then another application to another repository."""
    require("skopeo", "docker-registry")
    store = _filled(bench)

    def ours(tag: str, target: str) -> Sample:
        return ocistow(store, "publish", f"{HOST}/app:{tag}", target)

    def theirs(tag: str, target: str) -> Sample:
        return skopeo("--dest-tls-verify=false", _layout(bench.apps, tag), target)

    def steps(push: Callable[[str, str], Sample], app: str) -> Steps:
        other = "kotlin" if app == "java" else "java"  # has the run image, too
        with registry(bench.fresh("registry")) as server:
            target = f"docker://{server.host}/bench/{app}:latest"
            return {
                "empty": push(app, target),
                "second build": push(f"{app}2", target),
                "unchanged": push(f"{app}2", target),
                "other repository": push(other, f"docker://{server.host}/bench/{other}:latest"),
            }

    for app in bench.names:
        yield from compare(
            f"registry, {app}",
            {"ocistow publish": partial(steps, ours, app), _SKOPEO: partial(steps, theirs, app)},
            bench.rounds,
        )


def to_daemon(bench: Bench) -> Iterator[Result]:
    """Load two builds, one of them twice; then one where only the run image is."""
    require("skopeo")
    store = _filled(bench)
    with docker_daemon(bench.empty("docker"), _DISK) as host:

        def ours(tag: str) -> Sample:
            target = f"docker-daemon:{_NAME}"
            return ocistow(store, "publish", f"{HOST}/app:{tag}", target, docker_host=host)

        def theirs(tag: str) -> Sample:
            return _into_docker(bench.apps, host, tag)

        def steps(send: Send, app: str) -> Steps:
            _remove_images(host)
            found = {
                "empty daemon": send(app),
                "second build": send(f"{app}2"),
                "unchanged": send(f"{app}2"),
            }
            _remove_images(host)
            theirs("run")
            return {**found, "run image present": send(app)}

        for app in bench.names:
            yield from compare(
                f"docker daemon, {app}",
                {
                    "ocistow publish": partial(steps, ours, app),
                    _SKOPEO: partial(steps, theirs, app),
                },
                bench.rounds,
            )


def through_daemon(bench: Bench) -> Iterator[Result]:
    """The loop of a build: the run image out of the daemon, the application into it."""
    require("skopeo")
    with docker_daemon(bench.empty("docker"), _DISK) as host:

        def ours(app: str) -> Steps:
            store = bench.fresh("store")

            def take() -> Sample:
                source = "docker-daemon:run.example/run:latest"
                return ocistow(store, "add", source, f"{HOST}/run", docker_host=host)

            def send(tag: str) -> Sample:
                name = f"{HOST}/app:{tag}"
                ocistow(store, "add", _layout(bench.apps, tag), name)  # what an exporter does
                target = f"docker-daemon:{_NAME}"
                return ocistow(store, "publish", name, target, docker_host=host)

            return loop(app, take, send)

        def theirs(app: str) -> Steps:
            def take() -> Sample:
                source = "docker-daemon:run.example/run:latest"
                target = f"oci:{bench.fresh('taken')}:latest"
                return skopeo("--src-daemon-host", host, source, target)

            return loop(app, take, lambda tag: _into_docker(bench.apps, host, tag))

        def loop(app: str, take: Callable[[], Sample], send: Send) -> Steps:
            _remove_images(host)
            _into_docker(bench.apps, host, "run", "run.example/run:latest")
            return {
                f"first build, {app}": take() + send(app),
                f"second build, {app}": take() + send(f"{app}2"),
            }

        for app in bench.names:
            yield from compare(
                "daemon, build, daemon",
                {
                    "ocistow add, publish": partial(ours, app),
                    "skopeo copy, twice": partial(theirs, app),
                },
                bench.rounds,
            )


def to_containerd(bench: Bench) -> Iterator[Result]:
    """Import two builds into containerd."""
    store = _filled(bench)
    archives = {tag: _archive(bench, store, tag) for app in bench.names for tag in (app, f"{app}2")}
    with containerd(bench.empty("containerd"), _DISK) as server:

        def ours(tag: str) -> Sample:
            target = f"containerd:{_NAME}"
            options = ("--containerd-address", server.address)
            return ocistow(store, "publish", *options, f"{HOST}/app:{tag}", target)

        def theirs(tag: str) -> Sample:
            return timed(*server.ctr, "images", "import", archives[tag])

        def steps(send: Send, app: str) -> Steps:
            _remove_records(server)
            return {"empty": send(app), "second build": send(f"{app}2")}

        for app in bench.names:
            yield from compare(
                f"containerd, {app}",
                {
                    "ocistow publish": partial(steps, ours, app),
                    "ctr images import": partial(steps, theirs, app),
                },
                bench.rounds,
            )


def _filled(bench: Bench) -> Path:
    """Return a store with all images."""
    store = bench.fresh("store")
    for tag in bench.apps.tags:
        ocistow(store, "add", _layout(bench.apps, tag), f"{HOST}/app:{tag}")
    return store


def _layout(apps: Apps, tag: str) -> str:
    return f"oci:{apps.path}:{tag}"


def _archive(bench: Bench, store: Path, tag: str) -> Path:
    path = bench.directory / "images" / f"{tag}.tar"
    ocistow(store, "publish", f"{HOST}/app:{tag}", f"oci-archive:{path}:{_NAME}")
    return path


def _into_docker(apps: Apps, host: str, tag: str, name: str = _NAME) -> Sample:
    return skopeo("--dest-daemon-host", host, _layout(apps, tag), f"docker-daemon:{name}")


def _remove_images(host: str) -> None:
    docker = ("docker", "--host", host)
    listed = subprocess.run(
        [*docker, "images", "--all", "--quiet", "--no-trunc"],
        check=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    if identifiers := sorted(set(listed.stdout.split())):
        command = [*docker, "rmi", "--force", *identifiers]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def _remove_records(server: Containerd) -> None:
    """Remove all images, and wait until their content is gone."""
    listed = subprocess.run(
        [*server.ctr, "images", "ls", "-q"], check=True, capture_output=True, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    if names := listed.stdout.split():
        command = [*server.ctr, "images", "rm", "--sync", *names]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
