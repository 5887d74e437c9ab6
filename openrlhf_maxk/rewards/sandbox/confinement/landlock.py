"""Landlock: file access limited to a list, no TCP, no signals to others. Needs no privilege. See landlock(7)."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence

from . import files, syscalls

_ACCESS = (  # by bit; how many a kernel knows depends on its version of the interface
    *("execute", "write_file", "read_file", "read_dir", "remove_dir", "remove_file", "make_char", "make_dir"),
    *("make_reg", "make_sock", "make_fifo", "make_block", "make_sym", "refer", "truncate", "ioctl_dev"),
)
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ = ("read_file", "read_dir")
_WRITE = (
    "write_file",
    "truncate",
    "remove_dir",
    "remove_file",
    "make_dir",
    "make_reg",
    "make_fifo",
    "make_sym",
    "refer",
)
_ALLOWED_ON_FILES = ("read_file", "write_file", "truncate", "execute", "ioctl_dev")
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract unix sockets, signals


def version() -> int:
    """The kernel's version of the interface; 0 if there is none."""
    try:
        return syscalls.syscall(syscalls.LANDLOCK_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def ruleset(readable: Sequence[str], writable_tmp: bool) -> int:
    """A descriptor of the rules, to be applied with ``landlock_restrict_self``. Needs no_new_privs. Raises OSError."""
    interface = version()
    known = _ACCESS[: _KNOWN.get(interface, 16)]
    attributes = (ctypes.c_uint64 * 3)(_bits(known, known), _TCP, _SCOPES)
    size = 8 if interface < 4 else 16 if interface < 6 else 24
    descriptor = syscalls.syscall(syscalls.LANDLOCK_CREATE_RULESET, ctypes.addressof(attributes), size, 0)
    for path in readable:
        _allow(descriptor, path, _READ, known)
    for path in files.DEVICES:
        _allow(descriptor, path, ("read_file", "write_file"), known)
    if writable_tmp:
        _allow(descriptor, files.TMP, _READ + _WRITE, known)
    return descriptor


def _bits(names: Sequence[str], known: Sequence[str]) -> int:
    return sum(1 << known.index(name) for name in names if name in known)


def _allow(descriptor: int, path: str, names: Sequence[str], known: Sequence[str]) -> None:
    try:
        target = os.open(path, os.O_PATH)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            names = [name for name in names if name in _ALLOWED_ON_FILES]
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _bits(names, known), target))
        beneath = 1
        syscalls.syscall(syscalls.LANDLOCK_ADD_RULE, descriptor, beneath, ctypes.addressof(rule), 0)
    finally:
        os.close(target)
