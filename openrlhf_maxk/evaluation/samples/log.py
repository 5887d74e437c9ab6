"""An append-only log of JSON records: what was appended survives a kill at any moment.

A log is a folder of segments, ``00001.jsonl`` and so on. Every writer begins a segment of its own and never touches an
older one. Records are on disk (fsync) when :meth:`Writer.append` returns. A killed writer can leave one unfinished line
at the end of its segment; readers pass over it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class LogError(Exception):
    """A damaged log, or one that somebody else is writing. The message names the file."""


class Log:
    """A folder of segments. Reading takes no lock and sees every record appended so far."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order in which they were appended.

        Raises:
            LogError: a line that is not a JSON object, other than an unfinished last one.
        """
        for segment in self.segments():
            yield from _records(segment)

    def segments(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Append to the log. The caller sees to it that there is one writer at a time (:func:`locked`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        segments = self.segments()
        number = int(segments[-1].stem) + 1 if segments else 1
        writer = Writer(self.folder / f"{number:05d}.jsonl")
        try:
            yield writer
        finally:
            writer.close()


class Writer:
    """One segment being written. The file is made by the first record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records; they are on disk when this returns.

        Raises:
            OSError: they could not be written (no space left); records appended earlier are unharmed.
        """
        lines = "".join(
            json.dumps(r, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n" for r in records
        )
        if not lines:
            return
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            _sync_folder(self._path.parent)
        data = memoryview(lines.encode("ascii"))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def close(self) -> None:
        """End the segment."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Be the only process that writes in ``folder``. A killed process leaves no lock behind.

    Raises:
        LogError: another process holds the lock; the message says which one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise LogError(f"{what} {folder} is being written by {holder}; wait for it, or write elsewhere") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _records(segment: Path) -> Iterator[Record]:
    with open(segment, "rb") as file:
        problem = None
        for number, line in enumerate(file, start=1):
            if problem is not None:
                raise LogError(f"{segment}, line {problem} is damaged: remove that line, and run again to replace it")
            record = _parse(line)
            if record is None:
                problem = number  # forgiven if it is the last line
            else:
                yield record


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
