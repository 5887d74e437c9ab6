"""What a lane says to its fork server and hears from it, as the client sees it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from . import protocol
from .protocol import REPLY, REQUEST, RUN


class KilledBy(IntEnum):
    """Who ended a program that did not end by itself."""

    NOBODY = protocol.NOBODY
    CPU_LIMIT = protocol.CPU_LIMIT
    IDLE_LIMIT = protocol.IDLE_LIMIT  # it neither ran nor waited for a core for that long
    WALL_LIMIT = protocol.WALL_LIMIT  # the backstop: nothing else ended it
    CLIENT = protocol.CLIENT  # too much output, or no longer wanted
    THREADS = protocol.THREADS  # more than it may start, where the kernel does not count them


class Request(NamedTuple):
    """The limits of one run."""

    cpu_ns: int
    idle_ns: int
    wall_ns: int
    memory_bytes: int

    def pack(self, job_bytes: int) -> bytes:
        return REQUEST.pack(RUN, job_bytes, *self)


class Reply(NamedTuple):
    """How one run ended. ``certain`` is false for a limit that a busy machine may have caused."""

    status: int  # as wait4 gives it
    killed_by: KilledBy
    certain: bool
    cpu_ns: int
    wall_ns: int

    @classmethod
    def unpack(cls, message: bytes) -> Reply:
        status, killed_by, certain, cpu_ns, wall_ns = REPLY.unpack(message)
        return cls(status, KilledBy(killed_by), bool(certain), cpu_ns, wall_ns)
