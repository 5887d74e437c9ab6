"""The client's half of a lane: one fork server, and one program at a time run in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_maxk.rewards.sandbox.protocol import KILL, REPLY, Reply, Request, Stage

_START_SECONDS = 120.0  # a busy machine starts slowly
_GRACE_SECONDS = 60.0  # beyond the wall limit: then the server itself hangs
_CHUNK = 2**16
_BOOT = "import sys; sys.path.insert(0, {!r}); import sandbox.server; del sys.path[0]; sandbox.server.main()"


class LaneError(Exception):
    """The fork server could not be started, died or hung. The run can be repeated with another one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended and what it printed; nothing is judged yet."""

    stage: bytes
    reply: Reply
    stdout: bytes
    stderr: bytes
    overflow: bool  # more was printed than allowed
    starved: bool  # the program may have waited for this process to feed or drain it
    code: bytes = b""  # what COMPILED was followed by
    message: str = ""  # what NOT_CONFINED was followed by


class Lane:
    """One fork server. Not thread-safe: one thread runs one program at a time in it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> dict[str, Any]:
        """Start the fork server; returns what it says of its layers. Raises LaneError."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._job = os.memfd_create("job")
        self._status = os.memfd_create("status")
        passed = {"control": theirs.fileno(), "job": self._job, "status": self._status}
        options = {**passed, "modules": list(self._modules)}
        boot = _BOOT.format(str(Path(__file__).parent.parent))
        flags = ["-s", "-S", "-P", "-B", "-X", "utf8", "-X", "int_max_str_digits=0"]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", boot, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=list(passed.values()),
                env={"PYTHONHASHSEED": "0"},  # sets have one order, so that a verdict can be repeated
                cwd="/",
                start_new_session=True,
            )
        self._control.settimeout(_START_SECONDS)
        try:
            greeting = self._control.recv(2**16)
        except OSError:
            greeting = b""
        self._control.settimeout(None)
        if not greeting:
            said = self._last_words()
            self.stop()
            raise LaneError(f"the fork server did not start: {said}")
        return json.loads(greeting)

    def _last_words(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.kill()
        return self._process.stderr.read().decode(errors="replace").strip()[-500:] or "it said nothing"

    def stop(self) -> None:
        """End the server and everything in it. Does nothing if it is not running."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._control.close()  # the server ends when it sees this
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        os.close(self._job)
        os.close(self._status)

    def run(self, job: bytes, stdin: bytes, request: Request, output_bytes: int) -> Outcome:
        """Run one job. Raises LaneError if the server died or hung; it is stopped then."""
        os.ftruncate(self._status, 0)
        os.ftruncate(self._job, 0)
        os.pwrite(self._job, job, 0)
        with contextlib.ExitStack() as stack:
            streams = _Streams(stdin, output_bytes, stack)
            try:
                socket.send_fds(self._control, [request.pack()], streams.theirs)
                streams.close_theirs()
                reply = self._wait(streams, request)
            except OSError as error:
                self.stop()
                raise LaneError(f"the fork server died: {error}") from error
            starved = streams.finish()
            status = os.pread(self._status, os.fstat(self._status).st_size, 0)
            failed = status[:1] == Stage.NOT_CONFINED
            return Outcome(
                stage=status[:1],
                reply=reply,
                stdout=b"".join(streams.outputs[0].chunks)[:output_bytes],
                stderr=b"".join(streams.outputs[1].chunks)[:output_bytes],
                overflow=streams.overflow,
                starved=starved,
                code=b"" if failed else status[1:],
                message=status[1:].decode(errors="replace") if failed else "",
            )

    def _wait(self, streams: _Streams, request: Request) -> Reply:
        deadline = time.monotonic() + request.wall_ns / 1e9 + _GRACE_SECONDS
        streams.poll.register(self._control, select.POLLIN)
        killed = False
        while True:
            events = streams.poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not events and time.monotonic() >= deadline:
                raise OSError("it hangs")
            for descriptor, _ in events:
                if descriptor == self._control.fileno():
                    message = self._control.recv(REPLY.size)
                    if len(message) != REPLY.size:
                        raise OSError("end of file")
                    return Reply.unpack(message)
                streams.serve(descriptor)
            if streams.overflow and not killed:
                self._control.send(KILL)
                killed = True


class _Output:
    """What comes out of one pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.chunks: list[bytes] = []
        self.size = 0

    def read(self) -> bool:
        """Take what is there, at most one chunk; whether there was something."""
        try:
            chunk = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            self.chunks.append(chunk)
            self.size += len(chunk)
        return bool(chunk)


class _Streams:
    """Our ends of a program's three pipes: input is fed while both outputs are drained."""

    def __init__(self, stdin: bytes, limit: int, stack: contextlib.ExitStack) -> None:
        self.poll = select.poll()
        self.limit = limit
        self._stack = stack
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        self.theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        self._open = set(self.theirs + ours)
        stack.callback(self._close_all)
        for descriptor in ours:
            os.set_blocking(descriptor, False)
        for descriptor in self.theirs:
            os.fchmod(descriptor, 0o666)  # so that another user may open /dev/stdin
        self._input = ours[0]
        self._left = memoryview(stdin)
        self.outputs = [_Output(ours[1]), _Output(ours[2])]
        for output in self.outputs:
            self.poll.register(output.descriptor, select.POLLIN)
        self._feed()
        if self._input in self._open:
            self.poll.register(self._input, select.POLLOUT)

    @property
    def overflow(self) -> bool:
        return any(output.size > self.limit for output in self.outputs)

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            self._close(descriptor)

    def serve(self, descriptor: int) -> None:
        """Do what a ready descriptor is ready for."""
        if descriptor == self._input:
            self._feed()
            if descriptor not in self._open:
                self.poll.unregister(descriptor)
            return
        output = next(output for output in self.outputs if output.descriptor == descriptor)
        if not output.read() or self.overflow:
            self.poll.unregister(descriptor)

    def _feed(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._input, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = self._left[:0]  # the program has closed its input: its choice
        self._close(self._input)

    def finish(self) -> bool:
        """Take the rest, once the program is dead. Returns whether we had kept it waiting."""
        starved = bool(self._left)
        for output in self.outputs:
            before = output.size
            while not self.overflow and output.read():
                pass
            starved = starved or output.size - before >= _CHUNK
        return starved

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)

    def _close_all(self) -> None:
        for descriptor in list(self._open):
            self._close(descriptor)
