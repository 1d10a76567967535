r"""What system calls answer in a directory, one line a case: `python -m ocistow.testing.posix`.

A case is a short program: commands separated by semicolons, of which the last one's outcome
counts: `ok`, what it found, or the name of an errno. The ones before it must succeed, unless they
begin with `!`. A page of cases (docs/posix.md) says with each what ext4 answers, and what the mount
answers where that differs. The subjects are those of pjdfstest.

A word `x*255` is 255 times x, `\xff` a byte, `%text` the name of the blob with that content.
"""
# ruff: noqa: D102 - commands are called after the system calls that they make

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```posix ?(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

_CLOCK_REALTIME_COARSE = 5  # what file systems take the time of a change from
_RENAMES = {"NOREPLACE": 1, "EXCHANGE": 2, "WHITEOUT": 4}
_TIMES = {"now": (1 << 30) - 1, "omit": (1 << 30) - 2}  # UTIME_NOW, UTIME_OMIT
_AT_FDCWD = -100
_NOFOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Case:
    """A line of a page.

    Attributes:
        subject: the heading it stands under.
        who: `root` or `user` for what only one of them is asked; empty for both.
        mount: what a mount answers; as ext4 does, unless the page says otherwise.
    """

    subject: str
    who: str
    program: str
    ext4: str
    mount: str


def cases(page: str) -> Iterator[Case]:
    """Return the cases of a Markdown page: the lines of its blocks `posix`.

    Raises:
        ValueError: a line has no outcome.
    """
    subject, end = "", 0
    for block in FENCE.finditer(page):
        headings = re.findall(r"^#+ (.*)$", page[end : block.start()], re.MULTILINE)
        subject, end = headings[-1] if headings else subject, block.end()
        for line in filter(None, block[2].splitlines()):
            program, ext4, *mount = re.split(r" {2,}", line.strip())
            yield Case(subject, block[1], program, ext4, mount[0] if mount else ext4)


def outcomes(programs: Sequence[str]) -> dict[str, str]:
    """Run each program in a new directory of its own, below the working directory.

    Changes the working directory and, for `as`, who the process is: run it in one of its own.
    """
    found, here = dict[str, str](), os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for number, program in enumerate(programs):
        name = f"{number}"
        os.mkdir(name)
        os.chmod(name, 0o777)
        os.chdir(name)
        found[program] = Machine().run(program)
        os.fchdir(here)
    os.close(here)
    return found


class Machine:
    """Runs one program in the working directory: its open files, and what it noted."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._noted: dict[bytes, os.stat_result] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def run(self, program: str) -> str:
        """Return the outcome of the last command, or of the first that failed before it."""
        *before, last = program.split("; ")
        mask, user, group = os.umask(0o022), os.geteuid(), os.getegid()
        try:
            for command in before:
                outcome = self._outcome(command.removeprefix("!"))
                if re.fullmatch("E[A-Z0-9]+", outcome) and not command.startswith("!"):
                    return f"{command}: {outcome}"
            return self._outcome(last)
        finally:
            os.seteuid(user)
            os.setegid(group)
            os.umask(mask)
            for file in self._files.values():
                os.close(file)

    def _outcome(self, command: str) -> str:
        name, *words = command.split(" ")
        operation: Callable[..., str | int | None] = getattr(self, f"do_{name}")
        try:
            result = operation(*map(_expanded, words))
        except OSError as error:
            number = error.errno or 0
            return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number]
        return "ok" if result is None else str(result)

    # What makes, moves and removes names.

    def do_mkdir(self, path: bytes, mode: bytes = b"777") -> None:
        os.mkdir(path, int(mode, 8))

    def do_layout(self, path: bytes = b".") -> None:
        """Make the directories for blobs, of which a mount makes the second by itself."""
        os.makedirs(b"%b/blobs/sha256" % path, exist_ok=True)

    def do_rmdir(self, path: bytes) -> None:
        os.rmdir(path)

    def do_create(self, path: bytes, mode: bytes = b"644") -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, int(mode, 8)))

    def do_write(self, path: bytes, text: bytes) -> None:
        """As a shell's `>` does."""
        self._put(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, text)

    def do_append(self, path: bytes, text: bytes) -> None:
        """As a shell's `>>` does."""
        self._put(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, text)

    def do_link(self, old: bytes, new: bytes) -> None:
        os.link(old, new, follow_symlinks=False)

    def do_symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)

    def do_unlink(self, path: bytes) -> None:
        os.unlink(path)

    def do_rename(self, old: bytes, new: bytes, flag: bytes = b"") -> None:
        flags = _RENAMES[flag.decode()] if flag else 0
        self._call("renameat2", _AT_FDCWD, old, _AT_FDCWD, new, flags)

    def do_mkfifo(self, path: bytes) -> None:
        os.mkfifo(path)

    def do_mknod(self, path: bytes, kind: bytes) -> None:
        kinds = {b"c": stat.S_IFCHR, b"b": stat.S_IFBLK, b"p": stat.S_IFIFO, b"f": stat.S_IFREG}
        os.mknod(path, kinds[kind] | 0o600, os.makedev(1, 3))

    def do_bind(self, path: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)

    # What changes attributes and length.

    def do_chmod(self, path: bytes, mode: bytes) -> None:
        os.chmod(path, int(mode, 8))

    def do_chown(self, path: bytes, user: bytes, group: bytes) -> None:
        os.chown(path, int(user), int(group))

    def do_lchown(self, path: bytes, user: bytes, group: bytes) -> None:
        os.lchown(path, int(user), int(group))

    def do_truncate(self, path: bytes, length: bytes) -> None:
        self._call("truncate", path, ctypes.c_long(int(length)))

    def do_utime(self, path: bytes, accessed: bytes, modified: bytes, how: bytes = b"") -> None:
        """Set times: `seconds.nanoseconds`, `now` or `omit`; `nofollow` for a link's own."""
        times = (ctypes.c_long * 4)(*_time(accessed), *_time(modified))
        self._call("utimensat", _AT_FDCWD, path, times, _NOFOLLOW if how else 0)

    def do_umask(self, mask: bytes) -> None:
        os.umask(int(mask, 8))

    def do_as(self, user: bytes) -> None:
        """Go on as another user, in a group of the same number."""
        os.seteuid(os.getuid())
        os.setegid(int(user))
        os.seteuid(int(user))

    # What is done with open files.

    def do_open(self, path: bytes, flags: bytes = b"RDONLY", mode: bytes = b"644") -> None:
        """Open and close."""
        os.close(os.open(path, _flags(flags), int(mode, 8)))

    def do_hold(
        self, name: bytes, path: bytes, flags: bytes = b"RDONLY", mode: bytes = b"644"
    ) -> None:
        """Open a file, and keep it by a name until the end of the case."""
        self._files[name.decode()] = os.open(path, _flags(flags), int(mode, 8))

    def do_close(self, name: bytes) -> None:
        os.close(self._files.pop(name.decode()))

    def do_pwrite(self, name: bytes, offset: bytes, text: bytes) -> int:
        return os.pwrite(self._file(name), text, int(offset))

    def do_pread(self, name: bytes, offset: bytes, size: bytes) -> str:
        return _shown(os.pread(self._file(name), int(size), int(offset)))

    def do_seek(self, name: bytes, offset: bytes, how: bytes) -> int:
        return os.lseek(self._file(name), int(offset), getattr(os, f"SEEK_{how.decode()}"))

    def do_ftruncate(self, name: bytes, length: bytes) -> None:
        self._call("ftruncate", self._file(name), ctypes.c_long(int(length)))

    def do_fallocate(self, name: bytes, mode: bytes, offset: bytes, size: bytes) -> None:
        self._call(
            "fallocate",
            self._file(name),
            int(mode, 16),
            ctypes.c_long(int(offset)),
            ctypes.c_long(int(size)),
        )

    def do_posix_fallocate(self, name: bytes, offset: bytes, size: bytes) -> None:
        """As glibc does it: where the file system cannot, by writing."""
        os.posix_fallocate(self._file(name), int(offset), int(size))

    def do_fsync(self, name: bytes) -> None:
        os.fsync(self._file(name))

    def do_fchmod(self, name: bytes, mode: bytes) -> None:
        os.fchmod(self._file(name), int(mode, 8))

    def do_fsize(self, name: bytes) -> int:
        return os.fstat(self._file(name)).st_size

    def do_flinks(self, name: bytes) -> int:
        return os.fstat(self._file(name)).st_nlink

    def do_map(self, name: bytes, text: bytes) -> str:
        """Write to the start of a shared mapping; returns what pread(2) then sees."""
        file = self._file(name)
        with mmap.mmap(file, os.fstat(file).st_size) as pages:
            pages[: len(text)] = text
            pages.flush()
        return _shown(os.pread(file, 100, 0))

    # What is found.

    def do_read(self, path: bytes) -> str:
        file = os.open(path, os.O_RDONLY)
        try:
            return _shown(os.read(file, 1000))
        finally:
            os.close(file)

    def do_readlink(self, path: bytes) -> str:
        return _shown(os.readlink(path))

    def do_list(self, path: bytes) -> str:
        return _shown(b",".join(sorted(os.listdir(path))))

    def do_count(self, path: bytes) -> int:
        return len(os.listdir(path))

    def do_kind(self, path: bytes) -> str:
        return {"d": "directory", "l": "link", "-": "file"}.get(
            stat.filemode(os.lstat(path).st_mode)[0], "other"
        )

    def do_stat(self, path: bytes) -> None:
        os.stat(path)

    def do_mode(self, path: bytes) -> str:
        return f"{stat.S_IMODE(os.lstat(path).st_mode):o}"

    def do_owner(self, path: bytes) -> str:
        status = os.lstat(path)
        return f"{status.st_uid}:{status.st_gid}"

    def do_size(self, path: bytes) -> int:
        return os.lstat(path).st_size

    def do_links(self, path: bytes) -> int:
        return os.lstat(path).st_nlink

    def do_times(self, path: bytes) -> str:
        status = os.lstat(path)
        return f"{_dotted(status.st_atime_ns)},{_dotted(status.st_mtime_ns)}"

    def do_same(self, one: bytes, other: bytes) -> str:
        return "yes" if os.path.samestat(os.lstat(one), os.lstat(other)) else "no"

    def do_access(self, path: bytes, how: bytes) -> str:
        mode = sum({82: os.R_OK, 87: os.W_OK, 88: os.X_OK}[letter] for letter in how)
        return "yes" if os.access(path, mode, effective_ids=True) else "no"

    def do_note(self, path: bytes) -> None:
        """Remember the times of a file, and wait until a change would make them others."""
        noted = self._noted[path] = os.lstat(path)
        latest = max(noted.st_mtime_ns, noted.st_ctime_ns)
        while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= latest:
            os.sched_yield()

    def do_newer(self, path: bytes, known_as: bytes = b"") -> str:
        """Return which times are later than when they were noted, perhaps of another name."""
        before, now = self._noted[known_as or path], os.lstat(path)
        changed = [
            kind
            for kind, was, is_ in (
                ("mtime", before.st_mtime_ns, now.st_mtime_ns),
                ("ctime", before.st_ctime_ns, now.st_ctime_ns),
            )
            if is_ > was
        ]
        return ",".join(changed) or "none"

    def _put(self, path: bytes, flags: int, text: bytes) -> None:
        file = os.open(path, flags, 0o644)
        try:
            os.write(file, text)
        finally:
            os.close(file)

    def _file(self, name: bytes) -> int:
        return self._files[name.decode()]

    def _call(self, name: str, *arguments: object) -> None:
        function = self._libc[name]
        if function(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _expanded(word: str) -> bytes:
    word = re.sub(r"(\./|\w)\*(\d+)", lambda times: times[1] * int(times[2]), word)
    raw = re.sub(rb"\\x(..)", lambda byte: bytes([int(byte[1], 16)]), word.encode())
    return re.sub(rb"%(\w+)", lambda text: _blob(text[1]), raw)


def _blob(content: bytes) -> bytes:
    return b"blobs/sha256/" + hashlib.sha256(content).hexdigest().encode()


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "backslashreplace").replace("\0", ".").replace(" ", "_")
    return text or "nothing"


def _flags(names: bytes) -> int:
    flags = 0
    for name in names.decode().split("|"):
        flags |= getattr(os, f"O_{name}")
    return flags


def _time(text: bytes) -> tuple[int, int]:
    if text.decode() in _TIMES:
        return 0, _TIMES[text.decode()]
    seconds, _, nanoseconds = text.partition(b".")
    return int(seconds), int(nanoseconds or b"0")


def _dotted(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{seconds}.{rest}" if rest else f"{seconds}"


def main(page: str, directory: str, user: str) -> None:
    """Print the outcomes of the cases of a page as a user, in a directory, as JSON."""
    who = "root" if user == "0" else "user"
    programs = [case.program for case in cases(Path(page).read_text()) if case.who in ("", who)]
    os.chdir(directory)  # before: it may lie where nobody else gets
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    json.dump(outcomes(programs), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
