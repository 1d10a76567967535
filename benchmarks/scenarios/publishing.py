"""How long does it take to publish to a registry and a Docker daemon, next to skopeo?"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .bench import GIB, HOST, Bench, add, ocistow, skopeo
from .measure import Result, Steps, compare
from .processes import ENVIRONMENT, Sample
from .realistic import builds
from .servers import docker_daemon, registry, require

_DISK = 24 * GIB  # bytes, sparse
_NAME = f"{HOST}/app:latest"


def to_registry(bench: Bench) -> Iterator[Result]:
    require("skopeo", "docker-registry")
    store = bench.fresh("store")
    add(store, bench.app.path, "app")
    add(store, bench.rebuilt.path, "rebuilt")

    def steps(push: Callable[[str, Path, str], Sample]) -> Steps:
        with registry(bench.fresh("registry")) as host:
            target = f"{host}/bench/app:latest"
            return {
                "empty": push("app", bench.app.path, target),
                "second build": push("rebuilt", bench.rebuilt.path, target),
                "unchanged": push("rebuilt", bench.rebuilt.path, target),
            }

    def ours(name: str, _: Path, target: str) -> Sample:
        return ocistow(store, "publish", f"{HOST}/{name}", f"docker://{target}")

    def theirs(_: str, path: Path, target: str) -> Sample:
        return skopeo("--dest-tls-verify=false", f"oci:{path}:latest", f"docker://{target}")

    yield from compare(
        "publish docker://",
        {"ocistow publish": lambda: steps(ours), "skopeo copy": lambda: steps(theirs)},
        bench.rounds,
    )


def to_daemon(bench: Bench) -> Iterator[Result]:
    require("skopeo")
    layout = builds(bench.fresh("realistic"), quick=bench.quick)
    store = bench.fresh("store")
    for tag in ("run", "first", "second"):
        ocistow(store, "add", f"oci:{layout}:{tag}", f"{HOST}/app:{tag}")
    with docker_daemon(bench.empty("docker"), _DISK) as host:

        def ours(tag: str) -> Sample:
            target = f"docker-daemon:{_NAME}"
            return ocistow(store, "publish", f"{HOST}/app:{tag}", target, docker_host=host)

        def theirs(tag: str) -> Sample:
            source, target = f"oci:{layout}:{tag}", f"docker-daemon:{_NAME}"
            return skopeo("--dest-daemon-host", host, source, target)

        def steps(send: Callable[[str], Sample]) -> Steps:
            _remove_images(host)
            found = {
                "empty daemon": send("first"),
                "second build": send("second"),
                "unchanged": send("second"),
            }
            _remove_images(host)
            theirs("run")
            return {**found, "base present": send("first")}

        yield from compare(
            "publish docker-daemon:",
            {"ocistow publish": lambda: steps(ours), "skopeo copy": lambda: steps(theirs)},
            bench.rounds,
        )


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
