"""Random operations on a directory, as fsstress makes them: `python -m ocistow.testing.stress`.

The same seed makes the same operations, so what each answered on one file system can be compared
with what it answered on another.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import stat
import sys
from collections.abc import Callable, Sequence

_NAMES = ("a", "b", "c", "d", "e")
_DIRECTORIES = 2  # of the names are for directories, but for those that are renamed
_DEPTH = 2
_LARGEST = 40_000  # bytes of a file
_HELD = 4  # open files


class Client:
    """Makes operations below the directory `root`, whose content is nobody else's or shared."""

    def __init__(self, root: str, seed: int) -> None:
        self._root = root
        self._dice = random.Random(seed)
        self._held = list[int]()
        self._operations: list[Callable[[], object]] = [
            self._create,
            self._write,
            self._append,
            self._truncate,
            self._read,
            self._mkdir,
            self._mkdir,
            self._rmdir,
            self._unlink,
            self._rename,
            self._rename,
            self._link,
            self._symlink,
            self._readlink,
            self._stat,
            self._list,
            self._chmod,
            self._utime,
            self._hold,
            self._write_held,
            self._read_held,
            self._let_go,
        ]

    def run(self, count: int) -> list[str]:
        """Make operations; return what each was and answered."""
        said = [self._step() for _ in range(count)]
        while self._held:
            os.close(self._held.pop())
        return said

    def _step(self) -> str:
        operation = self._dice.choice(self._operations)
        try:
            result = operation()
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        return f"{operation.__name__[1:]}: {result}"

    def _path(self, names: Sequence[str] = _NAMES) -> str:
        above = self._dice.choices(_NAMES[:_DIRECTORIES], k=self._dice.randrange(_DEPTH))
        return "/".join((self._root, *above, self._dice.choice(names)))

    def _directory(self) -> str:
        return self._path(_NAMES[:_DIRECTORIES])

    def _data(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((1, 100, 5000)))

    def _offset(self) -> int:
        return self._dice.randrange(_LARGEST)

    def _create(self) -> None:
        os.close(os.open(self._path(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def _write(self) -> None:
        flags = self._dice.choice((0, os.O_CREAT, os.O_TRUNC, os.O_CREAT | os.O_TRUNC))
        path, offset, data = self._path(), self._offset(), self._data()
        file = os.open(path, flags | os.O_WRONLY, 0o644)
        try:
            os.pwrite(file, data, offset)
        finally:
            os.close(file)

    def _append(self) -> None:
        path, data = self._path(), self._data()
        file = os.open(path, os.O_APPEND | os.O_WRONLY)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def _truncate(self) -> None:
        os.truncate(self._path(), self._offset())

    def _read(self) -> str:
        return content(self._path())

    def _mkdir(self) -> None:
        os.mkdir(self._directory())

    def _rmdir(self) -> None:
        os.rmdir(self._directory())

    def _unlink(self) -> None:
        os.unlink(self._path())

    def _rename(self) -> None:
        os.rename(self._path(), self._path())

    def _link(self) -> None:
        os.link(self._path(), self._path(), follow_symlinks=False)

    def _symlink(self) -> None:
        os.symlink(self._dice.choice(_NAMES), self._path())

    def _readlink(self) -> str:
        return os.readlink(self._path())

    def _stat(self) -> str:
        return described(self._path())

    def _list(self) -> str:
        return ",".join(sorted(os.listdir(self._directory())))

    def _chmod(self) -> None:
        path, mode = self._path(), self._dice.choice((0o644, 0o600, 0o755))
        if not os.path.isdir(path):
            os.chmod(path, mode)

    def _utime(self) -> None:
        path, times = self._path(), (self._dice.randrange(1 << 60), self._dice.randrange(1 << 60))
        if not os.path.isdir(path):
            os.utime(path, ns=times)

    def _hold(self) -> None:
        path, index = self._path(), self._dice.randrange(_HELD)
        if len(self._held) < _HELD:
            self._held.insert(index, os.open(path, os.O_RDWR))

    def _write_held(self) -> None:
        index, offset, data = self._dice.randrange(_HELD), self._offset(), self._data()
        if index < len(self._held):
            os.pwrite(self._held[index], data, offset)

    def _read_held(self) -> str:
        index = self._dice.randrange(_HELD)
        if index >= len(self._held):
            return ""
        status = os.fstat(self._held[index])
        data = os.pread(self._held[index], 2 * _LARGEST, 0)
        return f"{status.st_nlink} {status.st_size} {hashlib.sha256(data).hexdigest()[:8]}"

    def _let_go(self) -> None:
        index = self._dice.randrange(_HELD)
        if index < len(self._held):
            os.close(self._held.pop(index))


def content(path: str) -> str:
    """Return what tells the content of a file from others."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:8]


def described(path: str) -> str:
    """Return what stat(2) should say of a name wherever it is."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return f"directory {status.st_nlink}"
    if stat.S_ISLNK(status.st_mode):
        return f"link {status.st_size}"
    return f"file {status.st_nlink} {status.st_mode:o} {status.st_size}"


def tree(root: str) -> list[str]:
    """Return a line for each name below a directory."""
    lines = list[str]()
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            line = f"{os.path.relpath(path, root)}: {described(path)}"
            if os.path.islink(path):
                line += f" {os.readlink(path)}"
            elif name in files:
                line += f" {content(path)}"
            lines.append(line)
    return sorted(lines)


if __name__ == "__main__":
    json.dump(Client(sys.argv[1], int(sys.argv[2])).run(int(sys.argv[3])), sys.stdout)
