"""Resource limits of one program, soft and hard."""

from __future__ import annotations

import contextlib
import ctypes
import os

from . import syscalls

FILE_BYTES = 16 * 2**20  # largest file a program may write, in its private directory
DESCRIPTORS = 128  # more than the server's own, below
THREADS = 64
STACK_BYTES = 512 * 2**20  # at most; the stack also counts as memory
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CPU, _FSIZE, _STACK, _CORE, _NPROC, _NOFILE, _AS = 0, 1, 3, 4, 6, 7, 9  # RLIMIT_…

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
    return int(os.pread(MAPPED, 100, 0).split()[0]) * PAGE_BYTES


def apply_lasting(count_threads: bool) -> None:
    """Limits that are the same for all programs: set in the server, inherited by each.

    ``count_threads`` only where the user id is this lane's own: the kernel counts them per user.
    """
    _limit(_FSIZE, FILE_BYTES)
    _limit(_NOFILE, DESCRIPTORS)
    _limit(_CORE, 0)
    if count_threads:
        _limit(_NPROC, THREADS)


class ProgramLimits:
    """The limits of one program. They are worked out in the server: a child only makes ``calls``."""

    def __init__(self) -> None:
        kinds = (_CPU, _AS, _STACK)
        self._values = (ctypes.c_uint64 * (2 * len(kinds)))()  # each a struct rlimit: the soft one, the hard one
        start = ctypes.addressof(self._values)
        self.calls = tuple(syscalls.prepared("setrlimit", kind, start + 16 * i) for i, kind in enumerate(kinds))
        self._mapped = mapped_bytes()

    def set(self, cpu_ns: int, memory_bytes: int) -> None:
        """Of the program that is forked next."""
        cpu = min(-(-cpu_ns // 10**9) + 1, _HARD[_CPU])  # a backstop: the server knows the exact time
        memory = min(self._mapped + memory_bytes, _HARD[_AS])
        hard = _HARD[_STACK]  # stays as it is: programs like to raise it, and memory bounds it
        stack = min(memory_bytes, STACK_BYTES, hard)
        self._values[:] = [cpu, cpu, memory, memory, stack, hard]


_HARD = {kind: syscalls.hard_limit(kind) for kind in (_CPU, _AS, _STACK, _FSIZE, _NOFILE, _CORE, _NPROC)}
"""What we were given, read once: a program may get less. No limit is the largest number."""


def _limit(kind: int, value: int) -> None:
    syscalls.set_limit(kind, min(value, _HARD[kind]))


def prefer_as_victim() -> None:
    """If the machine runs out of memory, let the kernel take the sandbox before the job that uses it."""
    with contextlib.suppress(OSError):  # no /proc: nothing depends on it
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(descriptor, b"800")
        finally:
            os.close(descriptor)
