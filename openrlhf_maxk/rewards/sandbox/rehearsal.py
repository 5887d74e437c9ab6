"""Cheaper forks: the pages that every program writes to are copied by fork itself, not one by one afterwards.

A short program costs page faults, mostly: it writes to a few hundred of the pages that it inherits, if only to count
references, and each first write stops it until the page has been copied. Pages that are pinned (as they are for
devices that read them) fork copies at once, for less than half of that, and the server keeps its own without a fault.
So one program is run as a rehearsal, and the pages that have been copied when it ends are pinned: as buffers of an
io_uring, which is never used otherwise.

Where io_uring cannot be had, or no more memory may be locked, nothing is pinned, and a test takes a little longer.
"""

from __future__ import annotations

import _signal
import ctypes
import os
import struct
from typing import NoReturn

from .confinement import limits, syscalls
from .protocol import pack_job

JOB = pack_job(
    """\
import sys

def totals(numbers):
    seen = {}
    for index, number in enumerate(numbers):
        seen[number] = max(seen.get(number, 0), index + 1)
    return sorted(seen.values())

first, *rest = map(int, input().split())
lines = [line.strip() for line in sys.stdin]
print(first, len(lines), *totals(rest))
"""
)
INPUT = b"1 2 3\n4 5\n"

_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56  # bits of an entry of pagemap: in memory; mapped by one process only
_REGISTER_BUFFERS = 0


def pause(_: int) -> NoReturn:
    """In place of a program's end: stop, until killed."""
    while True:
        os.kill(os.getpid(), _signal.SIGSTOP)


class HotPages:
    """The writable memory of this process. Made before the rehearsal is forked. Raises OSError."""

    def __init__(self) -> None:
        limits.place(syscalls.io_uring(), limits.PINNED)
        self._size = limits.PAGE_BYTES
        self._mappings: list[tuple[int, int, bool]] = []  # first page, pages, whether it is a file's
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                where, access, *_, inode = line.split()[:5]
                if access == "rw-p":
                    start, end = (int(address, 16) // self._size for address in where.split("-"))
                    self._mappings.append((start, end - start, inode != "0"))

    def pin(self) -> None:
        """Pin what is no longer shared with the child, which has come to its end. Raises OSError."""
        file = os.open("/proc/self/pagemap", os.O_RDONLY)
        try:
            entries = [os.pread(file, 8 * pages, 8 * first) for first, pages, _ in self._mappings]
        finally:
            os.close(file)
        anonymous: list[int] = []
        of_files: list[int] = []
        for (first, _, is_file), entry in zip(self._mappings, entries, strict=True):
            copied = [
                first + index
                for index, (bits,) in enumerate(struct.iter_unpack("=Q", entry))
                if bits & _PRESENT and bits & _EXCLUSIVE
            ]
            (of_files if is_file else anonymous).extend(copied)
        try:
            self._register(anonymous + of_files)
        except OSError:
            self._register(anonymous)  # before Linux 6.5, io_uring refuses the pages of files, private ones too

    def _register(self, pages: list[int]) -> None:
        vectors = (ctypes.c_ulong * (2 * len(pages)))()  # struct iovec: address, length
        vectors[::2] = [page * self._size for page in pages]
        vectors[1::2] = [self._size] * len(pages)
        syscalls.io_uring_register(limits.PINNED, _REGISTER_BUFFERS, ctypes.addressof(vectors), len(pages))
