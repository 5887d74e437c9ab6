"""The fork server of one lane: waits for a request, forks, locks the child down, watches it, reports how it ended."""

from __future__ import annotations

import _signal  # not signal: its enums cost every child dozens of copied pages
import _sitebuiltins
import builtins
import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from . import huge_pages, program, rehearsal
from .confinement import limits, syscalls
from .confinement.layers import Layers
from .confinement.limits import CHILD_ENDED, CONTROL, JOB, OWN, STATUS
from .protocol import REQUEST, RUN, Stage
from .supervisor import Supervisor


def main() -> NoReturn:
    """Start from the options in ``sys.argv[1]``, say what protects, then serve until the client is gone."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    names = ("control", "job", "status")
    # First out of the way: a client with many open files may have passed one whose number is another's place.
    given = [options[name] for name in names]
    beyond = (number for number in range(OWN.stop, OWN.stop + 2 * len(names)) if number not in given)
    received = [limits.place(descriptor, number) for descriptor, number in zip(given, beyond, strict=False)]
    for descriptor, target in zip(received, (CONTROL, JOB, STATUS), strict=True):
        limits.place(descriptor, target)
    huge_pages.take_in()  # before modules are imported: theirs may be large, and few programs use them
    sys.argv = [""]
    sys.path += options["paths"]
    for name in options["modules"]:
        __import__(name)
        if len(os.listdir("/proc/self/task")) > 1:
            sys.exit(f"importing {name} starts a thread: a process with threads cannot be forked safely")
    exec(options["warm_up"], {})
    sys.dont_write_bytecode = True  # from here on: programs may not
    compile("", "", "exec")  # the first one makes the hundred classes of syntax trees, which takes as long as a test
    _give_site_builtins()
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


def _give_site_builtins() -> None:
    """What ``site`` adds to the builtins of a plain interpreter; this one runs without it."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    for name in ("copyright", "credits", "license"):
        setattr(builtins, name, _sitebuiltins._Printer(name, sys.copyright))
    builtins.help = _sitebuiltins._Helper()


class Server:
    """One program at a time; nothing of a program stays between two runs."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        limits.place(syscalls.signal_descriptor(_signal.SIGCHLD), CHILD_ENDED)
        self.supervisor = Supervisor(CONTROL, CHILD_ENDED)
        self.process = os.getpid()
        self.hidden = [sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "sandbox"]
        gc.collect()
        gc.freeze()
        gc.disable()
        syscalls.show_to_owner(True)  # changing the user hid our own memory maps from us
        self._rehearse()
        syscalls.show_to_owner(False)

    def _rehearse(self) -> None:
        """Make every fork that follows cheaper, if that can be had."""
        try:
            pages = rehearsal.HotPages()
        except OSError:
            return
        streams = [os.memfd_create("stream") for _ in range(3)]  # descriptors 3, 4 and 5, as received ones are
        os.write(streams[0], rehearsal.INPUT)
        os.lseek(streams[0], 0, os.SEEK_SET)
        os.pwrite(JOB, rehearsal.JOB, 0)
        self.layers.limits.set(cpu_ns=10**9, memory_bytes=2**28)
        child = self._fork(len(rehearsal.JOB), rehearsal.pause)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            with contextlib.suppress(OSError):
                pages.pin()
            os.kill(child, _signal.SIGKILL)
            os.waitpid(child, 0)
        for stream in streams:
            os.close(stream)

    def serve(self) -> None:
        """Greet, then answer requests until the client closes the socket."""
        receiver = syscalls.Receiver(CONTROL, REQUEST.size)
        greeting = {"missing": self.layers.missing, "proc": os.path.exists("/proc/self/stat")}
        os.write(CONTROL, json.dumps(greeting).encode())
        while True:
            message, descriptors = receiver.receive()
            if not message:
                return
            if message[:1] != RUN:
                continue  # about a run that has already ended
            _, job_bytes, cpu_ns, idle_ns, wall_ns, memory_bytes = REQUEST.unpack(message)
            self.layers.limits.set(cpu_ns, memory_bytes)
            child = self._fork(job_bytes)
            for descriptor in descriptors:
                os.close(descriptor)
            reply = self.supervisor.watch(child, cpu_ns, idle_ns, wall_ns)
            self.layers.clean()
            os.write(CONTROL, reply)

    def _fork(self, job_bytes: int, leave: Callable[[int], NoReturn] = os._exit) -> int:
        child = syscalls.fork()
        if child < 0:
            sys.exit("fork failed")  # the client starts another server
        if child == 0:
            self._child(job_bytes, leave)
        return child

    def _child(self, job_bytes: int, leave: Callable[[int], NoReturn]) -> NoReturn:
        try:
            self.layers.confine(self.process)
        except BaseException as error:
            os.pwrite(STATUS, Stage.NOT_CONFINED + f"{type(error).__name__}: {error}".encode()[:1000], 0)
            os._exit(70)
        program.run(job_bytes, leave)
