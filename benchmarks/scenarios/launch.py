"""Run a program and report on it: launch.py FD PROGRAM ARGUMENT...

Linux counts the memory of whoever starts a program as the program's until it is larger
itself, so something small has to start it. The report goes to an open file descriptor.
"""

import os
import sys
import time


def main() -> None:
    report, program = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    began = time.perf_counter()
    child = os.posix_spawnp(program[0], program, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    os.write(report, f"{os.waitstatus_to_exitcode(status)} {seconds} {cpu} {peak}".encode())


if __name__ == "__main__":
    main()
