"""What a client is about to do with a name that it looks up.

FUSE_LOOKUP says only the name. The kernel then answers open(O_CREAT|O_EXCL),
mkdir(2) and link(2) with EEXIST by itself when the name was found, and `cp -a` or
`cp -al` of an image whose blobs the pool holds would fail on every one of them. The
client sleeps in its system call while it waits for us, so procfs can tell.
"""

from __future__ import annotations

import os
import platform

_TRIES = 50  # a client that was woken to send may not be asleep yet

# Number -> index of the flags argument, or None when the call always makes a new name.
_CALLS: dict[str, dict[int, int | None]] = {
    # open, openat; link, linkat, mkdir, mkdirat
    "x86_64": {2: 1, 257: 2, 86: None, 265: None, 83: None, 258: None},
    # openat; linkat, mkdirat
    "aarch64": {56: 2, 37: None, 34: None},
}
_MAKING = _CALLS.get(platform.machine(), {})
_EXCLUSIVE = os.O_CREAT | os.O_EXCL


def makes_new_name(thread: int) -> bool:
    """Tell whether a thread sleeps in a call that fails if its name exists.

    False when procfs does not say: a process of another user, or of a PID
    namespace that we do not see.
    """
    for _ in range(_TRIES):
        try:
            with open(f"/proc/{thread}/syscall", "rb", buffering=0) as file:
                words = file.read(200).split()
        except OSError:
            return False
        if words[:1] != [b"running"]:
            return _is_making(words)
        os.sched_yield()
    return False


def _is_making(words: list[bytes]) -> bool:
    number = int(words[0])
    if number not in _MAKING:
        return False
    flags = _MAKING[number]
    return flags is None or int(words[1 + flags], 16) & _EXCLUSIVE == _EXCLUSIVE
