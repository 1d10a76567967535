"""Run a program and report on it: launch.py FD PROGRAM ARGUMENT...

Linux counts the memory of whoever starts a program as the program's until it is larger
itself, so something small has to start it. The report goes to an open file descriptor.
"""

import os
import signal
import sys
import time


def main() -> None:
    """Run the program, and write its status, seconds, cpu seconds and bytes: memory, I/O, disk."""
    report, program = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    signal.signal(signal.SIGTERM, _ignore)  # SIG_IGN would be the program's, too
    began = time.perf_counter()
    child = os.posix_spawnp(program[0], program, os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # what it moved is forgotten with it
    seconds = time.perf_counter() - began
    moved, written = traffic(child)
    _, status, usage = os.wait4(child, 0)
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    found = os.waitstatus_to_exitcode(status), seconds, cpu, peak, moved, written
    os.write(report, " ".join(map(str, found)).encode())


def _ignore(_: int, __: object) -> None:
    """Go on: the program ends, and this tells how."""


def traffic(pid: int) -> tuple[int, int]:
    """Return the bytes that a process and its ended children moved, and wrote to disks.

    What goes through recv and send is not in it. Source: proc(5), "io". Both are 0 if it is
    another user's.
    """
    try:
        with open(f"/proc/{pid}/io") as file:
            found = {name: int(number) for name, number in (line.split(":") for line in file)}
    except PermissionError:
        return 0, 0
    return found["rchar"] + found["wchar"], found["write_bytes"]


if __name__ == "__main__":
    main()
