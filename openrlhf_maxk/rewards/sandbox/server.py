"""The fork server of one lane: waits for a request, forks, locks the child down, watches it, reports how it ended."""

from __future__ import annotations

import _signal  # not signal: its enums cost every child dozens of copied pages
import _socket
import fcntl
import gc
import json
import os
import struct
import sys
from typing import Any, NoReturn

from . import limits, program, syscalls
from .layers import Layers
from .limits import CHILD_ENDED, CONTROL, JOB, OWN, STATUS
from .protocol import KILL, REQUEST, Request, Stage
from .supervisor import Supervisor


def main() -> NoReturn:
    """Start from the options in ``sys.argv[1]``, say what protects, then serve until the client is gone."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    names = ("control", "job", "status")
    # First out of the way: a client with many open files may have passed one whose number is another's place.
    received = [fcntl.fcntl(options[name], fcntl.F_DUPFD_CLOEXEC, OWN.stop) for name in names]
    for name in names:
        os.close(options[name])
    for descriptor, target in zip(received, (CONTROL, JOB, STATUS), strict=True):
        limits.place(descriptor, target)
    sys.argv = [""]
    sys.path += options["paths"]
    for name in options["modules"]:
        __import__(name)
        if len(os.listdir("/proc/self/task")) > 1:
            sys.exit(f"importing {name} starts a thread: a process with threads cannot be forked safely")
    os.environ.clear()
    if "random" in sys.modules:
        sys.modules["random"].seed(0)  # every run starts from here: a verdict can be repeated
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP])
    limits.prefer_as_victim()
    limits.open_mapped()
    syscalls.adopt_orphans()
    server = Server(Layers(options["layers"]))
    server.serve()
    os._exit(0)


class Server:
    """One program at a time; nothing of a program stays between two runs."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.control = _socket.socket(fileno=CONTROL)
        limits.place(syscalls.signal_descriptor(_signal.SIGCHLD), CHILD_ENDED)
        self.supervisor = Supervisor(self.control, CHILD_ENDED)
        self.process = os.getpid()
        self.hidden = [sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "sandbox"]
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Greet, then answer requests until the client closes the socket."""
        greeting = {"missing": self.layers.missing, "proc": os.path.exists("/proc/self/stat")}
        self.control.send(json.dumps(greeting).encode())
        while True:
            message, descriptors = self._receive()
            if not message:
                return
            if message[:1] == KILL:
                continue  # for a run that has already ended
            request = Request.unpack(message)
            resources = self.layers.limits_of(request)
            child = syscalls.fork()
            if child < 0:
                sys.exit("fork failed")  # the client starts another server
            if child == 0:
                self._child(resources)
            for descriptor in descriptors:
                os.close(descriptor)
            reply = self.supervisor.watch(child, request)
            self.layers.clean()
            self.control.send(reply.pack())

    def _receive(self) -> tuple[bytes, list[int]]:
        message, ancillary, _, _ = self.control.recvmsg(REQUEST.size, _socket.CMSG_SPACE(16 * 4))
        descriptors = [fd for _, _, data in ancillary for fd in struct.unpack(f"{len(data) // 4}i", data)]
        return message, descriptors

    def _child(self, resources: limits.Limits) -> NoReturn:
        try:
            for stream in (0, 1, 2):
                os.dup2(3 + stream, stream)
            os.closerange(3, 6)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            self.layers.confine(resources, self.process)
        except BaseException as error:
            os.pwrite(STATUS, Stage.NOT_CONFINED + f"{type(error).__name__}: {error}".encode()[:1000], 0)
            os._exit(70)
        program.run(JOB, STATUS, OWN)
