"""What a program does that has no store: read, hash, write, sync.

usage: plain.py hash FILE...
       plain.py write [--hash] [--sync] SOURCE TARGET
       plain.py copy [--hash] [--sync] DIRECTORY TARGET

`write` writes beside TARGET and renames, as layout writers do.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Container
from pathlib import Path

READ_SIZE = 1 << 20  # bytes, as the store reads


def main() -> None:
    command, *words = sys.argv[1:]
    options = {word for word in words if word.startswith("--")}
    paths = [Path(word) for word in words if word not in options]
    if command == "hash":
        for path in paths:
            with path.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")
    else:
        source, target = paths
        (copy if command == "copy" else write)(source, target, options)


def copy(directory: Path, target: Path, options: Container[str]) -> None:
    for source in sorted(directory.rglob("*")):
        copied = target / source.relative_to(directory)
        if source.is_dir():
            copied.mkdir(parents=True)
        else:
            copied.parent.mkdir(parents=True, exist_ok=True)
            write(source, copied, options)


def write(source: Path, target: Path, options: Container[str], piece: int = READ_SIZE) -> None:
    running = hashlib.sha256() if "--hash" in options else None
    temporary = target.with_name("temporary")
    with source.open("rb", buffering=0) as reader, temporary.open("wb", buffering=0) as writer:
        while data := reader.read(piece):
            if running is not None:
                running.update(data)
            writer.write(data)
        if "--sync" in options:
            os.fsync(writer.fileno())
    temporary.rename(target)


if __name__ == "__main__":
    main()
