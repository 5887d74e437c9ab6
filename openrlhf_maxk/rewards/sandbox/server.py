"""The fork server of one lane: waits for a request, forks, locks the child down, watches it, reports how it ended."""

from __future__ import annotations

import _socket
import array
import fcntl
import gc
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from . import limits, program, syscalls
from .protocol import KILL, REQUEST, KilledBy, Reply, Request, Stage

OWN = range(64, 96)  # the server's descriptors lie here, so that received ones are always 3, 4, 5, …
CONTROL, JOB, STATUS, CHILD_ENDED = 64, 65, 66, 67
LONGEST_SLEEP = 0.2  # seconds between two looks at a running program


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
        self.poll = select.poll()
        self.poll.register(CONTROL, select.POLLIN)
        self.poll.register(CHILD_ENDED, select.POLLIN)
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
            self.control.send(self._supervise(child, request).pack())

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

    def _supervise(self, child: int, request: Request) -> Reply:
        start = time.monotonic_ns()
        clock = (~child << 3) | 2  # CPU time of that process, all threads: see clock_getcpuclockid(3)
        killed_by, certain = KilledBy.NOBODY, True
        sleep = min(LONGEST_SLEEP, request.cpu_ns / 1e9)
        while True:
            ready = self.poll.poll(max(1, sleep * 1000))
            ended, status, usage = os.wait4(child, os.WNOHANG)
            wall_ns = time.monotonic_ns() - start
            if ended:
                break
            if any(descriptor == CONTROL for descriptor, _ in ready):
                if not self.control.recv(REQUEST.size):
                    self._abandon(child)
                killed_by = KilledBy.CLIENT
            elif any(descriptor == CHILD_ENDED for descriptor, _ in ready):
                os.read(CHILD_ENDED, 128)
                continue
            cpu_ns = _cpu_ns(clock)
            if killed_by is KilledBy.NOBODY:
                if cpu_ns >= request.cpu_ns:
                    killed_by = KilledBy.CPU_LIMIT
                elif wall_ns - cpu_ns >= request.idle_ns:
                    killed_by, certain = KilledBy.IDLE_LIMIT, False
                elif wall_ns >= request.wall_ns:
                    killed_by, certain = KilledBy.WALL_LIMIT, False
            if killed_by is not KilledBy.NOBODY:
                os.kill(child, signal.SIGKILL)
            left = min(request.cpu_ns - cpu_ns, request.wall_ns - wall_ns) / 1e9
            sleep = min(LONGEST_SLEEP, left)
        cpu_ns = int((usage.ru_utime + usage.ru_stime) * 1e9)
        return Reply(status, killed_by, certain, cpu_ns, wall_ns)

    def _abandon(self, child: int) -> NoReturn:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os._exit(0)


def _cpu_ns(clock: int) -> int:
    try:
        return time.clock_gettime_ns(clock)
    except OSError:
        return 0  # it has just ended: the next wait tells
