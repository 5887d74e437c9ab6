"""Folders and files that are there whole or not at all, whatever is killed when."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder under another name; it gets its own, in one step, when the block ends without an error.

    A folder that is already there is replaced only then: a killed run leaves the old one, the new one or (between two
    renames) none. Its unfinished folder is cleared away by the next run.

    Raises:
        NotADirectoryError: ``path`` is a file.
    """
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file; a folder is to be written there: remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    work, lock = _locked_folder(path)
    try:
        yield work
        _sync_tree(work)
        _put_in_place(work, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A folder of ours, and the lock that tells others so; the system frees it when this process ends in any way."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        with suppress(FileNotFoundError):  # cleared away before it was locked
            lock = os.open(work, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if work.exists():
                work.chmod(0o755)
                return work, lock
            os.close(lock)


def _put_in_place(work: Path, path: Path) -> None:
    while True:
        try:
            return os.rename(work, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        with suppress(FileNotFoundError):  # another process was quicker
            os.rename(path, old)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write one UTF-8 file in one step, replacing one that is there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, work = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(work, path)
        _sync(path.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(work)
        raise


def _prefix(path: Path) -> str:
    return f".{path.name}.unfinished-"


def _clear_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f"{_prefix(path)}*/"):
        with suppress(OSError), ExitStack() as stack:  # gone already, or locked: another process is at work there
            lock = os.open(leftover, os.O_RDONLY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
