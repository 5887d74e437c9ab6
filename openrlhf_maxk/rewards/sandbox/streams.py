"""Our ends of a program's pipes: input is fed while everything that comes out is drained."""

from __future__ import annotations

import fcntl
import os
import select
import termios
import time

CHUNK = 2**16  # what a pipe holds
LOOK_SECONDS = 0.02  # a program that waits for us waits no longer than that, but for what keeps us from looking
_FULL = CHUNK // 2  # or half of it, where each write begins a new page


class Output:
    """What comes out of one pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = 0
        self._chunks: list[bytes] = []

    def read(self) -> int:
        """Take what is there, at most one chunk. Returns its size."""
        try:
            chunk = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return 0
        if chunk:
            self._chunks.append(chunk)
            self.size += len(chunk)
        return len(chunk)

    def first(self, size: int) -> bytes:
        return b"".join(self._chunks)[:size]


class Streams:
    """The pipes of one run: standard input, output and error, and one for results if wanted.

    ``theirs`` are the program's ends, in the order the server expects them. At most ``limit`` bytes are wanted from
    each output: a little more is read, to know of the excess.
    """

    def __init__(self, stdin: bytes, limit: int, with_results: bool) -> None:
        self.limit = limit
        self.theirs: list[int] = []
        self._open: set[int] = set()
        self._left = memoryview(stdin)
        self._held_up = 0.0  # seconds that the program may have waited for us, in all
        self._looked = time.monotonic()  # since when it may be waiting
        try:
            self._input = self._pipe(ours_writes=True)
            self.outputs = [Output(self._pipe(ours_writes=False)) for _ in range(3 if with_results else 2)]
        except OSError:
            self.close()
            raise
        self._poll: select.poll | None = None
        self._feed()

    def _pipe(self, ours_writes: bool) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        ours, theirs = (write, read) if ours_writes else (read, write)
        self._open.update((ours, theirs))
        self.theirs.append(theirs)
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_NONBLOCK)
        os.fchmod(theirs, 0o666)  # so that another user may open /dev/stdin
        return ours

    @property
    def overflow(self) -> bool:
        return max([output.size for output in self.outputs]) > self.limit

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            self._close(descriptor)

    def watch(self, also: int) -> select.poll:
        """Begin to poll the pipes, and ``also`` for input: only a program that lasts is worth the trouble."""
        self._poll = select.poll()
        self._by_descriptor = {output.descriptor: output for output in self.outputs}
        for descriptor in (*self._by_descriptor, also):
            self._poll.register(descriptor, select.POLLIN)
        if self._input in self._open:
            self._poll.register(self._input, select.POLLOUT)
        return self._poll

    def _leave(self, descriptor: int) -> None:
        if self._poll is not None:
            self._poll.unregister(descriptor)

    def look(self) -> None:
        """Say that all is done that can be done now: a program that is found waiting waits since then, at most."""
        self._looked = time.monotonic()

    def _note_wait(self) -> None:
        now = time.monotonic()
        self._held_up += now - self._looked
        self._looked = now

    def serve(self, descriptor: int) -> None:
        """Do what a ready descriptor is ready for."""
        if descriptor == self._input:
            self._refill()
        elif not self._read(self._by_descriptor[descriptor]) or self.overflow:
            self._leave(descriptor)

    def _read(self, output: Output) -> int:
        size = output.read()
        if size >= _FULL:
            self._note_wait()
        return size

    def _refill(self) -> None:
        if not _bytes_in(self._input):
            self._note_wait()
        self._feed()

    def _feed(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._input, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = self._left[:0]  # the program has closed its input: its choice
        self._leave(self._input)
        self._close(self._input)

    def held_up(self) -> float:
        """Do what can be done now. Returns for how many seconds, in all, the program may have waited for us."""
        for output in self.outputs:
            if not self.overflow:
                self._read(output)
        if self._input in self._open:
            self._refill()
        return self._held_up

    def finish(self) -> None:
        """Take the rest, once the program is dead."""
        for output in self.outputs:
            while not self.overflow and output.read():
                pass

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Close what is still open."""
        for descriptor in list(self._open):
            self._close(descriptor)


def _bytes_in(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")
