"""Namespaces: no network, no other processes, and a root that holds nothing but what programs need.

The fork server becomes the first process of a new pid namespace: when it dies, the kernel kills whatever runs in it.
The process that was started stays outside as its parent, waits, and dies with it.
"""

from __future__ import annotations

import _signal
import contextlib
import os
from collections.abc import Sequence
from typing import NoReturn

from . import files, identity, limits, syscalls

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 4096, 16384, 1 << 18, 1 << 21
_LOCKED = {
    os.ST_NOEXEC: MS_NOEXEC,
    os.ST_NOATIME: MS_NOATIME,
    os.ST_NODIRATIME: MS_NODIRATIME,
    os.ST_RELATIME: MS_RELATIME,
}
_TMP_OPTIONS = "size=16m,nr_inodes=1024,mode=1777"
_FLAGS = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET
)


class Unavailable(Exception):
    """The namespaces cannot be had here; the message says which step failed."""


def enter(readable: Sequence[str]) -> int | None:
    """Go on inside new namespaces, with the private root set up.

    Returns, inside, the user id that programs shall have (None: only ours is mapped). The caller's original process
    does not return if that succeeds: it waits and ends as the inner one does.
    Raises:
        Unavailable: nothing has changed.
    """
    spare = identity.spare_ids(os.getpid())
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    try:
        inner = syscalls.clone(_FLAGS | syscalls.CLONE_NEWUSER)
    except OSError as error:
        raise Unavailable(str(error)) from error
    if inner == 0:
        os.close(go_write)
        os.close(said_read)
        _inside(readable, spare, go_read, said_write)
        return None if spare is None else 1
    os.close(go_read)
    os.close(said_write)
    said = b""
    try:
        _map_ids(inner, spare)
        os.write(go_write, b"go")
        said = os.read(said_read, 4096)
    except OSError as error:
        said = f"user ids could not be mapped: {error}".encode()
    os.close(go_write)
    os.close(said_read)
    if said != b"ready":
        os.kill(inner, _signal.SIGKILL)
        os.waitpid(inner, 0)
        raise Unavailable(said.decode(errors="replace") or "the first process inside died")
    return _wait_outside(inner)


def _map_ids(inner: int, spare: int | None) -> None:
    if spare is None:
        with contextlib.suppress(FileNotFoundError):
            _write(f"/proc/{inner}/setgroups", "deny")
        _write(f"/proc/{inner}/gid_map", f"0 {os.getegid()} 1")
        _write(f"/proc/{inner}/uid_map", f"0 {os.geteuid()} 1")
    else:
        _write(f"/proc/{inner}/gid_map", f"0 {spare} 2")
        _write(f"/proc/{inner}/uid_map", f"0 {spare} 2")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _wait_outside(inner: int) -> NoReturn:
    """Wait for the server. It dies with us (its parent-death signal); we die with our parent."""
    os.closerange(3, 1024)
    parent = os.getppid()
    while True:
        if _signal.sigtimedwait([_signal.SIGCHLD], 1.0) is None and os.getppid() != parent:
            os._exit(1)
        ended, _ = os.waitpid(inner, os.WNOHANG)
        if ended:
            os._exit(0)


def _inside(readable: Sequence[str], spare: int | None, go: int, said: int) -> None:
    """The first process of the new namespaces: set up, tell the outer process, or die."""
    try:
        syscalls.make([syscalls.die_with_parent()])
        if os.read(go, 2) != b"go":
            os._exit(1)
        sources = {path: os.open(path, os.O_PATH) for path in (*readable, *files.DEVICES)}
        if spare is not None:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            syscalls.make([syscalls.die_with_parent()])  # changing the user undid it
        limits.open_mapped()
        _build_root(sources)
        syscalls.set_host_name(b"sandbox")
        os.write(said, b"ready")
    except BaseException as error:
        os.write(said, f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    for descriptor in (*sources.values(), go, said):
        os.close(descriptor)


def _build_root(sources: dict[str, int]) -> None:
    root = "/sys"  # exists everywhere, and no interpreter lies in it
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
    syscalls.mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=2048,mode=755")
    for path, descriptor in sources.items():
        _bind(path, descriptor, root + path)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
    _mount_proc(f"{root}/proc")
    os.mkdir(root + files.TMP)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")  # the old root, which lies on the new one now
    os.chdir("/")
    fresh_tmp()
    syscalls.mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _bind(path: str, descriptor: int, target: str) -> None:
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    syscalls.mount(source, target, None, MS_BIND | MS_REC)
    flags = MS_REMOUNT | MS_BIND | MS_NOSUID | (0 if path.startswith("/dev/") else MS_RDONLY | MS_NODEV)
    present = os.statvfs(target).f_flag
    for bit, flag in _LOCKED.items():  # flags of the outer mount must stay
        flags |= flag if present & bit else 0
    syscalls.mount(None, target, None, flags)


def _mount_proc(target: str) -> None:
    """A /proc of the new pid namespace, for /dev/stdin. Where the outer one is masked, the kernel refuses."""
    os.mkdir(target)
    for options in ("subset=pid", None):
        with contextlib.suppress(OSError):
            syscalls.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            return


def fresh_tmp() -> None:
    """An empty /tmp of limited size, in place of what is there."""
    with contextlib.suppress(OSError):
        syscalls.unmount(files.TMP)
    syscalls.mount("tmpfs", files.TMP, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, _TMP_OPTIONS)
