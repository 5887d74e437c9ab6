"""seccomp: the system calls a program may make, as a BPF filter that is built here. See seccomp(2).

A program may start threads, but no process: so CPU time, memory and the end of a program are those of one process, and
killing it kills all of it. It may signal itself only, neither by kill(2) nor by what fcntl(2) offers (an owner that
gets a signal when a pipe is ready), and not with SIGKILL, which is then always somebody else's; execute nothing; and
open no socket (a connected pair of stream sockets, which asyncio needs, is allowed). Pipes keep their size: their
buffers are no part of a program's memory limit.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence, Set

from . import syscalls
from .syscall_table import ALLOWED, CHECKED, CLONE3, LAST_KNOWN, OF_FILES

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # BPF operations on 32-bit words
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS, _ENOTTY = 1, 38, 25
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16

_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000
_PRCTL_OPTIONS = (3, 15, 16, 0x53564D41)  # get dumpable, set and get the name, name a mapping
_IOCTLS = (0x5401, 0x5413, 0x5421, 0x541B, 0x5450, 0x5451)  # is it a terminal, its size, FIONBIO, FIONREAD, FIO(N)CLEX
_SIGKILL = 9
_F_SETFL, _O_ASYNC = 4, 0x2000
_FCNTLS = (0, 1, 2, 3, 5, 6, 7, 36, 37, 38, 1030, 1032)  # copies, flags, locks, the size of a pipe
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF

Code = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, operand


def available() -> bool:
    """Whether this kernel filters system calls and this machine's numbers are known here."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            return syscalls.SUPPORTED and "errno" in file.read().split()
    except OSError:
        return syscalls.SUPPORTED  # no /proc/sys: applying the filter tells


def build(process: int, own_files: bool = True) -> bytes:
    """The filter of one program, whose process id is ``process``, as sock_filter structures.

    ``own_files``: the program sees no files that it could change but its own; else it may not change any.
    """
    code: Code = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, _ARCHITECTURE[syscalls.MACHINE]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        *_search(_ranges(process, ALLOWED if own_files else ALLOWED - OF_FILES)),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _return(action: int) -> Code:
    return [(_RETURN, 0, 0, action)]


def _ranges(process: int, allowed: Set[int]) -> list[tuple[int, Code]]:
    """Every number's fate, as (first number of a range, code) in ascending order."""
    allow, refuse, unknown = _return(_ALLOW), _return(_ERROR | _EPERM), _return(_ERROR | _ENOSYS)
    fates: list[tuple[int, Code]] = []
    for number in range(LAST_KNOWN + 2):
        if number in CHECKED:
            code = _checked(CHECKED[number], process)
        elif number == CLONE3 or number > LAST_KNOWN:
            code = unknown
        else:
            code = allow if number in allowed else refuse
        if not fates or fates[-1][1] != code:
            fates.append((number, code))
    return fates


def _search(ranges: Sequence[tuple[int, Code]]) -> Code:
    """A binary search over the ranges: few steps for each call, and for the kernel, which tries every number once.

    Ranges with one fate share its code: the kernel compiles the filter anew for each program, instruction by
    instruction.
    """
    fates: list[Code] = []
    for _, code in ranges:
        if code not in fates:
            fates.append(code)
    nodes: list[tuple[int, int, int]] = []  # at least which number; the place to go to then, and the one if not

    def begin(part: Sequence[tuple[int, Code]]) -> int:
        """Where the search in these ranges begins: a node's number, or −1 − a fate's."""
        if len(part) == 1:
            return -1 - fates.index(part[0][1])
        node, middle = len(nodes), len(part) // 2
        nodes.append((0, 0, 0))
        below = begin(part[:middle])
        nodes[node] = (part[middle][0], begin(part[middle:]), below)
        return node

    begin(ranges)
    starts = [len(nodes)]
    for code in fates:
        starts.append(starts[-1] + len(code))
    found: Code = []
    for at, (number, *places) in enumerate(nodes):
        there, otherwise = ((place if place >= 0 else starts[-1 - place]) - at - 1 for place in places)
        found.append((_AT_LEAST, there, otherwise, number))
    return [*found, *(instruction for code in fates for instruction in code)]


def _checked(name: str, process: int) -> Code:
    if name == "clone":
        return _one_of(0, (_CLONE_THREAD,), mask=_CLONE_THREAD | _CLONE_NEW)
    if name in ("kill", "tgkill", "tkill"):
        whom = (process, 0, -process & 0xFFFFFFFF) if name == "kill" else (process,)
        return [*_not(2 if name == "tgkill" else 1, _SIGKILL), *_one_of(0, whom)]
    if name == "fcntl":
        return _fcntl()
    if name == "prlimit64":
        return _one_of(0, (0, process))
    if name == "prctl":
        return _one_of(0, _PRCTL_OPTIONS)
    if name == "ioctl":
        return _one_of(1, _IOCTLS, otherwise=_ENOTTY)
    assert name == "socketpair"
    return [
        (_LOAD, 0, 0, _ARGUMENTS_OFFSET),
        (_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        *_one_of(1, (_SOCK_STREAM,), mask=_SOCK_TYPE),
    ]


def _not(argument: int, value: int) -> Code:
    """Refuse if the low word of an argument is ``value``, else go on."""
    return [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument), (_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ERROR | _EPERM)]


def _fcntl() -> Code:
    """All commands but those that send signals (also by an O_ASYNC among the flags) or take memory of the kernel's."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8),
        (_EQUAL, 0, 5, _F_SETFL),
        (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 16),
        (_AND, 0, 0, _O_ASYNC),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
        *_one_of(1, _FCNTLS),
    ]


def _one_of(argument: int, values: Sequence[int], mask: int | None = None, otherwise: int = _EPERM) -> Code:
    """Allow if the low word of an argument (which is all that these calls read) is one of ``values``."""
    code: Code = [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument)]  # both machines are little-endian
    if mask is not None:
        code.append((_AND, 0, 0, mask))
    for left, value in zip(range(len(values), 0, -1), values, strict=True):
        code.append((_EQUAL, left, 0, value))
    return [*code, (_RETURN, 0, 0, _ERROR | otherwise), (_RETURN, 0, 0, _ALLOW)]


class Filter:
    """The filter, built once; the process id of each program is put into its place."""

    _PLACES = (0x7A5A5A51, -0x7A5A5A51 & 0xFFFFFFFF)

    def __init__(self, own_files: bool) -> None:
        program = build(self._PLACES[0], own_files)
        code = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
        own, negated = ([2 * i + 1 for i, c in enumerate(code) if c[0] == _EQUAL and c[3] == p] for p in self._PLACES)
        self._own, self._negated = tuple(own), tuple(negated)
        self._memory = bytearray(program)
        self._words = memoryview(self._memory).cast("I")
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        header = struct.pack("HxxxxxxQ", len(code), address)
        self._header = ctypes.create_string_buffer(header, len(header))
        self.call = syscalls.seccomp_filter(ctypes.addressof(self._header))
        """Filters the process that makes it, for good. Needs no_new_privs."""

    def fit(self, process: int) -> None:
        """Make it the filter of the process whose id is ``process``."""
        words = self._words
        for place in self._own:
            words[place] = process
        for place in self._negated:
            words[place] = 2**32 - process
