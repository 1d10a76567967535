"""A shell in which the commands of a page mean what a reader takes them to mean."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocistow.testing.images import busybox_image, image_layout

from .page import ROOT, Command

TIMEOUT = 120.0  # seconds for a page
LAYER = 12 << 20
_REGISTRY = """
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: "127.0.0.1:5000"}
"""
_INSECURE = """
[[registry]]
location = "localhost:5000"
insecure = true
"""
_STORAGE = """
[storage]
driver = "vfs"
graphroot = "%s/podman"
runroot = "%s/run"
"""
_START = """
ip link set lo up
mount -t tmpfs none /var/lib  # where the default store of root is
docker-registry serve {state}/registry.yml >{state}/registry.log 2>&1 &
until (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.02; done
cd {home}
"""
_STEP = """
{{ {command}
}} >{state}/{number}.output 2>&1
echo $? >{state}/{number}.status
{check}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    command: Command
    status: int
    output: str


def run(
    commands: Sequence[Command], images: Path, directory: Path, variables: Mapping[str, str]
) -> list[Done]:
    """Run commands in order, one shell for all, and return those that were begun.

    The working directory has a copy of `images`, as `make_images` makes them; a registry
    listens on localhost:5000. Processes, mounts and network are the shell's, and end with it.
    A command that fails is the last, unless the next asks for its status.
    """
    home, state = directory / "home", directory / "state"
    (state / "bin").mkdir(parents=True)
    (home / ".config" / "containers").mkdir(parents=True)
    shutil.copytree(images, home, dirs_exist_ok=True)
    (home / ".config" / "containers" / "registries.conf").write_text(_INSECURE)
    (state / "registry.yml").write_text(_REGISTRY % (state / "registry"))
    (state / "storage.conf").write_text(_STORAGE % (state, state))
    program(state / "bin" / "ocistow", f'exec {sys.executable} -m ocistow.cli "$@"')
    (state / "script").write_text(script(commands, home, state))
    here = Path(sys.executable).parent  # of the python that has our dependencies
    subprocess.run(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("bash", state / "script"),
        ],
        env={
            **{name: text for name, text in os.environ.items() if not name.startswith("OCISTOW_")},
            **variables,
            "COLUMNS": "120",
            "CONTAINERS_STORAGE_CONF": str(state / "storage.conf"),
            "HOME": str(home),
            "NO_COLOR": "1",
            "PATH": f"{state / 'bin'}:{here}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT / "src"),
        },
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
        check=False,
    )
    statuses = ((n, state / f"{n}.status") for n in range(len(commands)))
    return [
        Done(commands[n], int(file.read_text()), (state / f"{n}.output").read_text())
        for n, file in statuses
        if file.exists()
    ]


def script(commands: Sequence[Command], home: Path, state: Path) -> str:
    """Return what the shell reads."""
    text = _START.format(home=home, state=state)
    for number, command in enumerate(commands):
        asked = number + 1 < len(commands) and commands[number + 1].text == "echo $?"
        check = f'(exit "$(cat {state}/{number}.status)")' + ("" if asked else " || exit")
        text += _STEP.format(command=command.text, number=number, state=state, check=check)
    return text


def make_images(directory: Path) -> None:
    """Make the layout `base` with the image `1` of 26 MB, and `app` with one more layer."""
    base, app = directory / "base", directory / "app"
    below = busybox_image(base)
    (base / "index.json").unlink()  # an image of its own would be one more
    image = image_layout(base, layers=2, layer_size=LAYER, tag="1", compression="none", base=below)
    for digest in (below.manifest, below.config):
        below.blob(digest).unlink()
    shutil.copytree(base / "blobs", app / "blobs")
    image_layout(app, seed=1, layers=1, layer_size=100, tag="1", base=image)
    for digest in (image.manifest, image.config):
        (app / image.blob(digest).relative_to(base)).unlink()


def program(path: Path, line: str) -> None:
    """Write a shell script of one line."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
