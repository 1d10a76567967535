"""Show what ocistow does, with three small images in a temporary directory."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ocistow.testing.images import image_layout

MIB = 1024 * 1024
HOST = "demo.example"


def main() -> None:
    """Store two images, write a third through the mount, and count the bytes on disk."""
    with tempfile.TemporaryDirectory(prefix="ocistow-demo-") as directory:
        work = Path(directory)
        store, mountpoint = work / "store", work / "mnt"
        mountpoint.mkdir()
        os.environ["OCISTOW_STORE"] = str(store)

        say("three image layouts, as builds leave them: one base of 24 MiB, one layer of their own")
        images = make_images(work / "builds")
        print(f"they take {mebibytes(sum(map(disk_usage, images)))}")

        say("two of them go into the store; what they share is kept once")
        for image in images[:2]:
            run("ocistow", "add", f"oci:{image}:latest", f"{HOST}/{image.name}:latest")

        if os.access("/dev/fuse", os.R_OK | os.W_OK):
            say("the third is written by cp, through the mount: only what is new reaches the disk")
            before = disk_usage(store)
            target = mountpoint / HOST / images[2].name
            script = f"mkdir -p {quote(target)} && cp -r {quote(images[2])} {quote(target)}/latest"
            run("ocistow", "mount", str(mountpoint), "--", "sh", "-c", script)
            print(f"the store grew by {mebibytes(disk_usage(store) - before)}")
        else:
            say("/dev/fuse cannot be opened here, so nothing is mounted")
            run("ocistow", "add", f"oci:{images[2]}:latest", f"{HOST}/{images[2].name}:latest")

        say("what is there, and what each costs")
        run("ocistow", "ls")
        run("ocistow", "du")

        say("on disk these are plain OCI layouts, readable without ocistow")
        layouts = [store / "layouts" / HOST / image.name / "latest" for image in images]
        blobs = sum(map(count_true_blobs, layouts))
        print(
            f"{blobs} blobs in {len(layouts)} layouts have the digests that name them;\n"
            f"one by one they hold {mebibytes(sum(map(disk_usage, layouts)))}, "
            f"together they take {mebibytes(disk_usage(store))}"
        )


def make_images(directory: Path) -> list[Path]:
    """Make three layouts with the same base, each complete."""
    directory.mkdir()
    base = image_layout(
        directory / "base", seed=1, layers=3, layer_size=8 * MIB, compression="none"
    )
    apps = [directory / f"app-{number}" for number in (1, 2, 3)]
    for seed, app in enumerate(apps, start=2):
        for layer in base.layers:
            blob = app / base.blob(layer).relative_to(base.path)
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(base.blob(layer), blob)
        image_layout(app, seed=seed, layers=1, layer_size=MIB, base=base, compression="none")
    return apps


def count_true_blobs(layout: Path) -> int:
    """Return how many blobs a layout has; stop the demo if one is not what its name says."""
    blobs = list((layout / "blobs" / "sha256").iterdir())
    for blob in blobs:
        with blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
                sys.exit(f"{blob}: content does not have the digest that names it")
    return len(blobs)


def disk_usage(directory: Path) -> int:
    """Return the bytes that the files below take; hard links count once."""
    files = (path.stat() for path in directory.rglob("*") if path.is_file())
    return sum({(file.st_dev, file.st_ino): file.st_blocks * 512 for file in files}.values())


def run(*command: str) -> None:
    """Show a command and run it; stop the demo if it fails."""
    print(f"$ {shlex.join(command)}", flush=True)
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(f"exit status {status}")


def say(text: str) -> None:
    """Print what the next lines show."""
    print(f"\n# {text}", flush=True)


def mebibytes(size: int) -> str:
    """Return a size for reading."""
    return f"{size / MIB:.1f} MiB"


def quote(path: Path) -> str:
    """Return a path for the shell."""
    return shlex.quote(str(path))


if __name__ == "__main__":
    main()
