"""Resource limits of one program, soft and hard."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

from . import syscalls

FILE_BYTES = 16 * 2**20  # largest file a program may write, in its private directory
DESCRIPTORS = 128  # more than the server's own, below
THREADS = 64
STACK_BYTES = 512 * 2**20  # at most; the stack also counts as memory

OWN = range(64, 96)  # the server's descriptors lie here, so that received ones are always 3, 4, 5, …
CONTROL, JOB, STATUS, CHILD_ENDED, RULES, MAPPED, PINNED = range(64, 71)


def place(descriptor: int, target: int) -> int:
    """Move a descriptor to its place among our own."""
    os.dup2(descriptor, target, inheritable=False)
    os.close(descriptor)
    return target


def open_mapped() -> None:
    """Keep a handle on this process's memory figures, which /proc may not show later."""
    place(os.open("/proc/self/statm", os.O_RDONLY), MAPPED)


def mapped_bytes() -> int:
    """The address space of this process. A program's memory limit is added to it, since it is inherited."""
    return int(os.pread(MAPPED, 100, 0).split()[0]) * resource.getpagesize()


def apply_lasting(count_threads: bool) -> None:
    """Limits that are the same for all programs: set in the server, inherited by each.

    ``count_threads`` only where the user id is this lane's own: the kernel counts them per user.
    """
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _limit(resource.RLIMIT_CORE, 0)
    if count_threads:
        _limit(resource.RLIMIT_NPROC, THREADS)


class ProgramLimits:
    """The limits of one program. They are worked out in the server: a child only makes ``calls``."""

    def __init__(self) -> None:
        kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_STACK)
        self._values = (ctypes.c_uint64 * (2 * len(kinds)))()  # each a struct rlimit: the soft one, the hard one
        start = ctypes.addressof(self._values)
        self.calls = tuple(syscalls.prepared("setrlimit", kind, start + 16 * i) for i, kind in enumerate(kinds))
        self._mapped = mapped_bytes()

    def set(self, cpu_ns: int, memory_bytes: int) -> None:
        """Of the program that is forked next."""
        cpu = min(-(-cpu_ns // 10**9) + 1, _HARD[resource.RLIMIT_CPU])  # a backstop: the server knows the exact time
        memory = min(self._mapped + memory_bytes, _HARD[resource.RLIMIT_AS])
        hard = _HARD[resource.RLIMIT_STACK]  # stays as it is: programs like to raise it, and memory bounds it
        stack = min(memory_bytes, STACK_BYTES, hard)
        self._values[:] = [cpu, cpu, memory, memory, stack, _as_given(hard)]


_HARD = {
    kind: sys.maxsize if hard == resource.RLIM_INFINITY else hard
    for kind in (
        *(resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_STACK),
        *(resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC),
    )
    for _, hard in [resource.getrlimit(kind)]
}
"""What we were given, read once: a program may get less."""


def _as_given(hard: int) -> int:
    return 2**64 - 1 if hard == sys.maxsize else hard  # RLIM_INFINITY


def _limit(kind: int, value: int) -> None:
    value = min(value, _HARD[kind])
    resource.setrlimit(kind, (value, value))


def prefer_as_victim() -> None:
    """If the machine runs out of memory, let the kernel take the sandbox before the job that uses it."""
    with contextlib.suppress(OSError):  # no /proc: nothing depends on it
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(descriptor, b"800")
        finally:
            os.close(descriptor)
