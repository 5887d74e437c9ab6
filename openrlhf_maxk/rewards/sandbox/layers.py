"""Which layers of protection are on here, and applying those that each program gets anew."""

from __future__ import annotations

import _signal
import os
from collections.abc import Sequence
from resource import setrlimit

from . import files, identity, landlock, limits, namespaces, seccomp, syscalls
from .protocol import LAYERS, Request


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
        syscalls.hide_from_others()
        limits.apply_lasting(self.user is not None or (self.inside and _counts_threads_by_namespace()))
        self._mapped = limits.mapped_bytes()

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

    def limits_of(self, request: Request) -> limits.Limits:
        """The resource limits of a program that is forked next."""
        return limits.of_program(request, self._mapped)

    def confine(self, resources: limits.Limits, server: int) -> None:
        """Lock this process, a fresh child of ``server``, down for good. Raises OSError if a layer fails.

        Every page that this touches is copied for each program, which is most of what it costs.
        """
        os.setsid()
        if self.inside:
            os.chdir(files.TMP)
        if self.user is not None:
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        syscalls.drop_capabilities()
        syscalls.die_with_parent()
        if os.getppid() != server:
            os._exit(1)  # it died before it could be told to take us along
        if self._rules is not None:
            syscalls.landlock_restrict_self(self._rules)
        if self._filter is not None:
            self._filter.apply(os.getpid())
        for kind, soft_and_hard in resources:  # last: what fails for want of memory from here on is the program's fault
            setrlimit(kind, soft_and_hard)

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
