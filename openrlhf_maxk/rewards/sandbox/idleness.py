"""How long a program has been idle: wall time in which it neither ran nor waited for a core.

With one thread that is exact: wall time less CPU time less the time it stood in the run queue, which the kernel counts.
With several, what they queued cannot be added up, since they queue at once: sixty threads that hash for a second would
buy a minute of sleep. So the threads are looked at, and when none of them runs or wants to, the time since the look
before was idle. Such an estimate has an error, which the limit allows for. Looks are at moments that no program can
foresee.
"""

from __future__ import annotations

import os
from time import monotonic_ns

_UNKNOWN_FACTOR = 3  # how much longer to wait where the kernel does not say how long a program queued
_ESTIMATE_FACTOR = 1.25  # for the error of an estimate
# A look every so often, and up to so much later: a program that wakes at even times is not always found awake.
_LOOK_NS, _SPREAD_NS = 150_000_000, 100_000_000
_LOOK_AT_SEVERAL_NS, _SPREAD_AT_SEVERAL_NS = 5_000_000, 15_000_000
_MIX = 2654435761  # spreads the last bits of a clock over a number


class Idleness:
    """Of one process. ``look`` at it now and then."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._looked_at_ns = (0, 0)  # wall and CPU time of the last look
        self._estimate_ns = 0
        self.threads = 1
        self.several = False  # whether it has had more than one thread
        self.certain = True

    def look(self, wall_ns: int, cpu_ns: int) -> int:
        """Idle nanoseconds so far, of ``wall_ns`` in all and with ``cpu_ns`` of CPU time."""
        try:
            runnable, queued_ns = self._threads_now()
        except (OSError, ValueError, IndexError):
            self.certain = False
            return (wall_ns - cpu_ns) // _UNKNOWN_FACTOR
        self.certain = True
        before_wall, before_cpu = self._looked_at_ns
        self._looked_at_ns = wall_ns, cpu_ns
        if not self.several:
            self._estimate_ns = 0 if runnable else wall_ns - cpu_ns - queued_ns
            return self._estimate_ns
        if not runnable:
            self._estimate_ns += max(0, (wall_ns - before_wall) - (cpu_ns - before_cpu))
        return int(self._estimate_ns / _ESTIMATE_FACTOR)

    def next_look_seconds(self) -> float:
        """When to look again: no program can tell."""
        at_least, spread = (_LOOK_AT_SEVERAL_NS, _SPREAD_AT_SEVERAL_NS) if self.several else (_LOOK_NS, _SPREAD_NS)
        return (at_least + (monotonic_ns() * _MIX >> 16) % spread) / 1e9

    def _threads_now(self) -> tuple[bool, int]:
        """Whether a thread wants a core now, and the nanoseconds that those alive have waited for one."""
        runnable, queued_ns = False, 0
        threads = os.listdir(f"/proc/{self._process}/task")
        self.threads = len(threads)
        self.several = self.several or len(threads) > 1
        for thread in threads:
            try:
                queued_ns += int(_read(f"/proc/{self._process}/task/{thread}/schedstat").split()[1])
                state = _read(f"/proc/{self._process}/task/{thread}/stat").rpartition(b")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                if len(threads) == 1:
                    raise
                continue  # it has ended since
            runnable = runnable or state in (b"R", b"D")  # running or queued; in a wait that it did not choose
        return runnable, queued_ns


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
