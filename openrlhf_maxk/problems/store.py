"""Problems on disk: a Parquet table, and the tests in one memory-mapped file beside it.

::

    folder/
      problems.parquet   one row a problem: all fields but the tests, and where its tests are
      tests.bin          the tests' texts, one after the other, UTF-8
      solutions.parquet  reference solutions, a file of their own: readers of problems never open it
      store.json         format, counts, sizes and SHA-256 of the files above

Tests may be many megabytes; they are read when a problem is looked up, and only that problem's. Writing is streaming,
and the same problems give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from openrlhf_maxk.problems.atomic import new_folder
from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, ReferenceSolution, Test

FORMAT = 1
PROBLEMS, TESTS, SOLUTIONS, INDEX = "problems.parquet", "tests.bin", "solutions.parquet", "store.json"
FILES = (PROBLEMS, TESTS, SOLUTIONS)
_ROWS_PER_GROUP = 256


class StoreError(Exception):
    """A store that is missing, incomplete or damaged. The message names the path and what to do."""


def write_problems(
    path: str | os.PathLike[str], problems: Iterable[Problem], solutions: Iterable[ReferenceSolution] = ()
) -> None:
    """Write a store in one step: after a crash the folder is the old one or not there. Replaces a store at ``path``.

    Raises:
        ValueError: a problem that cannot be stored; the message names it and the field.
    """
    with new_folder(path) as folder, ProblemWriter(folder) as writer:
        for problem in problems:
            writer.add(problem)
        for solution in solutions:
            writer.add_solution(solution)


class ProblemWriter:
    """Streams problems and reference solutions into a folder; complete once the ``with`` block has ended.

    The folder should be one of :func:`openrlhf_maxk.problems.atomic.new_folder`, which may get other files as well.
    Memory holds the ids and one group of rows, never the tests.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._ids: set[str] = set()

    def __enter__(self) -> ProblemWriter:
        self._tests = open(self._folder / TESTS, "wb")
        self._problems = _Table(self._folder / PROBLEMS, _problem_schema())
        self._solutions = _Table(self._folder / SOLUTIONS, _solution_schema())
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._tests.close()
        self._problems.close(complete=error is None)
        self._solutions.close(complete=error is None)
        if error is None:
            index = {
                "format": FORMAT,
                "problems": self._problems.rows,
                "solutions": self._solutions.rows,
                "files": {name: _describe(self._folder / name) for name in FILES},
            }
            (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def add(self, problem: Problem) -> None:
        """Write one problem.

        Raises:
            ValueError: an id that is there already, no tests, text that is not Unicode, provenance that is not JSON.
        """
        _check(problem)
        if problem.id in self._ids:
            raise ValueError(f"problem {problem.id!r} is already in the store: ids must be unique")
        texts = [_encode(problem, "tests", text) for test in problem.tests for text in (test.input, test.output)]
        blob = b"".join(texts)
        place = {
            "tests_offset": self._tests.tell(),
            "tests_lengths": [len(text) for text in texts],
            "tests_crc32": zlib.crc32(blob),
        }
        self._problems.add(_to_row(problem) | place)
        self._tests.write(blob)
        self._ids.add(problem.id)

    def add_solution(self, solution: ReferenceSolution) -> None:
        """Write one reference solution of a problem that was written before.

        Raises:
            ValueError: there is no such problem.
        """
        if solution.problem_id not in self._ids:
            raise ValueError(f"a solution is for problem {solution.problem_id!r}, which is not in the store")
        self._solutions.add({"problem_id": solution.problem_id, "program": solution.program})


class ProblemStore(Mapping[str, Problem]):
    """Read-only problems by id, in the order in which they were written. Cheap to open; can be sent to other processes.

    Raises:
        StoreError: there is no whole store at ``path`` (when opened), or data is damaged (when read).
        KeyError: an id that is not in the store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._index = _read_index(self.path)

    def __reduce__(self) -> tuple[type[ProblemStore], tuple[Path]]:
        return ProblemStore, (self.path,)

    def __len__(self) -> int:
        return self._index["problems"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __contains__(self, problem_id: object) -> bool:
        return problem_id in self._positions

    def ids(self) -> tuple[str, ...]:
        return tuple(self._positions)

    def __getitem__(self, problem_id: str) -> Problem:
        position = self._positions[problem_id]
        row = self._table.slice(position, 1).to_pylist()[0]
        return _from_row(row, self._read_tests(row))

    def without_public_tests(self) -> frozenset[str]:
        """The ids of the problems that have no test to show or to select by."""
        columns = _read_table(self.path / PROBLEMS, columns=["id", "public_tests"]).to_pydict()
        return frozenset(i for i, tests in zip(columns["id"], columns["public_tests"], strict=True) if not tests)

    def ways(self) -> frozenset[tuple[Mode, Comparison]]:
        """How the problems are met, and how what they get is compared: every pair of the two that occurs."""
        columns = _read_table(self.path / PROBLEMS, columns=["mode", "comparison"]).to_pydict()
        pairs = set(zip(columns["mode"], columns["comparison"], strict=True))
        return frozenset((Mode(mode), Comparison(comparison)) for mode, comparison in pairs)

    def solutions(self) -> Iterator[ReferenceSolution]:
        """Reference solutions, in the order in which they were written."""
        for row in _read_table(self.path / SOLUTIONS).to_pylist():
            yield ReferenceSolution(**row)

    def verify(self) -> None:
        """Read every byte and compare it with what was written."""
        for name, expected in self._index["files"].items():
            if _describe(self.path / name) != expected:
                raise _damaged(self.path / name, "its SHA-256 is not the recorded one")

    @cached_property
    def _positions(self) -> dict[str, int]:
        ids = _read_table(self.path / PROBLEMS, columns=["id"])["id"].to_pylist()
        if len(ids) != len(self):
            raise _damaged(self.path / PROBLEMS, f"it has {len(ids)} rows instead of {len(self)}")
        return {problem_id: position for position, problem_id in enumerate(ids)}

    @cached_property
    def _table(self):
        return _read_table(self.path / PROBLEMS)

    @cached_property
    def _blob(self) -> mmap.mmap | bytes:
        with open(self.path / TESTS, "rb") as file:
            if not os.fstat(file.fileno()).st_size:  # all tests are empty texts; nothing cannot be mapped
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _read_tests(self, row: Mapping[str, Any]) -> tuple[Test, ...]:
        start, lengths = row["tests_offset"], row["tests_lengths"]
        blob = self._blob[start : start + sum(lengths)]
        if len(blob) != sum(lengths) or zlib.crc32(blob) != row["tests_crc32"]:
            raise _damaged(self.path / TESTS, f"the tests of problem {row['id']!r} are not those that were written")
        texts, position = [], 0
        for length in lengths:
            texts.append(blob[position : position + length].decode())
            position += length
        return tuple(Test(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))


class _Table:
    """A Parquet file written row by row."""

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow.parquet as parquet

        self._schema = schema
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._pending: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) == _ROWS_PER_GROUP:
            self._flush()

    def close(self, complete: bool) -> None:
        if complete:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
            self._pending.clear()


def _problem_schema():
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    return pa.schema(
        [
            *(pa.field(name, text, nullable=False) for name in ("id", "statement", "mode")),
            pa.field("entry_point", text),
            *(pa.field(name, text, nullable=False) for name in ("setup_code", "starter_code", "program_prefix")),
            pa.field("cpu_seconds", real, nullable=False),
            pa.field("memory_bytes", whole, nullable=False),
            pa.field("output_bytes", whole, nullable=False),
            pa.field("comparison", text, nullable=False),
            pa.field("tolerance", real, nullable=False),
            pa.field("checker", text),
            pa.field("public_tests", whole, nullable=False),
            *(pa.field(name, text, nullable=False) for name in ("source", "difficulty", "provenance")),
            pa.field("tests_offset", whole, nullable=False),
            pa.field("tests_lengths", pa.list_(whole), nullable=False),
            pa.field("tests_crc32", pa.uint32(), nullable=False),
        ]
    )


def _solution_schema():
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("problem_id", "program")])


def _check(problem: Problem) -> None:
    if not problem.tests:
        raise ValueError(f"problem {problem.id!r} has no tests")
    if not 0 <= problem.public_tests <= len(problem.tests):
        raise ValueError(
            f"problem {problem.id!r}: public_tests is {problem.public_tests}, and it has {len(problem.tests)} tests"
        )


def _to_row(problem: Problem) -> dict[str, Any]:
    flat = {f.name: getattr(problem, f.name) for f in fields(problem)}
    del flat["tests"]
    limits, judge = flat.pop("limits"), flat.pop("judge")
    try:
        provenance = json.dumps(dict(flat.pop("provenance")), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"problem {problem.id!r}: provenance must be JSON: {error}") from None
    row = flat | {
        "mode": problem.mode.value,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
        "comparison": judge.comparison.value,
        "tolerance": judge.tolerance,
        "checker": judge.checker,
        "provenance": provenance,
    }
    for name, value in row.items():
        if isinstance(value, str):
            _encode(problem, name, value)
    return row


def _from_row(row: Mapping[str, Any], tests: tuple[Test, ...]) -> Problem:
    texts = ("id", "statement", "entry_point", "setup_code", "starter_code", "program_prefix", "source", "difficulty")
    return Problem(
        **{name: row[name] for name in texts},
        public_tests=row["public_tests"],
        tests=tests,
        mode=Mode(row["mode"]),
        limits=Limits(row["cpu_seconds"], row["memory_bytes"], row["output_bytes"]),
        judge=Judge(Comparison(row["comparison"]), row["tolerance"], row["checker"]),
        provenance=json.loads(row["provenance"]),
    )


def _encode(problem: Problem, field: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"problem {problem.id!r}: {field} is not valid Unicode text ({error.reason})") from None


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        written, _ = index["format"], int(index["problems"])
        sizes = {name: index["files"][name]["bytes"] for name in FILES} if written == FORMAT else {}
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"there is no problem store at {folder}: {INDEX} is missing. Prepare the data first") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "it is not the index of a problem store") from None
    if written != FORMAT:
        raise StoreError(f"{path} has format {written}, this version reads {FORMAT}: prepare the data again")
    for name, size in sizes.items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            raise _damaged(folder / name, "it is missing") from None
        if found != size:
            raise _damaged(folder / name, f"it has {found} bytes instead of {size}")
    return index


def _read_table(path: Path, columns: list[str] | None = None):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(path, columns=columns, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path} is damaged: {reason}. Remove the folder and prepare the data again")


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
