"""System calls through ctypes: those that Python's standard library does not offer, and a few that it does.

``socket``, ``select``, ``resource`` and ``fcntl`` stay unimported in a fork server: each makes every fork dearer, by
what it leaves in memory and by the mappings of a library of its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

MACHINE = os.uname().machine
SUPPORTED = MACHINE in ("x86_64", "aarch64")

_X86 = MACHINE == "x86_64"
_CLONE = 56 if _X86 else 220
_PIVOT_ROOT = 155 if _X86 else 41
_IO_URING_SETUP, _IO_URING_REGISTER = 425, 427
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_SECCOMP_MODE_FILTER = 2
_SIGCHLD, _SIGKILL = 17, 9
_MNT_DETACH = 2
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS, _MREMAP_MAYMOVE, _MREMAP_FIXED, _MADV_HUGEPAGE = 2, 0x20, 1, 2, 14
_P_ALL, _WNOHANG, _WEXITED, _WNOWAIT = 0, 1, 4, 0x01000000

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

_library = ctypes.PyDLL(None, use_errno=True)
_long, _ulong, _pointer, _text = ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_char_p


def _function(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Callable[..., int]:
    function = _library[name]
    function.argtypes, function.restype = arguments, result
    return function


_syscall = _function("syscall", *[_long] * 7, result=_long)
_prctl = _function("prctl", ctypes.c_int, *[_ulong] * 4)
_mount = _function("mount", _text, _text, _text, _ulong, _text)
_umount2 = _function("umount2", _text, ctypes.c_int)
_sethostname = _function("sethostname", _text, ctypes.c_size_t)
_waitid = _function("waitid", ctypes.c_int, ctypes.c_uint, _pointer, ctypes.c_int)
_poll = _function("poll", _pointer, _ulong, ctypes.c_int)
_recvmsg = _function("recvmsg", ctypes.c_int, _pointer, ctypes.c_int, result=_long)
_signalfd = _function("signalfd", ctypes.c_int, _pointer, ctypes.c_int)
_mmap = _function("mmap", _ulong, _ulong, ctypes.c_int, ctypes.c_int, ctypes.c_int, _long, result=_long)
_mremap = _function("mremap", _ulong, _ulong, _ulong, ctypes.c_int, _ulong, result=_long)
_mprotect = _function("mprotect", _ulong, _ulong, ctypes.c_int)
_madvise = _function("madvise", _ulong, _ulong, ctypes.c_int)
_munmap = _function("munmap", _ulong, _ulong)

fork = _library["fork"]
"""fork(2) without Python's hooks.

The server has one thread, so the hooks mend nothing; they touch a hundred pages that would be copied, and reseed
``random``, whose state is to be the same for every run.
"""

Call = tuple[Callable[..., int], tuple[Any, ...]]
"""A system call with its arguments, to be made later by :func:`make`."""

_capability_header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_no_capabilities = (ctypes.c_uint32 * 6)()
_no_signals = (ctypes.c_ulong * 16)()


def prepared(name: str, *arguments: int) -> Call:
    """A call of the C library's function ``name`` with integers or addresses, made ready.

    A forked child that makes it builds no object and looks nothing up, so it touches few pages that would have to be
    copied. That is most of what a lock-down costs.
    """
    return _library[name], tuple(_long(argument) for argument in arguments)


def make(calls: Sequence[Call]) -> None:
    """Make prepared calls one after the other. Raises OSError, naming the first that fails."""
    for function, arguments in calls:
        if function(*arguments) < 0:
            raise _failed(function.__name__)


def drop_capabilities() -> Call:
    """Give up every capability, for good."""
    return prepared("capset", ctypes.addressof(_capability_header), ctypes.addressof(_no_capabilities))


def die_with_parent() -> Call:
    """Be killed when the parent dies. Changing user or capabilities undoes it."""
    return prepared("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def landlock_restrict_self(rules: int) -> Call:
    """Apply a Landlock ruleset to this process."""
    return prepared("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)


def seccomp_filter(program: int) -> Call:
    """Install the filter whose sock_fprog lies at address ``program``."""
    return prepared("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)


def unblock_signals() -> Call:
    """Let every signal through."""
    how = 2  # SIG_SETMASK
    return prepared("sigprocmask", how, ctypes.addressof(_no_signals), 0)


def _failed(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")


def _check(result: int, name: str) -> int:
    if result < 0:
        raise _failed(name)
    return result


def syscall(number: int, *arguments: int) -> int:
    """A raw system call with integer arguments (addresses too). Raises OSError."""
    return _check(_syscall(number, *arguments, *[0] * (6 - len(arguments))), f"system call {number}")


def io_uring() -> int:
    """The descriptor of a new io_uring. Raises OSError."""
    parameters = (ctypes.c_uint32 * 30)()
    return syscall(_IO_URING_SETUP, 1, ctypes.addressof(parameters))


def io_uring_register(ring: int, what: int, address: int, count: int) -> None:
    """Register buffers and the like. Raises OSError."""
    syscall(_IO_URING_REGISTER, ring, what, address, count)


def hard_limit(kind: int) -> int:
    """A resource's hard limit. Raises OSError."""
    limit = (ctypes.c_uint64 * 2)()  # struct rlimit: the soft one, the hard one
    _check(_library.getrlimit(kind, limit), "getrlimit")
    return limit[1]


def set_limit(kind: int, value: int) -> None:
    """Limit a resource, soft and hard. Raises OSError."""
    _check(_library.setrlimit(kind, (ctypes.c_uint64 * 2)(value, value)), "setrlimit")


class Readable:
    """Waits for descriptors to have something to read, or to be closed at the other end."""

    def __init__(self, *descriptors: int) -> None:
        self._descriptors = descriptors
        wanted = 1 << 32  # POLLIN
        states = [descriptor | wanted for descriptor in descriptors]  # struct pollfd: 32 bits, 16 wanted, 16 found
        self._states = (ctypes.c_uint64 * len(states))(*states)

    def wait(self, seconds: float) -> list[int]:
        """Those that are ready, none of them after ``seconds``. Raises OSError."""
        _check(_poll(ctypes.addressof(self._states), len(self._states), int(1000 * seconds) + 1), "poll")
        return [descriptor for descriptor, state in zip(self._descriptors, self._states, strict=True) if state >> 48]


class Receiver:
    """The messages of a socket, at most ``size`` bytes each, with the descriptors that come along (16 at most)."""

    _SPACE = 16 + 16 * 4  # struct cmsghdr: length, level, type; then the descriptors

    def __init__(self, socket: int, size: int) -> None:
        self._socket = socket
        self._data = ctypes.create_string_buffer(size)
        self._control = ctypes.create_string_buffer(self._SPACE)
        self._part = (ctypes.c_size_t * 2)(ctypes.addressof(self._data), size)  # struct iovec
        self._header = (ctypes.c_size_t * 7)()  # struct msghdr

    def receive(self) -> tuple[bytes, list[int]]:
        """The next message, empty at the end, and its descriptors. Raises OSError."""
        self._header[:] = [0, 0, ctypes.addressof(self._part), 1, ctypes.addressof(self._control), self._SPACE, 0]
        size = _check(_recvmsg(self._socket, ctypes.addressof(self._header), 0), "recvmsg")
        if self._header[5] == 0:
            return self._data.raw[:size], []
        length = int.from_bytes(self._control.raw[:8], "little")
        return self._data.raw[:size], list(memoryview(self._control.raw[16:length]).cast("i"))


def has_children() -> bool:
    """Whether there is a process to wait for; without the exception that waitpid raises if not."""
    return _waitid(_P_ALL, 0, None, _WEXITED | _WNOHANG | _WNOWAIT) == 0


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies. Raises OSError."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def no_new_privileges() -> None:
    """No program that is executed from here on gains rights. Raises OSError."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def show_to_owner(shown: bool) -> None:
    """Whether processes of the same user may trace this one and read its memory maps. Raises OSError."""
    _check(_prctl(_PR_SET_DUMPABLE, int(shown), 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def clone(flags: int) -> int:
    """A fork into new namespaces. Raises OSError."""
    return _check(_syscall(_CLONE, flags | _SIGCHLD, 0, 0, 0, 0, 0), "clone into new namespaces")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2). Raises OSError."""
    buffers = [ctypes.create_string_buffer(os.fsencode(path)) for path in (new, old)]
    syscall(_PIVOT_ROOT, *[ctypes.addressof(buffer) for buffer in buffers])


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2). Raises OSError naming the target."""
    source_, target_, kind_, options_ = [None if t is None else os.fsencode(t) for t in (source, target, kind, options)]
    _check(_mount(source_, target_, kind_, flags, options_), f"mount {kind or source or ''} on {target}")


def unmount(target: str) -> None:
    """Detach a mount lazily. Raises OSError."""
    _check(_umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def set_host_name(name: bytes) -> None:
    """sethostname(2). Raises OSError."""
    _check(_sethostname(name, len(name)), "sethostname")


def signal_descriptor(signal_number: int) -> int:
    """A descriptor that is readable when the (blocked) signal is pending. Raises OSError."""
    mask = (ctypes.c_ulong * 16)()
    mask[0] = 1 << (signal_number - 1)
    return _check(_signalfd(-1, ctypes.addressof(mask), os.O_CLOEXEC), "signalfd")


def map_memory(size: int) -> int:
    """The address of so many bytes of new memory. Raises OSError."""
    access, kind = _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS
    return _check(_mmap(0, size, access, kind, -1, 0), "mmap")


def wish_for_huge_pages(address: int, size: int) -> None:
    """For memory that has not been touched yet. Raises OSError."""
    _check(_madvise(address, size, _MADV_HUGEPAGE), "madvise(MADV_HUGEPAGE)")


def make_executable(address: int, size: int) -> None:
    """And not writable any more. Raises OSError."""
    _check(_mprotect(address, size, _PROT_READ | _PROT_EXEC), "mprotect")


def move_mapping(address: int, size: int, target: int) -> None:
    """To ``target``, at once, in place of what is mapped there. Raises OSError."""
    _check(_mremap(address, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, target), "mremap")


def unmap(address: int, size: int) -> None:
    """Give memory back; what is not mapped there does not matter. Raises OSError."""
    _check(_munmap(address, size), "munmap")
