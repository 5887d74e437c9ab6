"""The client's half of a lane: one fork server, and one program at a time run in it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from .messages import Reply, Request
from .protocol import ASK, HELD_UP, KILL, REPLY, Stage
from .streams import LOOK_SECONDS, Streams

_START_SECONDS = 120.0  # a busy machine starts slowly
_FAREWELL_SECONDS = 2.0
_SHORT_MILLISECONDS = 5  # a program that ends sooner is not watched: each look at its output would interrupt it
_GRACE_SECONDS = 60.0  # beyond the wall limit: then the server itself hangs
_BOOT = "import sys; sys.path.insert(0, {!r}); import sandbox.server; del sys.path[0]; sandbox.server.main()"
_FLAGS = ("-s", "-S", "-P", "-X", "utf8", "-X", "int_max_str_digits=0")
_ENVIRONMENT = {  # read by the interpreter and by numerical libraries at their start; gone before a program runs
    "PYTHONHASHSEED": "0",  # sets have one order, so that a verdict can be repeated
    "TZ": "UTC0",
    "MALLOC_ARENA_MAX": "1",  # each arena of glibc, one a thread, would count as 128 MiB of a program's memory
    "LD_BIND_NOW": "1",  # else every child looks up the same functions anew
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


class LaneError(Exception):
    """The fork server could not be started, died or hung. The run can be repeated with another one."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a lane runs. ``payload`` is for the child, marshalled; ``files`` are handed to it as descriptors."""

    payload: bytes
    stdin: bytes
    request: Request
    output_bytes: int
    with_results: bool = False
    files: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended and what came out; nothing is judged yet."""

    stage: bytes
    reply: Reply
    stdout: bytes
    stderr: bytes
    results: bytes
    overflow: bool  # more came out than allowed
    code: bytes = b""  # what COMPILED was followed by
    message: str = ""  # what NOT_CONFINED was followed by


class Lane:
    """One fork server. Not thread-safe: one thread runs one program at a time in it."""

    def __init__(self, layers: Sequence[str], modules: Sequence[str], paths: Sequence[str], warm_up: str = "") -> None:
        self._options = {"layers": list(layers), "modules": list(modules), "paths": list(paths), "warm_up": warm_up}
        self._process: subprocess.Popen[bytes] | None = None
        self.has_proc = False  # whether programs see a /proc, which files of a job are opened through

    @property
    def pid(self) -> int | None:
        """The server's process id (with namespaces: that of the process outside, which dies with it)."""
        return self._process.pid if self._process else None

    def start(self) -> dict[str, str]:
        """Start the fork server; returns the layers it lacks, and why. Raises LaneError."""
        with ExitStack() as undo:
            self._job, self._status = os.memfd_create("job"), os.memfd_create("status")
            undo.callback(os.close, self._job)
            undo.callback(os.close, self._status)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._control.close)
            self._answered = select.poll()
            self._answered.register(self._control.fileno(), select.POLLIN)
            with theirs:
                process = self._spawn({"control": theirs.fileno(), "job": self._job, "status": self._status})
            undo.callback(_end, process)
            undo.callback(self._control.close)  # closed first, which ends it
            try:
                self._control.settimeout(_START_SECONDS)
                greeting = self._control.recv(2**16)
                self._control.settimeout(None)
            except OSError:
                greeting = b""
            if not greeting:
                raise LaneError(f"the fork server did not start: {_last_words(process)}")
            said = json.loads(greeting)
            self.has_proc = said["proc"]
            self._process = process
            self._undo = undo.pop_all()
        return said["missing"]

    def _spawn(self, descriptors: dict[str, int]) -> subprocess.Popen[bytes]:
        bytecode = ("-B",) if sys.dont_write_bytecode else ()  # the server's own; programs never write any
        boot = _BOOT.format(str(Path(__file__).parent.parent))
        options = json.dumps({**descriptors, **self._options})
        return subprocess.Popen(
            [*self._container(), sys.executable, *_FLAGS, *bytecode, "-c", boot, options],
            stdin=subprocess.PIPE,  # its standard streams are pipes, as a program's are: Python looks at them once
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=list(descriptors.values()),
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )

    def _container(self) -> list[str]:
        """The beginning of the server's command line, where another program is to start it."""
        return []

    def stop(self) -> None:
        """End the server and everything in it. Does nothing if it is not running."""
        if self._process is not None:
            self._process = None
            self._undo.close()

    def run(self, job: Job) -> Outcome:
        """Run one job. Raises LaneError if the server died or hung; it is stopped then."""
        if job.files and not self.has_proc:
            raise LaneError("a checker needs a /proc, and the sandbox has none here")
        os.ftruncate(self._status, 0)
        os.ftruncate(self._job, 0)
        _write_all(self._job, job.payload)
        with closing(Streams(job.stdin, job.output_bytes, job.with_results)) as streams:
            try:
                self._send(job, streams)
                reply = self._wait(streams, job.request)
            except OSError as error:
                self.stop()
                raise LaneError(f"the fork server died: {error}") from error
            streams.finish()
            outputs = [output.first(job.output_bytes) for output in streams.outputs]
            overflow = streams.overflow
        status = os.pread(self._status, os.fstat(self._status).st_size, 0)
        failed = status[:1] == Stage.NOT_CONFINED
        return Outcome(
            stage=status[:1],
            reply=reply,
            stdout=outputs[0],
            stderr=outputs[1],
            results=outputs[2] if job.with_results else b"",
            overflow=overflow,
            code=b"" if failed else status[1:],
            message=status[1:].decode(errors="replace") if failed else "",
        )

    def _send(self, job: Job, streams: Streams) -> None:
        with ExitStack() as stack:
            files = []
            for content in job.files:
                descriptor = os.memfd_create("file")
                stack.callback(os.close, descriptor)
                os.fchmod(descriptor, 0o444)
                _write_all(descriptor, content)
                files.append(descriptor)
            socket.send_fds(self._control, [job.request.pack(len(job.payload))], streams.theirs + files)
        streams.close_theirs()

    def _wait(self, streams: Streams, request: Request) -> Reply:
        deadline = time.monotonic() + request.wall_ns / 1e9 + _GRACE_SECONDS
        if self._answered.poll(_SHORT_MILLISECONDS):
            reply = self._hear(streams)
            if reply is not None:
                return reply
        control, killed = self._control.fileno(), False
        poll = streams.watch(control)
        while True:
            left = deadline - time.monotonic()
            if left < 0:
                raise OSError("it hangs")
            streams.look()
            for descriptor, _ in poll.poll(min(left, LOOK_SECONDS) * 1000):
                if descriptor == control:
                    reply = self._hear(streams)
                    if reply is not None:
                        return reply
                    break
                streams.serve(descriptor)
            if streams.overflow and not killed:
                self._control.send(KILL)
                killed = True

    def _hear(self, streams: Streams) -> Reply | None:
        """What the server says: how the program has ended, or None: it asked something."""
        message = self._control.recv(REPLY.size)
        if message == ASK:
            self._control.send(HELD_UP.pack(b"W", int(1e9 * streams.held_up())))
            return None
        if len(message) != REPLY.size:
            raise OSError("end of file")
        return Reply.unpack(message)


def _write_all(descriptor: int, content: bytes) -> None:
    left, at = memoryview(content), 0
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server ends by itself when its socket is closed, and takes along what it runs. If not, it is killed."""
    try:
        process.wait(_FAREWELL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    _, stderr = process.communicate()
    return stderr.decode(errors="replace").strip()[-500:] or "it said nothing"
