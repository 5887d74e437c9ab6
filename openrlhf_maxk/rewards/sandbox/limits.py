"""Resource limits of one program, soft and hard."""

from __future__ import annotations

import os
import resource

FILE_BYTES = 16 * 2**20  # largest file a program may write, in its private directory
DESCRIPTORS = 64
THREADS = 64
STACK_BYTES = 512 * 2**20  # at most; the stack also counts as memory


def mapped_bytes() -> int:
    """The address space of this process. A program's memory limit is added to it, since it is inherited."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def apply(cpu_ns: int, address_space: int, memory_bytes: int, count_threads: bool) -> None:
    """Limit this process. ``count_threads`` only where the user id is this lane's own: the kernel counts per user."""
    seconds = -(-cpu_ns // 10**9) + 1  # a backstop: the server polls the exact limit
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_AS, address_space)
    _limit(resource.RLIMIT_STACK, min(memory_bytes, STACK_BYTES))
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _limit(resource.RLIMIT_CORE, 0)
    if count_threads:
        _limit(resource.RLIMIT_NPROC, THREADS)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def prefer_as_victim() -> None:
    """If the machine runs out of memory, let the kernel take the sandbox before the job that uses it."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return  # no /proc: nothing depends on it
    try:
        os.write(descriptor, b"800")
    except OSError:
        pass
    finally:
        os.close(descriptor)
