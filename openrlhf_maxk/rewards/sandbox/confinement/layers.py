"""Which layers of protection are on here, and applying those that each program gets anew."""

from __future__ import annotations

import _signal
import ctypes
import os
from collections.abc import Sequence

from ..protocol import LAYERS
from . import files, identity, landlock, limits, namespaces, seccomp, syscalls

_TMP = ctypes.create_string_buffer(os.fsencode(files.TMP))


class Layers:
    """What protects this lane. Entering the namespaces changes this process; the rest waits for each child."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.missing = {name: "switched off" for name in LAYERS if name not in wanted}
        readable = files.readable()
        self.inside = "namespaces" in wanted and self._enter_namespaces(readable)
        self.user = self._choose_user() if "uid_drop" in wanted else None
        if self.user is not None:
            os.setgroups([])
            if not self.inside:
                files.reach_modules()
        self._readable = readable
        self._fresh = files.state_of(files.TMP) if self.inside else ()
        self._rules: int | None = None
        if "landlock" in wanted:
            self._make_rules()
        self._filter: seccomp.Filter | None = None
        if "seccomp" in wanted:
            self._make_filter()
        syscalls.no_new_privileges()
        limits.apply_lasting(self.user is not None or (self.inside and _counts_threads_by_namespace()))
        self.limits = limits.ProgramLimits()
        self._calls = self._lock_down()

    def _enter_namespaces(self, readable: Sequence[str]) -> bool:
        try:
            self._user_inside = namespaces.enter(readable)
        except namespaces.Unavailable as error:
            self.missing["namespaces"] = str(error)
            return False
        return True

    def _choose_user(self) -> int | None:
        user = self._user_inside if self.inside else identity.spare_ids(os.getpid())
        if user is None:
            self.missing["uid_drop"] = "not root, or no ids to choose from"
        elif not identity.may_change():
            user, self.missing["uid_drop"] = None, "root without the capability to change its user"
        return user

    def _make_rules(self) -> None:
        if not landlock.version():
            self.missing["landlock"] = "the kernel does not offer it"
            return
        rules = landlock.ruleset(self._readable, writable_tmp=self.inside)
        self._rules = limits.place(rules, limits.RULES)

    def _make_filter(self) -> None:
        if seccomp.available():
            self._filter = seccomp.Filter(own_files=self.inside)
        else:
            self.missing["seccomp"] = "the kernel or this machine's architecture does not offer it"

    def _lock_down(self) -> tuple[syscalls.Call, ...]:
        """What a fresh child does, in this order, and for good. Its streams have come as descriptors 3, 4 and 5."""
        calls = [syscalls.prepared("dup2", 3 + stream, stream) for stream in (0, 1, 2)]
        calls += [syscalls.prepared("close", 3 + stream) for stream in (0, 1, 2)]
        calls += [syscalls.unblock_signals(), syscalls.prepared("setsid")]
        if self.inside:
            calls.append(syscalls.prepared("chdir", ctypes.addressof(_TMP)))
        if self.user is not None:
            calls += [syscalls.prepared(name, *[self.user] * 3) for name in ("setresgid", "setresuid")]
        calls += [syscalls.drop_capabilities(), syscalls.die_with_parent()]
        if self._rules is not None:
            calls.append(syscalls.landlock_restrict_self(self._rules))
        if self._filter is not None:
            calls.append(self._filter.call)
        return (*calls, *self.limits.calls)  # last: what fails for want of memory from here on is the program's fault

    def confine(self, server: int) -> None:
        """Lock this process, a fresh child of ``server``, down for good. Raises OSError if a layer fails."""
        if self._filter is not None:
            self._filter.fit(os.getpid())
        syscalls.make(self._calls)
        if os.getppid() != server:
            os._exit(1)  # it died before it could be told to take us along

    def clean(self) -> None:
        """After a program: kill what it started, empty what it could write."""
        if syscalls.has_children():
            _kill_the_rest(self.inside)
        if self.inside and files.state_of(files.TMP) != self._fresh:
            self._renew_tmp()

    def _renew_tmp(self) -> None:
        namespaces.fresh_tmp()
        self._fresh = files.state_of(files.TMP)
        if self._rules is not None:
            self._make_rules()  # the old rules name the old directory


def _counts_threads_by_namespace() -> bool:
    """Since Linux 5.14 RLIMIT_NPROC counts within the user namespace; before, all processes of the outer user."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()))) >= (5, 14)


def _kill_the_rest(inside: bool) -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        if inside:
            os.kill(-1, _signal.SIGKILL)  # everything in the pid namespace but us, and nothing can be born meanwhile
        else:
            for child in _children():
                os.kill(child, _signal.SIGKILL)
        os.waitpid(-1, 0)


def _children() -> list[int]:
    """Our children, among them what our dead children left: we are their reaper."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                found.append(int(name))
    return found
