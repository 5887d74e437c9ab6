"""Streaming the rows of Parquet, Arrow, JSON-lines and JSON files, a few at a time, whatever is in them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_maxk.problems.sources.reading.fields import json_fault
from openrlhf_maxk.problems.sources.source import Rejected, Row, SourceError

BATCH_ROWS = 4  # a row of tests may hold hundreds of megabytes
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)  # what reading damaged data may raise
BOM = b"\xef\xbb\xbf"
LFS_POINTER = b"version https://git-lfs"


class BadFile(SourceError):
    """A file, or the rest of it, that cannot be read."""


def suffix(name: str) -> str:
    """What a file's name says about its format: ".jsonl", ".json.gz", …; "" if nothing that is known."""
    return next((end for end in SUFFIXES if name.endswith(end)), "")


class RowReader:
    """Reads one file's rows from any point on.

    Args:
        path: a file whose suffix is one of ``SUFFIXES``.
        required: columns the file must have.
        columns: columns that are read as well where the file has them. Other columns are never touched.
        max_row_bytes: larger rows are rejected without being turned into Python objects.
        skip_bad: what cannot be read is rejected row by row where rows can be told apart, and the rest left.
            Otherwise it raises :class:`BadFile`.
    """

    def __init__(
        self,
        path: Path,
        required: Iterable[str] = (),
        columns: Iterable[str] = (),
        *,
        max_row_bytes: int = 2**29,
        skip_bad: bool = False,
    ) -> None:
        self.path = path
        self.required = tuple(required)
        self.columns = tuple(dict.fromkeys((*self.required, *columns)))
        self.max_row_bytes = max_row_bytes
        self.skip_bad = skip_bad

    def read(self, start: int = 0) -> Iterator[Row]:
        """The rows from number ``start`` on.

        Raises:
            BadFile: if the file is cut short, damaged, of another format or without a required column.
        """
        with self.path.open("rb") as f:
            head = f.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            raise BadFile(f"{self.path.name} is a Git LFS pointer, not the data: run `git lfs pull` where it is")
        readers: dict[str, Callable[[int], Iterator[Row]]] = {
            ".parquet": self._parquet,
            ".arrow": self._arrow,
            ".jsonl": self._json_lines,
            ".json": self._json,
        }
        form = suffix(self.path.name).removesuffix(".gz")
        if form not in readers:
            raise BadFile(f"{self.path.name}: known formats are {', '.join(SUFFIXES)}")
        if form == ".jsonl" and self._is_one_list():
            form = ".json"
        return readers[form](start)

    def _open(self) -> IO[bytes]:
        return gzip.open(self.path) if self.path.name.endswith(".gz") else self.path.open("rb")  # type: ignore[return-value]

    def _is_one_list(self) -> bool:
        """Whether the file is one JSON list, and not lines of which the first is one."""
        try:
            with self._open() as f:
                if f.read(64).removeprefix(BOM).lstrip()[:1] != b"[":
                    return False
                f.seek(0)
                first = f.readline(self.max_row_bytes + 1)
                fields = _parse(first.removeprefix(BOM))
                whole = isinstance(fields, Rejected) and fields.reason == "not_an_object"
                return not whole or not f.read(64).strip()
        except (*DAMAGE, EOFError, zlib.error) as e:
            raise BadFile(f"{self.path.name} cannot be unpacked (cut short?): {_first_line(e)}") from None

    def _parquet(self, start: int) -> Iterator[Row]:
        try:
            with pq.ParquetFile(self.path, memory_map=True, pre_buffer=False) as file:
                columns = self._present(file.schema_arrow.names)
                sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
                if min(sizes, default=0) < 0 or sum(sizes) != file.metadata.num_rows:
                    raise pa.ArrowInvalid("its parts do not have as many rows as it says")
                first = 0  # the number of the group's first row
                for group, size in enumerate(sizes):
                    if first + size > start:
                        yield from self._parquet_group(file, group, range(first, first + size), columns, start)
                    first += size
        except DAMAGE as e:
            raise BadFile(f"{self.path.name} is not a whole Parquet file (cut short?): {_first_line(e)}") from None

    def _parquet_group(
        self, file: pq.ParquetFile, group: int, rows: range, columns: list[str], start: int
    ) -> Iterator[Row]:
        position = rows.start
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                yield from self._batch(batch, position, start)
                position += batch.num_rows
            if position != rows.stop:
                raise pa.ArrowInvalid(f"{position - rows.start} rows instead of {len(rows)}")
        except DAMAGE as e:
            if not self.skip_bad:
                raise BadFile(f"{self.path.name}: row group {group} is damaged: {_first_line(e)}") from None
            for index in range(max(position, start), rows.stop):
                yield Row(index, Rejected("unreadable_row", f"row group {group} is damaged"))

    def _arrow(self, start: int) -> Iterator[Row]:
        position = 0
        try:
            with pa.memory_map(str(self.path)) as source, pa.ipc.open_stream(source) as stream:
                columns = self._present(stream.schema.names)
                for batch in stream:
                    if position + batch.num_rows > start:
                        yield from self._batch(batch.select(columns), position, start)
                    position += batch.num_rows
        except DAMAGE as e:
            raise BadFile(f"{self.path.name} is not a whole Arrow stream (cut short?): {_first_line(e)}") from None

    def _present(self, names: list[str]) -> list[str]:
        missing = [name for name in self.required if name not in names]
        if missing:
            raise BadFile(
                f"{self.path.name} has no column {', '.join(missing)}: not an original file of this data set?"
            )
        return list(names) if "*" in self.columns else [name for name in self.columns if name in names]

    def _batch(self, batch: pa.RecordBatch, first: int, start: int) -> Iterator[Row]:
        for i in range(max(start - first, 0), batch.num_rows):
            yield Row(first + i, self._fields(batch.slice(i, 1)))

    def _fields(self, row: pa.RecordBatch) -> dict[str, Any] | Rejected:
        try:
            row.validate(full=True)  # lengths and offsets that point nowhere would crash the process
            if row.nbytes > self.max_row_bytes:
                return Rejected("row_too_large", f"{row.nbytes} bytes")
            return row.to_pylist()[0]
        except DAMAGE as e:
            return Rejected("not_unicode" if "UTF8" in str(e) else "unreadable_row", type(e).__name__)

    def _json_lines(self, start: int) -> Iterator[Row]:
        try:
            yield from self._lines(start)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise BadFile(f"{self.path.name} cannot be unpacked (cut short?): {_first_line(e)}") from None

    def _lines(self, start: int) -> Iterator[Row]:
        """Numbered as an editor does, but from 0; blank lines are no rows."""
        with self._open() as f:
            index = -1
            while line := f.readline(self.max_row_bytes + 1):
                index += 1
                if not index:
                    line = line.removeprefix(BOM)
                whole = line.endswith(b"\n")
                if len(line) > self.max_row_bytes and not whole:
                    whole = _skip_line(f)
                    fields: dict[str, Any] | Rejected = Rejected(
                        "row_too_large", f"more than {self.max_row_bytes} bytes"
                    )
                elif not line.strip() or index < start:
                    continue
                else:
                    fields = _parse(line)
                if not whole and isinstance(fields, Rejected):  # a last line without its end that is not JSON
                    if not self.skip_bad:
                        raise BadFile(f"{self.path.name} ends in the middle of row {index}: fetch it again")
                    fields = Rejected("cut_short", "the file ends in the middle of this row")
                if index >= start:
                    yield Row(index, fields)

    def _json(self, start: int) -> Iterator[Row]:
        try:
            with self._open() as f:
                text = f.read(self.max_row_bytes + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise BadFile(f"{self.path.name} cannot be unpacked (cut short?): {_first_line(e)}") from None
        first_line = text[: text.find(b"\n")] if b"\n" in text else b""
        if first_line.startswith(b"{") and isinstance(_parse(first_line), dict):  # JSON lines under another name
            yield from self._json_lines(start)
            return
        if len(text) > self.max_row_bytes:
            raise BadFile(f"{self.path.name} is one JSON text of more than {self.max_row_bytes} bytes: use JSON lines")
        try:
            rows = json.loads(text.removeprefix(BOM))
        except (ValueError, RecursionError) as e:
            raise BadFile(f"{self.path.name} is not whole JSON (cut short?): {json_fault(e)}") from None
        if not isinstance(rows, list):
            raise BadFile(f"{self.path.name}: expected a JSON list of rows")
        for index in range(start, len(rows)):
            fields = rows[index]
            yield Row(index, fields if isinstance(fields, dict) else Rejected("not_an_object"))


def _parse(line: bytes) -> dict[str, Any] | Rejected:
    try:
        fields = json.loads(line)
    except UnicodeDecodeError:
        return Rejected("not_unicode")
    except (ValueError, RecursionError) as e:
        return Rejected("invalid_json", json_fault(e))
    return fields if isinstance(fields, dict) else Rejected("not_an_object")


def _skip_line(f: Any) -> bool:
    """Go on to the next line; whether this one had an end."""
    while piece := f.readline(2**20):
        if piece.endswith(b"\n"):
            return True
    return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
