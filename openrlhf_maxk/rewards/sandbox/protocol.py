"""What a lane and its fork server say to each other.

Control messages travel over one ``SOCK_SEQPACKET`` socket. A request carries the limits and the descriptors that
become the program's standard streams; the reply carries how the program ended. Test data never passes through the
server: the job (program and arguments) lies in a memory file that only the forked child reads, and the streams are
pipes whose other ends the client holds. So a program that searches the memory it inherited finds nothing of another
program or test.

The server imports this, and every page of what it imports makes every fork dearer: so there are plain values here, and
the client's names for them are in :mod:`.messages`.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence

LAYERS = ("namespaces", "landlock", "seccomp", "uid_drop")
"""What can be switched off for a test of the others. no_new_privs and resource limits are always on."""

FILE = "/tmp/program.py"
"""What a program is told that its file is called. There is none: nothing of a program is written to a disk."""

REQUEST = struct.Struct("<cxxxxxxxQQQQQ")  # kind, bytes of the job, cpu ns, idle ns, wall ns, memory bytes
REPLY = struct.Struct("<iBBxxQQ")  # wait status, killed by, certain, cpu ns, wall ns
RUN, KILL = b"R", b"K"
NOBODY, CPU_LIMIT, IDLE_LIMIT, WALL_LIMIT, CLIENT, THREADS = range(6)  # who ended a program: messages.KilledBy
ASK = b"?"
HELD_UP = struct.Struct("<cxxxxxxxQ")  # W, ns
"""The server asks before it ends an idle program; the client says how long in all it may have waited for the client."""


def pack_job(
    program: str,
    *,
    setup: str = "",
    code: bytes = b"",
    keep_code: bool = False,
    arguments: Sequence[str] = (FILE,),
    steps: Sequence[tuple[str, str, str]] | None = None,
    nonce: str = "",
) -> bytes:
    """What the child runs: ``program`` after ``setup``, or both as ``code``, compiled by an earlier run.

    ``steps`` (kind, source, argument) are taken in the program's namespace afterwards; their results are sent with
    ``nonce``, the word that proves that a result is the harness's. Without steps it is a whole program.
    """
    return marshal.dumps(
        {
            "setup": "" if code else setup,
            "program": "" if code else program,
            "code": code,
            "keep_code": keep_code,
            "arguments": list(arguments),
            "steps": None if steps is None else list(steps),
            "nonce": nonce,
        }
    )


class Stage:
    """First byte of the status file: how far the child came before any line of the program ran.

    The child closes the file before it runs the program, so that a program cannot write here.
    """

    NOTHING = b""  # it died while it read or compiled the program
    NOT_CONFINED = b"F"  # a layer could not be applied: the machinery failed, the program never ran
    COMPILE_ERROR = b"E"
    COMPILED = b"C"  # followed by the code, marshalled, if the job asked for it
