"""The fork server of one lane: waits for a request, forks, locks the child down, watches it, reports how it ended."""

from __future__ import annotations

import _socket
import array
import fcntl
import gc
import json
import os
import signal
import sys
from typing import Any, NoReturn

from . import limits, program, syscalls
from .protocol import KILL, REQUEST, Request, Stage
from .supervisor import Supervisor

OWN = range(64, 96)  # the server's descriptors lie here, so that received ones are always 3, 4, 5, …
CONTROL, JOB, STATUS, CHILD_ENDED = 64, 65, 66, 67


def main() -> NoReturn:
    """Start from the options in ``sys.argv[1]``, say what protects, then serve until the client is gone."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    for target, name in ((CONTROL, "control"), (JOB, "job"), (STATUS, "status")):
        _move(options[name], target)
    sys.argv = [""]
    os.environ.clear()
    for name in options["modules"]:
        __import__(name)
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)
    limits.prefer_as_victim()
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    server = Server()
    server.control.send(json.dumps({"ready": True}).encode())
    server.serve()
    os._exit(0)


def _move(descriptor: int, target: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, target)
    os.close(descriptor)


class Server:
    """One program at a time; nothing of a program stays between two runs."""

    def __init__(self) -> None:
        self.control = _socket.socket(fileno=CONTROL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        _move(syscalls.signal_descriptor(signal.SIGCHLD), CHILD_ENDED)
        self.supervisor = Supervisor(self.control, CHILD_ENDED)
        self.mapped = limits.mapped_bytes()
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Answer requests until the client closes the socket."""
        while True:
            message, descriptors = self._receive()
            if not message:
                return
            if message[:1] == KILL:
                continue  # for a run that has already ended
            request = Request.unpack(message)
            child = syscalls.fork()
            if child == 0:
                self._child(request, len(descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            self.control.send(self.supervisor.watch(child, request).pack())

    def _receive(self) -> tuple[bytes, list[int]]:
        message, ancillary, _, _ = self.control.recvmsg(REQUEST.size, _socket.CMSG_SPACE(16 * 4))
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        return message, list(descriptors)

    def _child(self, request: Request, received: int) -> NoReturn:
        try:
            for stream in (0, 1, 2):
                os.dup2(3 + stream, stream)
            os.closerange(3, 6)
            os.setsid()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            limits.apply(request.cpu_ns, self.mapped + request.memory_bytes, request.memory_bytes, False)
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            program.run(JOB, STATUS, OWN)
        except BaseException as error:
            os.write(STATUS, Stage.NOT_CONFINED + f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(70)
