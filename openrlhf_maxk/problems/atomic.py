"""Folders and files that are there whole or not at all, whatever is killed when."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder under another name; it gets its own, in one step, when the block ends without an error.

    A folder that is already there is replaced only then. What a killed run has left behind is cleared away.

    Raises:
        NotADirectoryError: ``path`` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; a folder is to be written there: remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    work = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with this process, so that others can tell a leftover from work
        work.chmod(0o755)
        yield work
        _sync_tree(work)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
            os.rename(path, old)
            os.rename(work, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(work, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write one UTF-8 file in one step."""
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
    for leftover in path.parent.glob(f"{_prefix(path)}*"):
        if not leftover.is_dir():
            continue
        descriptor = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            pass  # another process is at work there
        finally:
            os.close(descriptor)


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
