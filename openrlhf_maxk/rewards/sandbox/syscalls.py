"""The system calls that Python's standard library does not offer, through ctypes."""

from __future__ import annotations

import ctypes
import os

MACHINE = os.uname().machine
SUPPORTED = MACHINE in ("x86_64", "aarch64")

_X86 = MACHINE == "x86_64"
CLONE = 56 if _X86 else 220
PIVOT_ROOT = 155 if _X86 else 41
CAPSET = 126 if _X86 else 91
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 36, 38, 39

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None)  # for calls that must not give another thread a chance in between
_libc.syscall.restype = ctypes.c_long
_libc_with_gil.syscall.restype = ctypes.c_long


def _checked(result: int, name: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """A raw system call; integers are passed as longs. Raises OSError."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), f"system call {number}")


def prctl(option: int, argument: object = 0) -> int:
    """prctl(2) with one argument. Raises OSError."""
    passed = ctypes.c_ulong(argument) if isinstance(argument, int) else argument
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, passed, zero, zero, zero), f"prctl({option})")


def seccomp_filter(program: object) -> None:
    """Install a filter; ``program`` points to a sock_fprog. Raises OSError."""
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), program, zero, zero), "seccomp filter")


def fork() -> int:
    """fork(2) without Python's hooks.

    The server has one thread, so the hooks mend nothing; they touch a hundred pages that would be copied, and reseed
    ``random``. Without them every program starts from the same random state, and its verdict can be repeated.
    """
    return _libc_with_gil.fork()


def clone(flags: int) -> int:
    """A fork into new namespaces. The child is the first process of its pid namespace if CLONE_NEWPID is given."""
    ctypes.set_errno(0)
    zero = ctypes.c_long(0)
    sigchld = 17
    result = _libc_with_gil.syscall(ctypes.c_long(CLONE), ctypes.c_long(flags | sigchld), zero, zero, zero, zero)
    if result < 0:
        raise OSError(0, "clone into new namespaces was refused")
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2). Raises OSError naming the target."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _checked(result, f"mount {kind or source or ''} on {target}")


def unmount(target: str) -> None:
    """Detach a mount lazily. Raises OSError."""
    detach = 2
    _checked(_libc.umount2(os.fsencode(target), detach), f"umount {target}")


def set_host_name(name: bytes) -> None:
    """sethostname(2). Raises OSError."""
    _checked(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def signal_descriptor(signal_number: int) -> int:
    """A descriptor that is readable when the (blocked) signal is pending. Raises OSError."""
    mask = (ctypes.c_ulong * 16)()
    mask[0] = 1 << (signal_number - 1)
    close_on_exec = 0o2000000
    return _checked(_libc.signalfd(-1, mask, close_on_exec), "signalfd")


def drop_capabilities() -> None:
    """Give up every capability, for good. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    syscall(CAPSET, header, (ctypes.c_uint32 * 6)())
