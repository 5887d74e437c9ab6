"""What a program may have left behind: processes of the sandbox, and files with a marker in their name."""

from __future__ import annotations

import os
import time
from pathlib import Path

WRITABLE = ("/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/root", "/home", "/run", "/var", os.path.expanduser("~"))


def _processes() -> dict[int, tuple[int, bytes]]:
    """Parent and command line of every process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[1])
                found[int(name)] = (parent, Path(f"/proc/{name}/cmdline").read_bytes())
            except OSError:
                continue
    return found


def sandbox_processes(servers: list[int]) -> set[int]:
    """The servers, and everything that came out of them: what descends from them, and what has run away.

    A fork keeps the command line, wherever it goes. A runaway has init as its first ancestor with another one; servers
    of other executors have their own client.
    """
    processes = _processes()
    commands = {processes[server][1] for server in servers if server in processes}
    found = set(servers) & processes.keys()
    for process in processes:
        ancestor = process
        while ancestor in processes and ancestor not in servers and processes[ancestor][1] in commands:
            ancestor = processes[ancestor][0]
        if ancestor in servers or (ancestor <= 1 and processes[process][1] in commands):
            found.add(process)
    return found


def settles_at(servers: list[int], expected: set[int], seconds: float = 5.0) -> set[int]:
    """What is there beyond ``expected`` once nothing more goes away."""
    deadline = time.monotonic() + seconds
    while True:
        extra = sandbox_processes(servers) - expected
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.02)


def files_named(marker: str) -> list[str]:
    """Files that bear the marker in places where a program may try to write."""
    found = []
    for directory in dict.fromkeys(WRITABLE):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found += [f"{directory}/{name}" for name in names if marker in name]
    return found
