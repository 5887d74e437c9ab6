"""Whose rights a program has: an unused user id where this process may choose one, and never a capability."""

from __future__ import annotations

import os

_FIRST_CHOICE = 2_000_000_000  # far from the ids that distributions, containers and directories hand out
_PROCESSES = 2**22  # no process id is larger


def spare_ids(process: int) -> int | None:
    """The first of two consecutive user (and group) ids that belong to nobody else; None if we may not choose.

    Different for every process, because the kernel counts processes by user. Only root of a user namespace that has
    ids to spare may choose.
    """
    if os.geteuid() != 0:
        return None
    candidates = [_spare(path, process) for path in ("/proc/self/uid_map", "/proc/self/gid_map")]
    return candidates[0] if candidates[0] == candidates[1] else None


def _spare(map_path: str, process: int) -> int | None:
    with open(map_path, encoding="ascii") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    start, _, count = max(ranges, key=lambda line: line[2])
    end = min(start + count, _FIRST_CHOICE + 2 * _PROCESSES)
    room = min((end - start) // 4, _PROCESSES)
    if room < 1024:
        return None
    return end - 2 - 2 * (process % room)


def may_change() -> bool:
    """Whether this process has CAP_SETGID and CAP_SETUID, which a container may withhold from root."""
    setgid, setuid = 6, 7
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return effective >> setgid & 1 == 1 and effective >> setuid & 1 == 1
