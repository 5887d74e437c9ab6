"""Watching one program: when to kill it, and what its end says.

CPU time decides. A program that uses none is ended for being idle (:mod:`.idleness`). Before that, the client is asked
for how long the program may have waited for it: to take its output, or to send more input. So a busy machine changes no
verdict.
"""

from __future__ import annotations

import _signal
import os
from time import clock_gettime_ns, monotonic_ns
from typing import NoReturn

from .confinement import limits, syscalls
from .idleness import Idleness
from .protocol import (
    ASK,
    CLIENT,
    CPU_LIMIT,
    HELD_UP,
    IDLE_LIMIT,
    KILL,
    NOBODY,
    REPLY,
    REQUEST,
    THREADS,
    WALL_LIMIT,
)


class Supervisor:
    """Watches the one child of the server, and the control socket for the client's wish to end it."""

    def __init__(self, control: int, child_ended: int) -> None:
        self._control = control
        self._child_ended = child_ended
        self._readable = syscalls.Readable(control, child_ended)

    def watch(self, child: int, cpu_limit_ns: int, idle_limit_ns: int, wall_limit_ns: int) -> bytes:
        """Wait for ``child`` to end, ending it when it reaches a limit; returns the reply to the client."""
        start = monotonic_ns()
        killed_by, certain = NOBODY, True
        cpu_ns = wall_ns = forgiven_ns = 0
        idleness = Idleness(child)
        asked = False
        while True:
            left = max(min(cpu_limit_ns - cpu_ns, wall_limit_ns - wall_ns) / 1e9, 0.001)
            ready = self._readable.wait(min(left, idleness.next_look_seconds()))
            if self._child_ended in ready:
                os.read(self._child_ended, 128)
            ended, status, usage = os.wait4(child, os.WNOHANG)
            wall_ns = monotonic_ns() - start
            if ended:
                cpu_ns = int((usage.ru_utime + usage.ru_stime) * 1e9)
                return REPLY.pack(status, killed_by, certain, cpu_ns, wall_ns)
            cpu_ns = _cpu_ns(child)
            if killed_by != NOBODY:
                continue
            message = os.read(self._control, REQUEST.size) if self._control in ready else None
            if message is not None:
                if not message:
                    _abandon(child)
                if message == KILL:
                    killed_by = CLIENT
                elif len(message) == HELD_UP.size:
                    asked, forgiven_ns = False, HELD_UP.unpack(message)[1]
                    if idleness.look(wall_ns, cpu_ns) - forgiven_ns >= idle_limit_ns:
                        killed_by, certain = IDLE_LIMIT, idleness.certain
            elif cpu_ns >= cpu_limit_ns:
                killed_by = CPU_LIMIT
            elif idleness.look(wall_ns, cpu_ns) - forgiven_ns >= idle_limit_ns and not asked:
                os.write(self._control, ASK)
                asked = True
            elif idleness.threads > limits.THREADS:
                killed_by = THREADS
            if killed_by == NOBODY and wall_ns >= wall_limit_ns:
                killed_by, certain = WALL_LIMIT, False
            if killed_by != NOBODY:
                os.kill(child, _signal.SIGKILL)


def _cpu_ns(process: int) -> int:
    """CPU time of a process and all its threads; the clock's number is that of clock_getcpuclockid(3)."""
    try:
        return clock_gettime_ns((~process << 3) | 2)
    except OSError:
        return 0  # it has just ended: the next wait tells


def _abandon(child: int) -> NoReturn:
    """The client is gone: nobody wants the result, and nothing may stay behind."""
    os.kill(child, _signal.SIGKILL)
    os.waitpid(child, 0)
    os._exit(0)
