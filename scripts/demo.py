"""Show in half a minute what ocistow does, in a temporary directory that is gone afterwards."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import ocistow
from ocistow.testing.images import GeneratedImage, busybox_image, image_layout
from ocistow.testing.registry import Registry
from ocistow.testing.tarballs import BUSYBOX

MIB = 1024 * 1024
HOST = "demo.example"
APPS = ("web", "worker")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOCKER_SOCKET = Path("/var/run/docker.sock")
OUTPUT_LINES = 12  # of a command; more hides what matters
FILES = {  # what a build with buildpacks starts from
    "source/page": "hello from a buildpack\n",
    "platform/env/NAME": "demo",
    "launcher": "that of a lifecycle would start the app\n",
    "order.toml": '[[order]]\n[[order.group]]\nid = "pages"\nversion = "1"\n',
    "buildpacks/pages/1/buildpack.toml": 'api = "0.10"\n[buildpack]\nid = "pages"\nversion = "1"\n',
    "buildpacks/pages/1/bin/detect": "#!/bin/sh\ntest -f page\n",
    "buildpacks/pages/1/bin/build": """#!/bin/sh
echo "a page is $(wc -c < page) bytes"
echo '[[processes]]
type = "web"
command = ["/bin/cat", "page"]
default = true' > "$1/launch.toml"
""",
}
POLL = 0.05  # seconds
PATIENCE = 20.0  # seconds for a process to start or to end


class Interrupted(Exception):
    """A signal asked the demo to end."""


class Failed(Exception):
    """A command that the demo needs failed."""


class Stop:
    """Remembers a signal until the demo looks, so that no step is cut in half."""

    def __init__(self) -> None:
        self._number = 0
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = number

    def check(self) -> None:
        """Raise when the demo shall end."""
        if self._number:
            raise Interrupted(self._number)


class Demo:
    """Numbered headlines, the commands below them, and what these print."""

    def __init__(self, work: Path, stop: Stop) -> None:
        self.work = work
        self.stop = stop
        self._step = 0
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("OCISTOW_")
        }
        self._environment["OCISTOW_STORE"] = str(work / "store")
        self._environment |= {"CNB_PLATFORM_API": "0.15", "NO_COLOR": "1"}
        # the same ocistow as here, also when it is not installed
        self._environment["PYTHONPATH"] = str(Path(ocistow.__file__).parents[1])

    def say(self, text: str) -> None:
        """Begin a step."""
        self.stop.check()
        self._step += 1
        print(f"\n{self._step}. {text}\n", flush=True)

    def note(self, text: str) -> None:
        """Print what the reader should see in the lines above."""
        print(f"   {text}", flush=True)

    def run(self, *command: str, quiet: bool = False, whole: bool = False) -> None:
        """Run a command in the demo's directory and show what it prints.

        It has its own session, so that a Ctrl-C reaches only the demo. With `whole`
        the demo waits for its end even then.

        Raises:
            Failed: it did not exit with 0.
        """
        if not quiet:
            print(f"   $ {shlex.join(command)}", flush=True)
        with (self.work / "output").open("w+b") as output:
            process = subprocess.Popen(
                real(command),
                cwd=self.work,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while True:
                try:
                    status = process.wait(POLL)
                    break
                except subprocess.TimeoutExpired:
                    if not whole:
                        self._end_if_interrupted(process)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if status or not quiet:
            show(text)
        if status:
            raise Failed(f"{shlex.join(command)}: exit status {status}")

    def _end_if_interrupted(self, process: subprocess.Popen[bytes]) -> None:
        try:
            self.stop.check()
        except Interrupted:
            end(process)
            raise


def main() -> int:
    """Run the demo; what it started, mounted and wrote is gone when this returns."""
    stop = Stop()
    try:
        with tempfile.TemporaryDirectory(prefix="ocistow-demo-") as directory:
            perform(Demo(Path(directory), stop))
    except Interrupted as interrupted:
        print("\ninterrupted; nothing is left behind", file=sys.stderr)
        return 128 + int(interrupted.args[0])
    except Failed as failed:
        print(f"\n{failed}", file=sys.stderr)
        return 1
    return 0


def perform(demo: Demo) -> None:
    """Go through the steps."""
    base = make_base(demo.work / "builder")
    with ExitStack() as stack:
        demo.say("A base image goes into a new store: a pool of blobs under plain OCI layouts.")
        demo.run("ocistow", "add", "oci:builder:base", f"{HOST}/base:1")

        if os.access("/dev/fuse", os.R_OK | os.W_OK):
            demo.say("The store is mounted; any tool that knows OCI layouts can use it.")
            stack.enter_context(mounted(demo, "oci"))
            demo.run("ls", f"oci/{HOST}/base/1")
            demo.say("Two app images are built on the base, through the mount.")
            before = on_disk(demo.work / "store")
            for number, app in enumerate(APPS, start=2):
                build(demo, base, app, number)
            grown = on_disk(demo.work / "store") - before
            demo.note(f"The store grew by {grown / 1000:.0f} kB: the base was not written again.")
            demo.run("ls", f"oci/.archives/{HOST}/{APPS[0]}")
            demo.note("The mount computes these archives of the image while they are read.")
        else:
            demo.say("Two app images are added; /dev/fuse cannot be opened, so nothing is mounted.")
            for number, app in enumerate(APPS, start=2):
                make_app(demo.work / "builder", base, app, number)
                demo.run("ocistow", "add", f"oci:builder:{app}", f"{HOST}/{app}:1")

        demo.say("What each image costs, what they share, and what they would cost apart.")
        demo.run("ocistow", "du")
        demo.run("ocistow", "du", "--html", "usage.html")

        apps: tuple[str, ...] = (*APPS, APPS[-1])
        if (demo.work / "oci").exists():
            demo.say("A buildpack builds an app upon the base: only its own layers are written.")
            build_with_buildpacks(demo)
            apps = (*apps, "built")

        kind, host = stack.enter_context(registry(demo))
        demo.say(f"The images are published to {kind}: only what it lacks is sent.")
        for app in apps:
            demo.run("ocistow", "publish", f"{HOST}/{app}:1", f"docker://{host}/apps:{app}")

        publish_to_daemon(demo)

    demo.say("Every blob is read again; what no image needs any more is freed.")
    demo.run("ocistow", "verify")
    demo.run("ocistow", "rm", f"{HOST}/{APPS[-1]}:1")
    demo.run("ocistow", "gc", "--grace", "0")

    demo.say("Without ocistow every image is still there, complete, as an OCI image layout.")
    layout = f"store/layouts/{HOST}/web/1"
    if shutil.which("skopeo"):
        form = "{{.Digest}}  {{.Os}}/{{.Architecture}}  {{len .Layers}} layers"
        demo.run("skopeo", "inspect", "--format", form, f"oci:{layout}")
    demo.note(
        f"All {count_true_blobs(demo.work / layout)} blobs in it have the digests they claim."
    )
    demo.stop.check()
    print("\nDone; the demo's directory is removed.", flush=True)


def make_base(path: Path) -> GeneratedImage:
    """Make an image that is large enough to be seen, and that can run where busybox is."""
    busybox = busybox_image(path, tag="busybox") if BUSYBOX.exists() else None
    return image_layout(
        path, seed=1, layers=2, layer_size=12 * MIB, tag="base", base=busybox, compression="none"
    )


def make_app(path: Path, base: GeneratedImage, app: str, seed: int) -> None:
    """Make an image with one layer over the base."""
    image_layout(path, seed=seed, layers=1, layer_size=100_000, tag=app, base=base)


def build(demo: Demo, base: GeneratedImage, app: str, seed: int) -> None:
    """Write an image through the mount, with real tools where they are installed."""
    target = f"oci/{HOST}/{app}"
    demo.run("mkdir", "-p", f"{target}/1")
    if shutil.which("skopeo") and shutil.which("umoci"):
        (demo.work / "hello").write_text(f"hello from {app}\n")
        demo.run("skopeo", "copy", "--quiet", f"oci:oci/{HOST}/base/1:1", f"oci:{target}/1:1")
        demo.run("umoci", "insert", "--image", f"{target}/1:1", "hello", "/hello")
        return
    make_app(demo.work / app, base, "1", seed)
    demo.run("cp", "-r", f"{app}/.", f"{target}/1")


def build_with_buildpacks(demo: Demo) -> None:
    """Run the phases of a Cloud Native Buildpacks build on the mount."""
    for name, content in FILES.items():
        path = demo.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    (demo.work / "layers").mkdir()
    given = [
        "-app",
        "source",
        "-layers",
        "layers",
        "-platform",
        "platform",
        "-launcher",
        "launcher",
    ]
    given += ["-buildpacks", "buildpacks", "-order", "order.toml", "-log-level", "error"]
    user = ["-uid", str(os.getuid()), "-gid", str(os.getgid())]
    images = ["-oci", "-oci-dir", "oci", "-run-image", f"{HOST}/base:1", f"{HOST}/built:1"]
    demo.run("ocistow", "phase", "create", *given, *user, *images)
    demo.run("ocistow", "du", f"{HOST}/built:1")


@contextmanager
def mounted(demo: Demo, mountpoint: str) -> Generator[None]:
    """Mount the store; unmount it whatever happens."""
    path = demo.work / mountpoint
    path.mkdir()
    try:
        demo.run("ocistow", "mount", mountpoint, "--background", whole=True)
        yield
    finally:
        if os.path.ismount(path):
            try:
                demo.run("ocistow", "umount", mountpoint, quiet=True, whole=True)
            except Failed:
                demo.run("fusermount3", "-u", "-z", mountpoint, quiet=True, whole=True)


@contextmanager
def registry(demo: Demo) -> Generator[tuple[str, str]]:
    """Start a registry on loopback; yield what it is and its `host:port`."""
    program = shutil.which("docker-registry")
    if program is None:
        with Registry() as inside:
            yield "a registry inside this process", inside.host
        return
    (demo.work / "registry.yml").write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {demo.work}/registry}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    with (demo.work / "registry.log").open("wb") as log:
        server = subprocess.Popen(
            [program, "serve", "registry.yml"],
            cwd=demo.work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield "a registry on this machine", listening(demo, server)
    finally:
        end(server)


def listening(demo: Demo, server: subprocess.Popen[bytes]) -> str:
    """Return where the registry says that it listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        demo.stop.check()
        log = (demo.work / "registry.log").read_text(errors="replace")
        if found := re.search(r"listening on (127\.0\.0\.1:[0-9]+)", log):
            return found[1]
        time.sleep(POLL)
    raise Failed("docker-registry did not start")


def publish_to_daemon(demo: Demo) -> None:
    """Load an image into the Docker daemon and run it, where there is one that answers."""
    if not (os.environ.get("DOCKER_HOST") or answers(DOCKER_SOCKET)):
        return
    demo.say("The Docker daemon gets one too, without a temporary archive.")
    name = f"{HOST}/web:demo-{os.getpid()}"
    try:
        demo.run("ocistow", "publish", f"{HOST}/web:1", f"docker-daemon:{name}")
        if shutil.which("docker") and BUSYBOX.exists():
            demo.run("docker", "run", "--rm", "--network", "none", name, "/bin/cat", "/hello")
    finally:
        if shutil.which("docker"):
            demo.run("docker", "rmi", "--force", name, quiet=True, whole=True)


def answers(path: Path) -> bool:
    """Tell whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def real(command: tuple[str, ...]) -> list[str]:
    """Return what to execute: ocistow of this very Python, wherever it is installed."""
    if command[0] == "ocistow":
        return [sys.executable, "-m", "ocistow.cli", *command[1:]]
    return list(command)


def show(text: str) -> None:
    """Print the output of a command, with long digests and long lists cut."""
    lines = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text).splitlines()
    for line in lines[:OUTPUT_LINES]:
        print(f"     {line}")
    if len(lines) > OUTPUT_LINES:
        print(f"     ... {len(lines) - OUTPUT_LINES} more lines")
    sys.stdout.flush()


def count_true_blobs(layout: Path) -> int:
    """Return how many blobs a layout has.

    Raises:
        Failed: one is not what its name says.
    """
    blobs = list((layout / "blobs" / "sha256").iterdir())
    for blob in blobs:
        with blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
                raise Failed(f"{blob}: content does not have the digest that names it")
    return len(blobs)


def on_disk(directory: Path) -> int:
    """Return the bytes that the files below take; hard links count once."""
    files = (path.lstat() for path in directory.rglob("*") if path.is_file())
    return sum({(file.st_dev, file.st_ino): file.st_blocks * 512 for file in files}.values())


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if need be the hard way."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
