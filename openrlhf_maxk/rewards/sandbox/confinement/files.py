"""What a program may see of the file system: the interpreter, the libraries it loads, a few devices, a private /tmp."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable

TMP = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")
_DESCRIPTORS = 96  # directory handles lie from here on; they stay open in the program


def state_of(directory: str) -> tuple[int, ...]:
    """What differs once anything has been done to a directory or in it."""
    found = os.stat(directory)
    return found.st_ino, found.st_mode, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def readable() -> list[str]:
    """Directories and files that a program may read, none inside another, all existing."""
    paths = {os.path.abspath(path) for path in sys.path if path}
    paths.add(os.path.join(sys.base_prefix, "lib"))
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        mapped = [line.rstrip("\n").partition("/") for line in maps]
    paths.update(os.path.dirname("/" + path) for _, slash, path in mapped if slash and ".so" in path)
    paths.update(_LIBRARIES + _FILES)
    return _outermost(path for path in paths if os.path.exists(path) and path != "/")


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept


def reach_modules() -> None:
    """Make Python's modules importable by another user even if they lie below a directory that only we may enter.

    Directories that others cannot reach are opened now, and searched through their descriptors later. Needs /proc.
    """
    moved: dict[str, str] = {}
    for index, path in enumerate(sys.path):
        if os.path.isdir(path) and not _reachable(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            target = _DESCRIPTORS + index
            os.dup2(descriptor, target)
            os.close(descriptor)
            moved[path] = sys.path[index] = f"/proc/self/fd/{target}"
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        where = getattr(module, "__path__", None)
        if isinstance(where, list):
            where[:] = [_moved(directory, moved) for directory in where]


def _moved(path: str, moved: dict[str, str]) -> str:
    best = max((old for old in moved if path.startswith(old + "/")), key=len, default=None)
    return path if best is None else moved[best] + path[len(best) :]


def _reachable(path: str) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    while True:
        if os.stat(path).st_mode & needed != needed:
            return False
        if path == "/":
            return True
        path, needed = os.path.dirname(path), stat.S_IXOTH
