"""From a path to rows: JSON lines, JSON, CSV, Parquet, Arrow, inspect's logs, folders of programs; compressed or not.

What a file is is read off its first bytes, not its name. Files are streamed: rows pass one by one or in small batches.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from openrlhf_maxk.evaluation.samples.files.json_stream import JsonStream
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSetError

Row = dict[str, Any] | list[Any]
Located = tuple[str, Row]  # where it is, for messages, and the row

ROW_LISTS = ("samples", "results", "rows", "data")  # what an object calls the array of its rows
_BATCH_ROWS = 64
_FIRST_LINE = 2**24  # characters; a longer first line is not the first of JSON lines
_MOST_FIELDS = 64  # an object with more names is no row but a mapping from problems to completions
_CSV_BLOCK = 2**24
_HEAVY = {  # columns of other tools that hold tests, tokens and logits: never needed, and often most of the file
    *("specific", "input_tokens", "output_tokens", "cont_tokens", "logits", "logprobs", "ground_truth", "gold"),
    *("private_test_cases", "public_test_cases", "input_output", "images"),
}
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the data: run `git lfs pull` where it is"),
    (b"\x80\x04", "a pickle, which may run anything when it is read: write JSON lines instead"),
    (b"\x80\x05", "a pickle, which may run anything when it is read: write JSON lines instead"),
    (b"\x89HDF", "an HDF5 file: write JSON lines instead"),
    (b"SQLite format 3", "an SQLite database: write JSON lines instead"),
    (b"%PDF", "a PDF"),
)


@dataclass(frozen=True)
class Container:
    """A file, or a folder, whose rows can be read as often as wanted."""

    path: Path
    kind: str  # for people: "JSON lines", "Parquet", with how it is compressed
    read: Callable[[], Iterator[Located]]

    def __iter__(self) -> Iterator[Located]:
        """The rows.

        Raises:
            ProblemSetError: the file is malformed; the message says where.
        """
        return self.read()


def open_container(path: Path, fields: Collection[str] = ()) -> Container:
    """Recognise what is at ``path``.

    Args:
        path: a file or a folder.
        fields: names that the user gave: columns that are read even if they are heavy.

    Raises:
        ProblemSetError: it is nothing that can be read; the message says what it is and what to do.
        FileNotFoundError: there is nothing.
    """
    if path.is_dir():
        return _folder(path, fields)
    with open(path, "rb") as file:
        head = file.read(32)
    if not head:
        raise ProblemSetError(f"{path} is empty")
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise ProblemSetError(f"{path} is {what}")
    if head.startswith(b"PAR1"):
        return Container(path, "Parquet", lambda: _parquet(path, fields))
    if head.startswith(b"ARROW1"):
        return Container(path, "Arrow", lambda: _arrow(path))
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    for magic, name, opener in _COMPRESSIONS:
        if head.startswith(magic):
            return _text(path, opener, f", {name}")
    return _text(path, _plain, "")


def _plain(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


_COMPRESSIONS: tuple[tuple[bytes, str, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ", "xz", lzma.open),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)


def _text(path: Path, opener: Callable[[Path], Any], compressed: str) -> Container:
    """A file of text: JSON in one of its shapes, or a table with a line of names."""
    try:
        with opener(path) as raw:
            head = raw.read(4096)
            encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
            start = io.TextIOWrapper(io.BytesIO(head), encoding, errors="replace").read().lstrip()
        first_line, more = _first_line(opener, path, encoding)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ProblemSetError(f"{path} cannot be read{compressed}: {error}") from None
    if not start:
        raise ProblemSetError(f"{path} is empty")

    def read(rows: Callable[[Path, io.TextIOBase], Iterator[Located]]) -> Callable[[], Iterator[Located]]:
        def opened() -> Iterator[Located]:
            with opener(path) as raw, io.TextIOWrapper(raw, encoding) as file:
                try:
                    yield from rows(path, file)
                except UnicodeDecodeError as error:
                    raise ProblemSetError(f"{path} is not text in UTF-8 ({error.reason})") from None
                except (OSError, EOFError, lzma.LZMAError) as error:
                    raise ProblemSetError(f"{path} is cut short or damaged: {error}") from None

        return opened

    if start[0] in "{[":
        if _is_json(first_line) and (more or (start[0] == "{" and not _holds_rows(first_line))):
            return Container(path, f"JSON lines{compressed}", read(_json_lines))
        return Container(path, f"JSON{compressed}", read(_json))
    delimiter = "\t" if "\t" in first_line and first_line.count("\t") >= first_line.count(",") else ","
    if (delimiter in first_line and first_line.isprintable()) or ".csv" in path.suffixes:
        return Container(path, f"CSV{compressed}", read(lambda path, file: _csv(path, file, delimiter)))
    raise ProblemSetError(
        f"{path} is neither JSON, JSON lines, CSV nor Parquet: it begins with {start[:30]!r}. Write one JSON object a "
        'line, such as {"problem": ID, "completion": TEXT}'
    )


def _first_line(opener: Callable[[Path], Any], path: Path, encoding: str) -> tuple[str, bool]:
    """The first line that is not empty, and whether more than white space follows it."""
    with opener(path) as raw, io.TextIOWrapper(raw, encoding, errors="replace") as file:
        while line := file.readline(_FIRST_LINE):
            if line.strip():
                return line.strip("\r\n"), any(file.readline(1000).strip() for _ in range(100))
    return "", False


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _holds_rows(line: str) -> bool:
    """Whether an object in one line is a file's only one, which holds the rows."""
    value = json.loads(line)
    lists = [value[name] for name in ROW_LISTS if isinstance(value.get(name), list)]
    rows = any(isinstance(row, dict) for rows in lists for row in rows[:1])
    return rows or ("date" in value and isinstance(value.get("eval"), dict)) or _is_mapping(value)


def _is_mapping(value: dict[str, Any]) -> bool:
    """Whether an object maps problems to completions: names of problems have signs that names of fields do not."""
    names = [name for name in value if re.search(r"[/\s.\d-]", name)]
    return bool(value) and len(names) == len(value) and all(isinstance(v, str | list | None) for v in value.values())


def _json_lines(path: Path, file: io.TextIOBase) -> Iterator[Located]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ProblemSetError(f"{where} is not JSON: {error}") from None
        if not isinstance(row, dict | list):
            raise ProblemSetError(f"{where} must be a JSON object, not {type(row).__name__}")
        yield where, row


def _json(path: Path, file: io.TextIOBase) -> Iterator[Located]:
    """Rows in an array; in an object that holds them; in an object from problems to completions; or as they follow."""
    stream = JsonStream(file)
    try:
        while opening := stream.peek():
            if opening == "[":
                yield from _array(path, stream)
            elif opening == "{":
                yield from _object(path, stream)
            else:
                raise ValueError(f"an object or an array was expected, not {opening!r}")
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError | ProblemSetError):
            raise
        raise ProblemSetError(f"{path}, line {stream.line} is not JSON: {error}") from None


def _array(path: Path, stream: JsonStream) -> Iterator[Located]:
    return ((where, _as_row(value)) for where, value in _values(path, stream))


def _values(path: Path, stream: JsonStream) -> Iterator[tuple[str, Any]]:
    for line in stream.elements():
        yield f"{path}, line {line}", stream.value()


def _as_row(value: Any) -> Row:
    return value if isinstance(value, dict | list) else [value]


def _object(path: Path, stream: JsonStream) -> Iterator[Located]:
    line, held, rows, mapping = stream.line, {}, False, False
    for name in stream.members():
        opening = stream.peek()
        if name in ROW_LISTS and opening == "[" and not mapping:
            values = _values(path, stream)
            start = next(values, None)
            if start is not None and isinstance(start[1], dict):
                rows = True
                yield start
                yield from ((where, _as_row(value)) for where, value in values)
            else:  # a field of a row after all
                held[name] = [value for _, value in (*([] if start is None else [start]), *values)]
        elif name == "eval" and opening == "{" and "date" in held:  # evalplus' results
            rows = True
            for _ in stream.members():
                yield from _array(path, stream)
        elif mapping:
            yield f"{path}, {name!r}", {"problem": name, "completions": stream.value()}
        else:
            held[name] = stream.value()
            if mapping := len(held) > _MOST_FIELDS and not rows:
                yield from _mapping(path, held)
    if rows or mapping:
        return
    if _is_mapping(held):
        yield from _mapping(path, held)
    else:
        yield f"{path}, line {line}", held


def _mapping(path: Path, held: dict[str, Any]) -> Iterator[Located]:
    for name, value in held.items():
        yield f"{path}, {name!r}", {"problem": name, "completions": value}


def _csv(path: Path, file: io.TextIOBase, delimiter: str) -> Iterator[Located]:
    """Every field is text; one that is empty without quotation marks is null, as pandas writes it."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = next(csv.reader(file, delimiter=delimiter), [])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ProblemSetError(f"{path}, line 1 names the column {twice[0]!r} twice")
    kinds = dict.fromkeys(names, pa.string())
    try:
        reader = arrow_csv.open_csv(
            _Utf8(file),
            arrow_csv.ReadOptions(column_names=names, block_size=_CSV_BLOCK, use_threads=False),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=kinds, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
        row = 1
        for batch in reader:
            for fields in batch.to_pylist():
                row += 1
                yield f"{path}, row {row}", fields
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):
            raise ProblemSetError(f"{path} is not whole CSV: {_first(error)}") from None


class _Utf8(io.RawIOBase):
    """What is left of an open file of text, as bytes in UTF-8."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(max(size // 4, 1) if size > 0 else -1).encode()


def _parquet(path: Path, fields: Collection[str]) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            columns = [leaf for leaf in leaves if not _HEAVY.intersection(leaf.split(".")) - set(fields)]
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise ProblemSetError(f"{path} is not a whole Parquet file: {_first(error)}") from None


def _arrow(path: Path) -> Iterator[Located]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            number = 0
            for i in range(file.num_record_batches):
                batch = file.get_batch(i)
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    for row in batch.slice(start, _BATCH_ROWS).to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise ProblemSetError(f"{path} is not a whole Arrow file: {_first(error)}") from None


def _zip(path: Path) -> Container:
    from openrlhf_maxk.evaluation.samples.files.inspect_log import sample_names, samples

    if sample_names(path):
        return Container(path, "log archive", lambda: samples(path))
    raise ProblemSetError(f"{path} is a zip archive, and no log of inspect (it has no samples/): unpack it")


def _folder(path: Path, fields: Collection[str]) -> Container:
    """evalplus' folders (a folder a problem, a program a file), or the one file of samples that there is."""
    programs = sorted(path.glob("*/*.py"), key=lambda file: (natural(file.parent.name), natural(file.name)))
    if programs:
        return Container(path, "folder of programs", lambda: _programs(programs))
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    files = [file for file in files if file.suffix != ".json" or not file.name.startswith("results")] or files
    if len(files) == 1:
        return open_container(files[0], fields)
    if not files:
        raise ProblemSetError(f"{path} is a folder without samples: evalplus' has a folder for each problem, of *.py")
    raise ProblemSetError(f"{path} is a folder of {len(files)} files: name one of them, such as {files[0]}")


def _programs(files: list[Path]) -> Iterator[Located]:
    for file in files:
        try:
            program = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ProblemSetError(f"{file} is not text in UTF-8") from None
        yield str(file), {"task_id": file.parent.name, "solution": program}


def natural(name: str) -> list[tuple[int, str]]:
    """A key that puts 10 behind 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
