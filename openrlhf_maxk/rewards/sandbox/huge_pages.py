"""Cheaper forks, second part: the interpreter's code lies in huge pages, which fork hands on.

What is mapped from a file is not handed on: every child finds its pages anew, sixteen at a time, and loses them again
at its end, which is a tenth of what a short program costs. So the whole huge pages of the files that the interpreter
has loaded by its start are replaced by copies in memory of the process's own, at the same addresses.

Where no huge page can be had, nothing is replaced: handing on small pages costs more than finding those of a file.
"""

from __future__ import annotations

import contextlib
import ctypes

from .confinement import syscalls

SIZE = 2**21  # bytes; where huge pages are of another size, none will be found


def take_in() -> None:
    """Replace what can be replaced. The process must have one thread, and /proc."""
    with contextlib.suppress(OSError):
        for start, end in _loaded():
            first, size = _up(start), end // SIZE * SIZE - _up(start)
            if size > 0:
                _replace(first, size)


def _up(address: int) -> int:
    """Where the first huge page at or behind an address begins."""
    return -(-address // SIZE) * SIZE


def _loaded() -> list[tuple[int, int]]:
    """Where files are mapped that nobody writes to: addresses of the first byte and behind the last one."""
    found: list[list[int]] = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            where, access, _, _, inode = line.split()[:5]
            if access not in ("r-xp", "r--p") or inode == "0":
                continue
            start, end = (int(address, 16) for address in where.split("-"))
            if found and found[-1][1] == start:
                found[-1][1] = end
            else:
                found.append([start, end])
    return [(start, end) for start, end in found]


def _replace(start: int, size: int) -> None:
    """Replace whole huge pages if others can be had. What was only to be read may be executed afterwards."""
    reserved = syscalls.map_memory(size + SIZE)
    copy = _up(reserved)
    try:
        syscalls.wish_for_huge_pages(copy, size)
        ctypes.memmove(copy, start, size)
        syscalls.make_executable(copy, size)
        if _in_huge_pages(copy) >= size:
            syscalls.move_mapping(copy, size, start)
    finally:
        syscalls.unmap(reserved, size + SIZE)  # what is left there


def _in_huge_pages(start: int) -> int:
    """How many bytes of the mapping that begins at ``start`` lie in huge pages."""
    with open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as maps:
        found = False
        for line in maps:
            found = found or line.startswith(f"{start:x}-")
            if found and line.startswith("AnonHugePages:"):
                return 1024 * int(line.split()[1])
    return 0
